import csv
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from click.testing import CliRunner
from tensorflow_serving.apis import prediction_log_pb2

from pipeline import cli

SIZE = 500


def scores(shift=0.0, count=1500, changed_at=500, seed=0):
    """Anomaly scores that sink by `shift` standard deviations from the image `changed_at` on."""
    generator = np.random.default_rng(seed)
    calibration = np.sort(generator.normal(size=SIZE))
    values = generator.normal(size=count) - shift * (np.arange(count) >= changed_at)
    at_most = np.searchsorted(calibration, values, side="right")
    return (1 - (1 + at_most) / (SIZE + 1)).astype("float32")


def as_csv(path, values, least=1 / (SIZE + 1)):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "flagged", "anomaly_score", "least_alpha"])
        writer.writerows(
            [f"{i:05d}.png", False, v, np.float32(least)] for i, v in enumerate(values)
        )
    return path


def as_json_lines(path, values):
    lines = (
        {"image": f"{i:05d}.png", "anomaly_score": float(v), "least_alpha": 1 / (SIZE + 1)}
        for i, v in enumerate(values)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def as_parquet(folder, values):
    """As Beam writes it: parts in any order."""
    (folder / "scores").mkdir(parents=True)
    order = np.random.default_rng(0).permutation(len(values))
    for number, part in enumerate(np.array_split(order, 3)):
        table = {
            "id": [f"{i:05d}.png" for i in part],
            "anomaly_score": pa.array(values[part], pa.float32()),
            "least_alpha": pa.array(np.full(len(part), 1 / (SIZE + 1)), pa.float32()),
        }
        pq.write_table(pa.table(table), folder / "scores" / f"part-{number}.parquet")
    return folder


def as_examples(folder, values):
    (folder / "scores").mkdir(parents=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(folder / "scores" / "part.tfrecord.gz"), options) as writer:
        for number in np.random.default_rng(0).permutation(len(values)):
            example = tf.train.Example()
            feature = example.features.feature
            feature["id"].bytes_list.value.append(f"{number:05d}.png".encode())
            feature["anomaly_score"].float_list.value.append(values[number])
            feature["least_alpha"].float_list.value.append(1 / (SIZE + 1))
            writer.write(example.SerializeToString())
    return folder


def as_server_log(path, values):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in np.array_split(values, 100):
            log = prediction_log_pb2.PredictionLog()
            outputs = log.predict_log.response.outputs
            outputs["anomaly_score"].CopyFrom(tf.make_tensor_proto(request))
            least = np.full(len(request), 1 / (SIZE + 1), "float32")
            outputs["least_alpha"].CopyFrom(tf.make_tensor_proto(least))
            writer.write(log.SerializeToString())
    return path


def watch(*arguments):
    return CliRunner().invoke(cli.main, ("watch", *map(str, arguments)))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (as_csv, "scores.csv"),
        (as_json_lines, "scores.jsonl"),
        (as_parquet, "parquet"),
        (as_examples, "records"),
        (as_server_log, "log.tfrecord"),
    ],
)
def test_every_form_of_scores_gives_the_same_alarm(write, name, tmp_path):
    values = scores(shift=1)
    outcome = watch(write(tmp_path / name, values), "--json")
    assert outcome.exit_code == 1, outcome.output
    found = json.loads(outcome.output)
    assert found["images"] == 1500
    assert found["calibration_images"] == SIZE
    assert found["flagged"] == pytest.approx((values > np.float32(0.95)).mean())
    assert 400 < found["since"]["number"] < 540
    assert found["since"]["number"] < found["alarm"]["number"] < 700
    if write is as_server_log:
        place = found["alarm"]["number"] - 1
        assert found["alarm"]["name"] == (
            f"log.tfrecord, request {place // 15 + 1}, image {place % 15 + 1}"
        )
    else:
        assert found["alarm"]["name"] == f"{found['alarm']['number'] - 1:05d}.png"


