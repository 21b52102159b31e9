import json
import os
import threading
import time

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image
from tfx.types import standard_artifacts

from components.data import examples
from components.serving.batch import inputs
from components.serving.batch.component import BatchScorer
from components.serving.batch.pipeline import Counts, score_all
from components.serving.batch.scoring import ScoreBatch
from components.serving.export import export
from models import detectors
from models.errors import UserError
from pipeline.beam_args import beam_args

COUNT = 25
SMALL = {"filters": 8, "kernel_size": 3, "primary_types": 2, "primary_kernel_size": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, toys):
    """Folder of a Model artifact, and its scorer."""
    images, labels = toys(60, 3, seed=0)
    detector = detectors.get("capsnet", epochs=1, decoder_units=(16,), **SMALL)
    scorer = detector.fit(images, labels, calibration=images[:30])
    folder = tmp_path_factory.mktemp("model")
    export(scorer, (12, 12), str(folder / "Format-Serving"))
    return folder, scorer


@pytest.fixture(scope="module")
def model(trained):
    return str(trained[0] / "Format-Serving")


@pytest.fixture(scope="module")
def images(toys):
    """Of another size than the network's."""
    return toys(COUNT, 3, seed=1, size=15)[0]


@pytest.fixture(scope="module")
def expected(trained, images):
    outputs = trained[1](images)
    return {name: np.asarray(value) for name, value in outputs.items() if name != "reconstruction"}


@pytest.fixture
def run(model, tmp_path):
    def run(*inputs, arguments=(), **options):
        names = [str(path) for path in inputs]
        pipeline = beam.Pipeline(argv=beam_args(arguments))
        return score_all(pipeline, model, names, str(tmp_path / "out"), **options)

    return run


def write_images(folder, images):
    for index, image in enumerate(images):
        path = folder / f"{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    (folder / "notes.md").write_text("no image, so of no interest")
    return [str(folder / f"{index % 3}" / f"{index}.png") for index in range(len(images))]


def example(image, identity):
    return examples.make_example(image, 0, "a", ["a"], identity).SerializeToString()


def write_records(path, records):
    options = tf.io.TFRecordOptions("GZIP" if path.name.endswith(".gz") else "")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)


def read(folder):
    """Id -> name of each output -> value."""
    records = {}
    for path in (folder / "scores").iterdir():
        if path.suffix == ".parquet":
            for row in pq.read_table(path).to_pylist():
                records[row.pop("id")] = row
            continue
        for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator():
            features = dict(tf.train.Example.FromString(record).features.feature)
            texts = {
                name: features.pop(name).bytes_list.value[0].decode()
                for name in ("id", "most_similar_class")
            }
            identity = texts.pop("id")
            texts["flagged"] = bool(features.pop("flagged").int64_list.value[0])
            values = {name: value.float_list.value[:] for name, value in features.items()}
            records[identity] = values | texts
    return records


def dead_letters(folder):
    lines = (folder / "dead-letters.jsonl").read_text().splitlines()
    return {letter["id"]: letter["reason"] for letter in map(json.loads, lines)}


def make_input(kind, folder, images):
    """The input of a kind and the ids that it gives, in the order of the images."""
    if kind == "folder":
        return folder, write_images(folder, images)
    if kind == "glob of images":
        write_images(folder, images)
        return folder / "*" / "*.png", [
            str(folder / f"{index % 3}" / f"{index}.png") for index in range(COUNT)
        ]
    if kind in ("list.txt", "list.csv"):
        paths = write_images(folder, images)
        names = [os.path.relpath(path, folder) for path in paths]
        names[0] = paths[0]  # absolute and relative ones
        lines = ["label,path", *(f"a,{name}" for name in names)] if "csv" in kind else names
        (folder / kind).write_text("\n\n".join(lines) + "\n")
        return folder / kind, names
    folder.mkdir()
    ids = [f"test-{index}" for index in range(COUNT)]
    records = [example(*pair) for pair in zip(images, ids, strict=True)]
    for shard in range(2):
        name = f"data-{shard}" + (".gz" if kind == "gzipped records" else "")
        write_records(folder / name, records[shard::2])
    return folder / "data-*", ids


