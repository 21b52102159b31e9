import io

import numpy as np
from PIL import Image

from components.data.folder import OTHER, ROTATED, Table, find_images
from components.serving.clients.base import Client, Refused
from components.serving.files import BATCH_SIZE, Scored, Unreadable, score_files

BAD = 999


def png(width, kind="png", **options):
    buffer = io.BytesIO()
    Image.new("L", (width, 2)).save(buffer, kind, **options)
    return buffer.getvalue()


class FakeClient(Client):
    """Scores an image by its width; refuses a batch with one of the width `BAD`."""

    def __init__(self):
        self.batches = []

    def score(self, images):
        self.batches.append(len(images))
        widths = [Image.open(io.BytesIO(image)).width for image in images]
        if BAD in widths:
            raise Refused("no image")
        return {"pp": np.array(widths, "float32")}


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
    table = Table()
    assert list(find_images(given, table)) == [given[0], *found]
    assert table.counts[OTHER] == 1


def test_bad_files_are_named_and_all_others_scored_in_order(tmp_path):
    contents = [png(index + 1) for index in range(80)]
    for index in (0, 17, 18, 70):
        contents[index] = png(BAD)
    paths = write(tmp_path, contents)
    missing = str(tmp_path / "gone.png")
    paths.insert(5, missing)
    found = scores(score_files(FakeClient(), paths, Table()))
    expected = {
        path: "no image" if content == png(BAD) else index + 1
        for index, (path, content) in enumerate(
            zip([p for p in paths if p != missing], contents, strict=True)
        )
    }
    assert dict(found) == {**expected, missing: "No such file or directory"}
    scored = [path for path, value in found if not isinstance(value, str)]
    assert scored == sorted(scored) and len(scored) == 76


def test_a_refused_image_whose_name_is_no_text_is_named_as_text(tmp_path):
    path = f"{tmp_path}/\udcff.png"
    with open(path, "wb") as file:
        file.write(png(BAD))
    assert scores(score_files(FakeClient(), [path], Table())) == [
        (f"{tmp_path}/\\xff.png", "no image")
    ]


def test_a_file_given_twice_is_scored_twice(tmp_path):
    (path,) = write(tmp_path, [png(2)])
    assert scores(score_files(FakeClient(), [path, path], Table())) == [(path, 2), (path, 2)]


def test_no_more_than_a_batch_is_read_ahead(tmp_path):
    paths = write(tmp_path, [png(1)] * (3 * BATCH_SIZE))
    asked = []
    results = score_files(FakeClient(), (asked.append(path) or path for path in paths), Table())
    next(results)
    assert len(asked) == BATCH_SIZE
    assert len(list(results)) == 2


def test_one_bad_image_costs_few_requests(tmp_path):
    client = FakeClient()
    paths = write(tmp_path, [png(1)] * 31 + [png(BAD)])
    results = list(score_files(client, paths, Table()))
    assert sum(isinstance(result, Unreadable) for result in results) == 1
    assert client.batches == [32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_formats_that_the_model_does_not_decode_become_png(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = [png(3, "webp"), png(4, "tiff"), png(5, "bmp"), png(6, "jpeg", exif=exif)]
    client, table, sent = FakeClient(), Table(), []
    real = client.score
    client.score = lambda images: sent.extend(images) or real(images)
    found = scores(score_files(client, write(tmp_path, contents), table))
    assert [score for _, score in found] == [3, 4, 5, 6]
    kinds = [Image.open(io.BytesIO(image)).format for image in sent]
    assert kinds == ["PNG", "PNG", "PNG", "JPEG"]
    assert table.counts == {ROTATED: 1}


def test_too_many_pixels_and_what_is_no_image_are_named_unsent(tmp_path):
    paths = write(tmp_path, [png(40), b"no image", b"", png(50)])
    client = FakeClient()
    found = dict(scores(score_files(client, paths, Table(), max_pixels=99)))
    assert found == {
        paths[0]: 40,
        paths[1]: "no image of a known format, or damaged",
        paths[2]: "the file is empty",
        paths[3]: "50x2 are 100 pixels, more than the limit of 99",
    }
    assert client.batches == [1]