def test_no_change_no_alarm(tmp_path):
    outcome = watch(as_csv(tmp_path / "scores.csv", scores()), "--figure", tmp_path / "curve.png")
    assert outcome.exit_code == 0, outcome.output
    assert "1500 images, compared with 500 calibration images" in outcome.output
    assert "No alarm at level 0.01: nothing speaks against the calibration." in outcome.output
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_files_are_one_stream(tmp_path):
    values = scores(shift=1)
    days = [
        as_csv(tmp_path / f"{day}.csv", part) for day, part in enumerate(np.array_split(values, 3))
    ]
    outcome = watch(*days)
    assert outcome.exit_code == 1
    (since,) = re.findall(r"ALARM: since about image (\d+) ", outcome.output)
    assert 400 < int(since) < 540
    assert watch(days[0]).exit_code == 0


def test_what_cannot_be_watched_is_named(tmp_path):
    good = as_csv(tmp_path / "good.csv", scores())
    other = as_csv(tmp_path / "other.csv", scores(), least=1 / 100)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    (tmp_path / "old.csv").write_text("image,anomaly_score\na.png,0.5\n")
    (tmp_path / "wrong.csv").write_text("image,anomaly_score,least_alpha\na.png,nan,0.1\n")
    (tmp_path / "words.csv").write_text("image,anomaly_score,least_alpha\na.png,high,0.1\n")
    (tmp_path / "cut.jsonl").write_text('{"image": "a.png", "anomaly_sc')
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "cut.tfrecord").write_bytes(b"no record" * 20)
    (tmp_path / "nameless.csv").write_text("anomaly_score,least_alpha\n0.5,0.1\n")
    (tmp_path / "nameless.jsonl").write_text('{"anomaly_score": 0.5, "least_alpha": 0.1}')
    (tmp_path / "nested.jsonl").write_text("[" * 100_000)
    (tmp_path / "huge.jsonl").write_text(f'{{"anomaly_score": {"9" * 400}, "least_alpha": 0.1}}')
    (tmp_path / "parts").mkdir()
    shutil.copy(tmp_path / "cut.jsonl", tmp_path / "parts")
    part = as_parquet(tmp_path / "beam", scores()) / "scores" / "part-0.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:50] + bytes(99) + content[149:])
    (tmp_path / "table.txt").write_text("anomaly_score  flagged  image\n0.5  no  a.png\n")
    for files, message in (
        ((tmp_path / "none.csv",), "none.csv does not exist"),
        ((tmp_path / "empty.csv",), "There are no scores in"),
        ((tmp_path / "foreign.csv",), "foreign.csv has no 'anomaly_score'"),
        ((tmp_path / "old.csv",), "old.csv has no 'least_alpha'"),
        ((tmp_path / "wrong.csv",), "wrong.csv is damaged: the scores nan and 0.1 are not between"),
        ((tmp_path / "words.csv",), "words.csv is damaged: could not convert"),
        ((tmp_path / "nameless.csv",), "nameless.csv has no 'image'"),
        ((tmp_path / "nameless.jsonl",), "nameless.jsonl has no 'image'"),
        ((tmp_path / "nested.jsonl",), "nested.jsonl is damaged: maximum recursion depth"),
        ((tmp_path / "huge.jsonl",), "huge.jsonl is damaged: int too large"),
        ((tmp_path / "cut.jsonl",), "cut.jsonl is damaged"),
        ((tmp_path / "parts",), "parts/cut.jsonl is damaged"),
        ((tmp_path / "beam",), "part-0.parquet cannot be read (Corrupt"),
        ((tmp_path / "cut.parquet",), "cut.parquet is damaged"),
        ((tmp_path / "cut.tfrecord",), "cut.tfrecord is damaged"),
        ((tmp_path / "table.txt",), "table.txt holds no scores: give scores that"),
        ((good, other), "different numbers of images (99, 500): watch each model alone"),
    ):
        outcome = watch(*files)
        assert outcome.exit_code == 2, outcome.output
        assert message in outcome.output
        assert len(outcome.output.splitlines()) == 1
