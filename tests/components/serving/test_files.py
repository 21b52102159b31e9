import numpy as np

from components.serving.clients.base import Client, Refused
from components.serving.files import BATCH_SIZE, Scored, Unreadable, find_images, score_files


class FakeClient(Client):
    """Scores an image by its length; refuses a batch with one that starts with "bad"."""

    def __init__(self):
        self.batches = []

    def score(self, images):
        self.batches.append(len(images))
        if any(image.startswith(b"bad") for image in images):
            raise Refused("no image")
        return {"pp": np.array([len(image) for image in images], "float32")}


def scores(results):
    """Path -> score or reason, in order."""
    found = []
    for result in results:
        if isinstance(result, Scored):
            found += zip(result.names, result.outputs["pp"].tolist(), strict=True)
        else:
            found.append((result.name, result.reason))
    return found


def write(folder, contents):
    paths = []
    for index, content in enumerate(contents):
        paths.append(str(folder / f"{index:04d}.png"))
        (folder / paths[-1]).write_bytes(content)
    return paths


def test_folders_are_searched_in_order_and_files_are_taken_as_given(tmp_path):
    for name in ("b.png", "a.JPG", "c/d.bmp", "c/e/f.gif", "notes.txt", ".x.png", ".y/z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    given = [str(tmp_path / "notes.txt"), str(tmp_path)]
    found = [str(tmp_path / name) for name in ("a.JPG", "b.png", "c/d.bmp", "c/e/f.gif")]
    assert list(find_images(given)) == [given[0], *found]


def test_bad_files_are_named_and_all_others_scored_in_order(tmp_path):
    contents = [b"x" * (index + 1) for index in range(80)]
    for index in (0, 17, 18, 70):
        contents[index] = b"bad"
    paths = write(tmp_path, contents)
    missing = str(tmp_path / "gone.png")
    paths.insert(5, missing)
    found = scores(score_files(FakeClient(), paths))
    expected = {
        path: "no image" if content == b"bad" else len(content)
        for path, content in zip([p for p in paths if p != missing], contents, strict=True)
    }
    assert dict(found) == {**expected, missing: "No such file or directory"}
    scored = [path for path, value in found if not isinstance(value, str)]
    assert scored == sorted(scored) and len(scored) == 76


def test_a_file_given_twice_is_scored_twice(tmp_path):
    (path,) = write(tmp_path, [b"xy"])
    assert scores(score_files(FakeClient(), [path, path])) == [(path, 2), (path, 2)]


def test_no_more_than_a_batch_is_read_ahead(tmp_path):
    paths = write(tmp_path, [b"x"] * (3 * BATCH_SIZE))
    asked = []
    results = score_files(FakeClient(), (asked.append(path) or path for path in paths))
    next(results)
    assert len(asked) == BATCH_SIZE
    assert len(list(results)) == 2


def test_one_bad_image_costs_few_requests(tmp_path):
    client = FakeClient()
    results = list(score_files(client, write(tmp_path, [b"x"] * 31 + [b"bad"])))
    assert sum(isinstance(result, Unreadable) for result in results) == 1
    assert client.batches == [32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]
