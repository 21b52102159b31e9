"""Damaged images of every format, by every way of scoring."""

import csv
import io
import json
import random
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

FORMATS = ("png", "jpeg", "gif", "bmp", "webp", "tiff")


def damaged(seed):
    """The content of an image file that was cut, changed or joined, and its format."""
    generator = random.Random(seed)
    name = FORMATS[seed % len(FORMATS)]
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 23), dtype="uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name)
    content = bytearray(buffer.getvalue())
    kind = generator.randrange(5)
    if kind == 0:
        del content[generator.randrange(len(content)) :]
    elif kind == 1:
        for _ in range(generator.randint(1, 20)):
            content[generator.randrange(len(content))] = generator.randrange(256)
    elif kind == 2:
        content[: generator.randint(1, 64)] = b""
    elif kind == 3:
        start = generator.randrange(len(content))
        content[start:start] = generator.randbytes(generator.randint(1, 300))
    else:  # sizes in headers become huge
        start = generator.randrange(min(64, len(content)))
        content[start : start + 4] = b"\xff\xff\xff\x7f"
    return name, bytes(content)


def write(folder, count):
    folder.mkdir()
    for seed in range(count):
        name, content = damaged(seed)
        (folder / f"{seed:04d}.{name}").write_bytes(content)
    pixels = np.full((20, 23), 99, "uint8")
    Image.fromarray(pixels).save(folder / "good.png")


def scores_of(output):
    """Name -> anomaly_score, of CSV text."""
    start = output.index("image,flagged")
    rows = csv.DictReader(io.StringIO(output[start:]))
    return {row["image"].rpartition("/")[2]: float(row["anomaly_score"]) for row in rows}


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.reliability)])
def test_damaged_images_are_scored_or_named_the_same_everywhere(
    count, capsad, pushed, model_server, survived, tmp_path
):
    write(tmp_path / "images", count)
    model = str(pushed.serving)
    (tmp_path / "scores").mkdir()
    found, outputs = {}, {}
    for way, arguments in {
        "model": (model,),
        "rest": ("--url", model_server.rest),
        "grpc": ("--url", model_server.grpc),
    }.items():
        target = f"scores/{way}.csv"
        code, outputs[way] = capsad(
            "score", *arguments, "images", "--format", "csv", "--output", target
        )
        assert code == 0, outputs[way][-2000:]
        found[way] = scores_of((tmp_path / target).read_text())
    code, output = capsad(
        *("score", model, "images", "--beam", "--max-dead", "1"),
        *("--output", "beam", "--format=parquet"),
    )
    assert code == 0, output[-2000:]
    rows = [
        row
        for path in (tmp_path / "beam/scores").iterdir()
        for row in pq.read_table(path).to_pylist()
    ]
    found["beam"] = {row["id"].rpartition("/")[2]: row["anomaly_score"] for row in rows}
    dead = (tmp_path / "beam" / "dead-letters.jsonl").read_text().splitlines()
    dead = {json.loads(line)["id"].rpartition("/")[2] for line in dead}

    counts = json.loads((tmp_path / "beam" / "counts.json").read_text())
    assert (counts.pop("scored"), counts.pop("dead")) == (len(found["beam"]), len(dead))
    assert len(found["beam"]) + len(dead) + sum(counts.values()) == count + 1
    for way, output in outputs.items():
        left_out = sum(map(int, re.findall(r"^(\d+) files? ignored", output, re.MULTILINE)))
        scored, unreadable = re.search(r"(\d+) scored, (\d+) unreadable", output).groups()
        assert int(scored) == len(found[way])
        assert int(scored) + int(unreadable) + left_out == count + 1, output[-2000:]
    for name in sorted(path.name for path in (tmp_path / "images").iterdir()):
        values = [scores[name] for scores in found.values() if name in scores]
        harm = ""
        if len(values) not in (0, len(found)):
            harm = f"{name} is scored by some ways only"
        elif values and np.ptp(values) > 1e-5:
            harm = f"{name} has different scores: {values}"
        survived("damaged image, scored by model, REST, gRPC and Beam", harm)
    assert "good.png" in found["model"]
    assert model_server.process.poll() is None
    assert len(found["model"]) < count