@pytest.mark.parametrize(
    ("kind", "output_format"),
    [
        ("folder", "tfrecord"),
        ("glob of images", "parquet"),
        ("list.txt", "parquet"),
        ("list.csv", "tfrecord"),
        ("gzipped records", "parquet"),
        ("records", "tfrecord"),
    ],
)
def test_inputs_and_outputs_with_the_scores_of_the_in_process_model(
    kind, output_format, run, images, expected, tmp_path
):
    given, ids = make_input(kind, tmp_path / "data", images)
    counts = run(given, output_format=output_format, batch_size=4)
    assert (counts.scored, counts.dead) == (COUNT, 0)
    found = read(tmp_path / "out")
    assert sorted(found) == sorted(ids)
    for index, identity in enumerate(ids):
        similar = found[identity].pop("most_similar_class")
        assert similar == str(expected["class_probabilities"][index].argmax())
        assert np.squeeze(found[identity].pop("least_alpha")) == pytest.approx(1 / 31)
        flagged = expected["anomaly_score"][index] > np.float32(0.95)
        assert found[identity].pop("flagged") is bool(flagged)
        assert found[identity].keys() == expected.keys()
        for name, value in found[identity].items():
            np.testing.assert_allclose(
                np.reshape(value, np.shape(expected[name][index])), expected[name][index], atol=1e-5
            )
    assert sorted(os.listdir(tmp_path)) == ["data", "out"]
    assert sorted(os.listdir(tmp_path / "out")) == ["counts.json", "dead-letters.jsonl", "scores"]
    assert dead_letters(tmp_path / "out") == {}


