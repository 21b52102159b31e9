"""The same images by all ways give the same scores."""

import collections
import os

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq

from components.serving import clients
from components.serving.batch.pipeline import score_all
from pipeline.beam_args import beam_args

_COUNT = 1000
_BATCH = 50
_FRESH = """
import sys
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
with np.load(sys.argv[2], allow_pickle=False) as data:
    pngs = [bytes.fromhex(text) for text in data["pngs"]]
batches = [
    model.signatures["score_images"](images=tf.constant(pngs[start : start + 50]))
    for start in range(0, len(pngs), 50)
]
np.savez(sys.argv[3], **{
    name: np.concatenate([batch[name].numpy() for batch in batches])
    for name in batches[0] if batches[0][name].dtype != tf.string
})
"""


def by_keras(scorer, images):
    """The Keras model takes images of one size at a time."""
    same_size = collections.defaultdict(list)
    for index, image in enumerate(images):
        same_size[image.shape].append(index)
    scores = {}
    for indices in same_size.values():
        for name, value in scorer(np.stack([images[index] for index in indices])).items():
            value = np.asarray(value)
            scores.setdefault(name, np.empty((len(images), *value.shape[1:]), "float32"))
            scores[name][indices] = value
    return scores


def by_client(client, pngs):
    batches = [client.score(pngs[start : start + _BATCH]) for start in range(0, len(pngs), _BATCH)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def by_beam(version, pngs, folder):
    (folder / "images").mkdir()
    for index, png in enumerate(pngs):
        (folder / "images" / f"{index:04d}.png").write_bytes(png)
    score_all(
        beam.Pipeline(argv=beam_args()),
        str(version),
        [str(folder / "images")],
        str(folder / "scored"),
        output_format="parquet",
    )
    table = pq.read_table(folder / "scored" / "scores").sort_by("id")
    assert [os.path.basename(name) for name in table["id"].to_pylist()] == sorted(
        os.listdir(folder / "images")
    )
    return {
        name: np.array(table[name].to_pylist(), "float32")
        for name in table.column_names
        if name not in ("id", "most_similar_class")
    }


def test_all_ways_give_the_same_scores(pushed, model_server, to_png, toys, fresh_python, tmp_path):
    generator = np.random.default_rng(0)
    sizes = generator.integers(5, 60, (40, 2))
    images = []
    for size in generator.choice(sizes, _COUNT):
        # From flat to noisy, from dim to bright; `re` of black images is too large for 1e-5.
        high = generator.integers(64, 256)
        low = generator.integers(0, high)
        images.append(generator.integers(low, high + 1, (*size, 1), dtype="uint8"))
    images[::2] = toys(_COUNT // 2, 3, seed=1)[0]
    pngs = [to_png(image) for image in images]

    np.savez(tmp_path / "pngs.npz", pngs=[png.hex() for png in pngs])
    fresh_python(_FRESH, pushed.version, tmp_path / "pngs.npz", tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz") as data:
        fresh = dict(data)

    expected = by_keras(pushed.scorer, images)
    ways = {
        "Beam": by_beam(pushed.version, pngs, tmp_path),
        "SavedModel in a fresh process": fresh,
        "SavedModel": by_client(clients.local(str(pushed.version), pictures=True), pngs),
        "REST": by_client(clients.remote(model_server.rest, "capsad", 60, pictures=True), pngs),
        "gRPC": by_client(clients.remote(model_server.grpc, "capsad", 60, pictures=True), pngs),
    }
    assert np.ptp(expected["anomaly_score"]) > 0.1 and np.ptp(expected["re"]) > 0.1
    for way, scores in ways.items():
        for name, values in expected.items():
            if name == "reconstruction" and way in ("Beam", "SavedModel in a fresh process"):
                assert name not in scores  # These score, and do not explain.
                continue
            assert scores[name].shape == values.shape, f"{way}: {name}"
            difference = np.abs(scores[name] - values).max()
            assert difference < 1e-5, f"{way}: {name}"