def test_bad_images_are_dead_letters_and_spoil_nothing(run, images, expected, tmp_path):
    ids = write_images(tmp_path / "data", images)
    (tmp_path / "data" / "0" / "text.png").write_text("no image")
    (tmp_path / "data" / "1" / "empty.jpg").write_bytes(b"")
    png = (tmp_path / "data" / "0" / "0.png").read_bytes()
    (tmp_path / "data" / "2" / "short.png").write_bytes(png[: len(png) // 2])
    names = [*ids, "0/text.png", "1/empty.jpg", "2/short.png", "missing.png", "no://such/file"]
    (tmp_path / "data" / "list.txt").write_text("\n".join(names))

    counts = run(tmp_path / "data" / "list.txt", batch_size=16)
    assert counts == Counts(scored=COUNT, dead=5)
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == {"scored": 25, "dead": 5}
    reasons = dead_letters(tmp_path / "out")
    assert reasons.keys() == set(names[COUNT:])
    assert reasons["0/text.png"] == "no image of a known format, or damaged"
    assert reasons["1/empty.jpg"] == "the file is empty"
    assert reasons["2/short.png"].startswith("Invalid PNG data")
    assert reasons["missing.png"] == "No such file or directory"
    found = read(tmp_path / "out")
    assert [found[identity]["pp"][0] for identity in ids] == pytest.approx(
        list(expected["pp"]), abs=1e-5
    )


def test_bad_records_are_dead_letters(run, images, tmp_path):
    without_id = tf.train.Example.FromString(example(images[1], "x"))
    del without_id.features.feature["id"]
    records = [
        example(images[0], "first"),
        b"\xff" * 9,
        tf.train.Example().SerializeToString(),
        without_id.SerializeToString(),
    ]
    data = tmp_path / "data"
    write_records(data, records)
    (tmp_path / "broken").write_bytes(data.read_bytes()[:-20])
    (tmp_path / "text").write_text("These are no TFRecords at all.")

    counts = run(data, tmp_path / "broken", tmp_path / "text", max_dead=1)
    # `broken` loses its last record, and names the place.
    assert counts == Counts(scored=3, dead=6)
    assert set(read(tmp_path / "out")) == {"first", f"{data}:3"}
    reasons = dead_letters(tmp_path / "out")
    assert reasons[f"{data}:1"] == "not a tf.Example"
    assert reasons[f"{data}:2"] == "the tf.Example has no image/encoded"
    assert reasons[f"{tmp_path / 'broken'}:3"] == "the record is damaged or cut off"
    assert reasons[str(tmp_path / "text")] == "not a file of TFRecords"


def test_records_behind_a_damaged_one_are_scored(run, images, tmp_path):
    records = [example(image, f"{place}") for place, image in enumerate(images[:6])]
    data = tmp_path / "data"
    write_records(data, records)
    content = bytearray(data.read_bytes())
    place = content.index(records[2]) + 30
    content[place] ^= 1
    data.write_bytes(content)
    counts = run(data)
    assert counts == Counts(scored=5, dead=1)
    assert set(read(tmp_path / "out")) == {"0", "1", "3", "4", "5"}
    assert dead_letters(tmp_path / "out") == {f"{data}:2": "the record is damaged or cut off"}


def test_records_that_cannot_be_found_any_more_are_one_dead_letter(run, images, tmp_path):
    records = [example(image, f"{place}") for place, image in enumerate(images[:6])]
    data = tmp_path / "data"
    write_records(data, records)
    content = bytearray(data.read_bytes())
    content[content.index(records[2]) - 12] ^= 1  # the length of that record
    data.write_bytes(content)
    assert run(data) == Counts(scored=2, dead=1)
    lost = "the length of record 2 is wrong, so it and all records behind it are lost"
    assert dead_letters(tmp_path / "out") == {str(data): lost}


@pytest.mark.parametrize("kind", ["folder", "records"])
def test_images_of_too_many_pixels_are_dead_letters(kind, run, images, tmp_path):
    given, ids = make_input(kind, tmp_path / "data", images)
    counts = run(given, max_pixels=15 * 15 - 1, max_dead=1.0)
    assert (counts.scored, counts.dead) == (0, COUNT)
    reasons = dead_letters(tmp_path / "out")
    assert set(reasons) == set(ids)
    assert reasons[ids[0]] == "15x15 are 225 pixels, more than the limit of 224"


def test_names_and_ids_that_are_no_text_stay_apart(run, images, tmp_path):
    folder, records = tmp_path / "data", []
    folder.mkdir()
    for name, image in zip((b"\xfe", b"\xff"), images, strict=False):
        Image.fromarray(image[..., 0]).save(
            os.fsdecode(os.fsencode(folder) + b"/" + name + b".png")
        )
        record = tf.train.Example.FromString(example(image, "x"))
        record.features.feature["id"].bytes_list.value[0] = name
        records.append(record.SerializeToString())
    write_records(tmp_path / "records", records)
    run(folder, tmp_path / "records")
    names = {f"{folder}/\\xfe.png", f"{folder}/\\xff.png"}
    assert set(read(tmp_path / "out")) == {*names, "\\xfe", "\\xff"}


def test_too_many_dead_letters_fail_the_job_and_are_kept(run, images, tmp_path):
    write_images(tmp_path / "data", images[:4])
    for number in range(2):
        (tmp_path / "data" / f"{number}.png").write_text("no image")
    with pytest.raises(UserError) as raised:
        run(tmp_path / "data", max_dead=0.3)
    kept = tmp_path / "out-dead-letters.jsonl"
    assert str(raised.value) == (
        f"2 of 6 images could not be scored, which is more than 30%: {kept} has the reasons, and "
        "nothing else was written."
    )
    assert len(kept.read_text().splitlines()) == 2
    assert not (tmp_path / "out").exists()
    counts = run(tmp_path / "data", max_dead=0.34)
    assert (counts.scored, counts.dead) == (4, 2)


def test_a_store_that_does_not_answer_costs_its_own_lines_only(run, images, monkeypatch, tmp_path):
    ids = write_images(tmp_path / "data", images[:3])

    def hangs(line, outcome):
        threading.Event().wait()

    monkeypatch.setattr(inputs, "_try_to_match", hangs)
    monkeypatch.setattr(inputs, "_REACHABLE_SECONDS", 0.2)
    lines = [*ids, "gs://bucket/1.png", "gs://bucket/2.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    started = time.monotonic()
    assert run(tmp_path / "list.txt") == Counts(scored=3, dead=2)
    assert time.monotonic() - started < 60
    reasons = dead_letters(tmp_path / "out")
    assert reasons["gs://bucket/1.png"] == "its store did not answer within 0.2 s"
    assert reasons.keys() == {"gs://bucket/1.png", "gs://bucket/2.png"}


def test_what_a_folder_holds_beside_images_is_counted(run, images, tmp_path):
    write_images(tmp_path / "data", images[:4])  # and notes.md
    (tmp_path / "data" / ".hidden.png").write_bytes(b"")
    counts = run(tmp_path / "data")
    assert (counts.scored, counts.dead) == (4, 0)
    assert counts.left_out == {"ignored, because hidden": 1, "ignored, because no image": 1}


def test_beam_counts_too(model, images, tmp_path):
    write_images(tmp_path / "data", images)
    (tmp_path / "data" / "bad.png").write_bytes(b"")
    pipeline = beam.Pipeline(argv=beam_args())
    run, results = pipeline.run, []
    pipeline.run = lambda *args: results.append(run(*args)) or results[0]
    score_all(pipeline, model, [str(tmp_path / "data")], str(tmp_path / "out"))
    counters = results[0].metrics().query()["counters"]
    found = {c.key.metric.name: c.result for c in counters if "batch_scoring" in str(c.key)}
    assert found == {"scored": COUNT, "dead": 1}


def test_images_wait_a_batch_at_most(run, images, monkeypatch, tmp_path):
    """Memory does not grow with the input: nothing piles up between reading and scoring."""
    write_images(tmp_path / "data", np.tile(images, (10, 1, 1, 1)))
    waiting, most, sizes = 0, 0, []
    open_file, process = inputs.open_file, ScoreBatch.process

    def opened(path):
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return open_file(path)

    def scored(self, batch):
        nonlocal waiting
        waiting -= len(batch)
        sizes.append(len(batch))
        yield from process(self, batch)

    monkeypatch.setattr(inputs, "open_file", opened)
    monkeypatch.setattr(ScoreBatch, "process", scored)
    assert run(tmp_path / "data", batch_size=8).scored == 10 * COUNT
    assert most <= 8 + 1  # the next one is read before a full batch goes on
    assert sum(sizes) == 10 * COUNT


def test_two_workers_write_two_shards_and_load_the_model_once(run, images, monkeypatch, tmp_path):
    ids = write_images(tmp_path / "data", np.tile(images, (10, 1, 1, 1)))
    loaded, load = [], tf.saved_model.load
    monkeypatch.setattr(tf.saved_model, "load", lambda path: loaded.append(path) or load(path))
    workers = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    assert run(tmp_path / "data", arguments=workers).scored == len(ids)
    assert len(os.listdir(tmp_path / "out" / "scores")) == 2
    assert set(read(tmp_path / "out")) == set(ids)
    assert len(loaded) == 1


@pytest.mark.parametrize("mine", ["out", "out/mine"])
def test_a_full_output_is_left_as_it_is(mine, run, images, tmp_path):
    write_images(tmp_path / "data", images)
    (tmp_path / mine).parent.mkdir(exist_ok=True)
    (tmp_path / mine).write_text("mine")
    with pytest.raises(UserError, match=r"output .*out exists and is not an empty folder"):
        run(tmp_path / "data")
    assert (tmp_path / mine).read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["data", "out"]


@pytest.mark.parametrize("kind", ["folder", "list.txt", "records"])
def test_nothing_to_score(kind, run, tmp_path):
    data = tmp_path / "data"
    if kind == "folder":
        data.mkdir()
    elif kind == "list.txt":
        data = tmp_path / "list.txt"
        data.write_text("\n")
    else:
        write_records(data, [])
    with pytest.raises(UserError, match=f"There are no images in .*{data.name}"):
        run(data)
    assert os.listdir(tmp_path) == [data.name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "input .*missing does not exist"),
        ("*.png", r"input .*\*.png does not exist"),
        ("no://such/file", "no file system for the input no://such/file"),
        ("list.csv", "list.csv has no column `path`"),
        ("folder.csv", "Cannot read the manifest .*folder.csv: .*Is a directory"),
    ],
)
def test_bad_inputs(name, message, run, tmp_path):
    (tmp_path / "list.csv").write_text("name\na.png\n")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=message):
        run(name if "://" in name else tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder.csv", "list.csv"]


def test_bad_models(images, tmp_path):
    write_images(tmp_path / "data", images)

    def run(folder):
        score_all(beam.Pipeline(), str(folder), [str(tmp_path / "data")], str(tmp_path / "out"))

    with pytest.raises(UserError, match="nowhere holds no SavedModel"):
        run(tmp_path / "nowhere")
    tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
    with pytest.raises(UserError, match="other has no assets.extra/SHA256SUMS: give a whole one"):
        run(tmp_path / "other")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing(run, images, monkeypatch, tmp_path):
    write_images(tmp_path / "data", images)

    def fail(path):
        raise RuntimeError("out of order")

    monkeypatch.setattr(tf.saved_model, "load", fail)
    with pytest.raises(RuntimeError, match="out of order"):
        run(tmp_path / "data")
    assert os.listdir(tmp_path) == ["data"]


def test_the_fingerprint_follows_the_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    first = inputs.fingerprint(str(tmp_path))
    assert inputs.fingerprint(str(tmp_path)) == first
    (tmp_path / "a.png").write_bytes(b"12")
    second = inputs.fingerprint(str(tmp_path))
    (tmp_path / "b.png").write_bytes(b"1")
    assert len({first, second, inputs.fingerprint(str(tmp_path))}) == 3


@pytest.mark.parametrize("blessed", [True, False])
def test_the_component_scores_with_a_blessed_model_alone(blessed, trained, images, tmp_path):
    write_images(tmp_path / "data", images)
    Image.new("L", (16, 15)).save(tmp_path / "data" / "large.png")
    artifacts = {
        "model": (standard_artifacts.Model, trained[0]),
        "blessing": (standard_artifacts.ModelBlessing, tmp_path / "blessing"),
        "scores": (standard_artifacts.InferenceResult, tmp_path / "scores"),
    }
    made = {}
    for name, (kind, uri) in artifacts.items():
        made[name] = kind()
        made[name].uri = str(uri)
    made["blessing"].set_int_custom_property("blessed", int(blessed))
    (tmp_path / "scores").mkdir()  # as TFX does
    BatchScorer.test_call(
        **made,
        images=str(tmp_path / "data"),
        max_pixels=15 * 15,
        fingerprint="",
        digest="",
        pipeline=beam.Pipeline(argv=beam_args()),
    )
    if blessed:
        assert len(read(tmp_path / "scores")) == COUNT
    else:
        assert os.listdir(tmp_path / "scores") == []
