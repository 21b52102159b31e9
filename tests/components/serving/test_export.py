import collections
import io
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.python.saved_model import loader_impl
from tensorflow_serving.apis import prediction_log_pb2

from components.data import examples
from components.data.formats import WHITE
from components.data.pixels import EncodedImage, to_pixels
from components.serving.export import WARMUP_FILE, export, write_warmup_requests
from models import detectors, layers


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_are_lossless_and_in_order_whatever_the_order_of_the_files(
    channels, toys, tmp_path, write_split
):
    images, labels = toys(11, 3, seed=0, channels=channels)
    write_split(tmp_path, images, labels, reverse=True)
    split = examples.load_split(str(tmp_path), "train", (12, 12))
    np.testing.assert_array_equal(split.images, images)
    np.testing.assert_array_equal(split.labels, labels)
    assert split.texts[3] == f"class {labels[3]}"
    assert list(split.ids) == [f"train-{i:08d}" for i in range(11)]
    chosen = {"train-00000007", "train-00000002"}
    some = examples.load_split(str(tmp_path), "train", (12, 12), chosen)
    assert list(some.ids) == ["train-00000002", "train-00000007"]
    np.testing.assert_array_equal(some.images, images[[2, 7]])


def test_an_empty_split_is_empty(tmp_path):
    assert len(examples.load_split(str(tmp_path), "train", (12, 12)).images) == 0


def test_features_of_normal_and_anomalous_images():
    image = np.zeros((4, 5, 1), "uint8")
    normal = examples.make_example(image, 2, "c", ["c"], "test-00000001").features.feature
    anomaly = examples.make_example(image, -1, "z", ["a", "c"], "test-00000002").features.feature
    assert normal["image/height"].int64_list.value[:] == [4]
    assert normal["image/width"].int64_list.value[:] == [5]
    assert normal["is_anomaly"].int64_list.value[:] == [0]
    assert anomaly["is_anomaly"].int64_list.value[:] == [1]
    assert anomaly["image/class/label"].int64_list.value[:] == [-1]
    assert anomaly["contrast"].bytes_list.value[:] == [b"a", b"c"]
    assert Image.open(io.BytesIO(normal["image/encoded"].bytes_list.value[0])).format == "PNG"


_SERVE = """
import json, sys
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
with np.load(sys.argv[2], allow_pickle=False) as data:
    arrays = data["images"]
    pngs = [bytes.fromhex(text) for text in data["pngs"]]
    examples = [bytes.fromhex(text) for text in data["examples"]]
signatures = model.signatures
results = {
    "score_arrays": signatures["score_arrays"](images=tf.constant(arrays)),
    "score_images": signatures["score_images"](images=tf.constant(pngs)),
    "explain_arrays": signatures["explain_arrays"](images=tf.constant(arrays)),
    "explain_images": signatures["explain_images"](images=tf.constant(pngs)),
    "serving_default": signatures["serving_default"](examples=tf.constant(examples)),
}
print(json.dumps({
    name: {key: value.numpy().tolist() for key, value in outputs.items()}
    for name, outputs in results.items()
}, default=bytes.decode))
"""


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def primary_capsules_scorer(seed):
    """A scorer with primary capsules that are computed in the frequency domain."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None, None, 1), dtype="uint8", name="images")
    images = layers.ImagePreprocessing((20, 20), (20, 20))(inputs)
    primary = layers.PrimaryCapsules(32, 8, 9, 1)
    capsules = primary(keras.layers.Conv2D(64, 3)(images))
    probabilities = keras.ops.softmax(keras.ops.mean(capsules, axis=1))
    scores = {"class_probabilities": probabilities, "pp": keras.ops.max(probabilities, axis=-1)}
    return primary, keras.Model(inputs, scores)


def test_kernels_are_transformed_once_on_loading_and_not_stored(tmp_path, fresh_python):
    images = np.random.default_rng(0).integers(0, 256, (40, 20, 20, 1), "uint8")
    expected = []
    for seed in (0, 1):
        primary, scorer = primary_capsules_scorer(seed)
        assert primary.may_use_frequencies
        export(scorer, (20, 20), str(tmp_path / str(seed)))
        assert primary.kept_values is None  # The scorer itself goes on as before.
        expected.append(keras.ops.convert_to_numpy(scorer(images)["pp"]))
    stored = sum(file.stat().st_size for file in (tmp_path / "0" / "variables").iterdir())
    weights = sum(variable.value.numpy().nbytes for variable in scorer.variables)
    assert weights <= stored < 1.1 * weights
    np.save(tmp_path / "images.npy", images)
    # Two models in one process do not share what they have computed.
    code = """
import numpy as np, tensorflow as tf
images = np.load("images.npy")
models = [tf.saved_model.load(folder) for folder in "01"]
for count in (40, 8, 2):
    batch = tf.constant(images[:count])
    scores = [model.signatures["score_arrays"](images=batch)["pp"] for model in models]
    np.save(f"found-{count}.npy", scores)
"""
    fresh_python(code)
    for count in (40, 8, 2):
        found = np.load(tmp_path / f"found-{count}.npy")
        for scores, values in zip(found, expected, strict=True):
            np.testing.assert_allclose(scores, values[:count], rtol=1e-5)


def test_the_graph_depends_on_the_serving_device_alone(tmp_path, monkeypatch):
    inputs = keras.Input((None, None, 1), dtype="uint8", name="images")
    features = keras.layers.Conv2D(64, 1)(layers.ImagePreprocessing((20, 20))(inputs))
    capsules = layers.ClassCapsules(3)(layers.PrimaryCapsules(8, 8)(features))
    scorer = keras.Model(inputs, {"class_probabilities": layers.CapsuleLength()(capsules)})

    def operations(accelerator, **device):
        monkeypatch.setattr("models.device.has_accelerator", lambda: accelerator)
        folder = str(tmp_path / f"{accelerator}{device}")
        export(scorer, (20, 20), folder, **device)
        graph = loader_impl.parse_saved_model(folder).meta_graphs[0].graph_def
        functions = [graph, *graph.library.function]
        return collections.Counter(
            node.op
            for function in functions
            for node in (function.node if function is graph else function.node_def)
        )

    expected = operations(accelerator=False)
    assert operations(accelerator=True) == expected
    assert operations(True, serving_device="cpu") == expected
    direct = operations(True, serving_device="gpu")
    assert operations(False, serving_device="gpu") == direct
    # For CPUs there are two ways, of which the number of images chooses one.
    assert direct["If"] + direct["StatelessIf"] < expected["If"] + expected["StatelessIf"]
    # The context of an export ends with it.
    layer = layers.PrimaryCapsules(8, 8)
    monkeypatch.setattr("models.device.has_accelerator", lambda: True)
    layer.build((None, 20, 20, 64))
    assert not layer.may_use_frequencies


@pytest.mark.parametrize("channels", [1, 3])
def test_the_saved_model_gives_our_scores_where_our_packages_cannot_be_imported(
    channels, toys, tiny, tmp_path, fresh_python
):
    images, labels = toys(90, 3, seed=0, channels=channels)
    detector = detectors.get("capsnet", epochs=2, batch_size=30, learning_rate=0.01, **tiny)
    scorer = detector.fit(images, labels, calibration=images[:30])
    export(scorer, (12, 12), str(tmp_path / "model"), class_names=["a", "b", "c"], alpha=0.2)

    # Of another size than the network's: resizing is a part of the model.
    served = np.random.default_rng(1).integers(0, 256, (5, 17, 21, channels), dtype="uint8")
    np.savez(
        tmp_path / "data.npz",
        images=served,
        pngs=[png(image).hex() for image in served],
        examples=[
            examples.make_example(image, 0, "a", ["a"], "x").SerializeToString().hex()
            for image in served
        ],
    )
    output = fresh_python(_SERVE, tmp_path / "model", tmp_path / "data.npz")
    expected = {key: np.asarray(value) for key, value in scorer(served).items()}
    for signature, scores in json.loads(output.splitlines()[-1]).items():
        similar = scores.pop("most_similar_class")
        classes = expected["class_probabilities"].argmax(axis=-1)
        assert similar == ["abc"[index] for index in classes]
        np.testing.assert_allclose(scores.pop("least_alpha"), 5 * [1 / 31], rtol=1e-6)
        assert scores.pop("flagged") == [
            score > np.float32(0.8) for score in expected["anomaly_score"]
        ]
        pictures = {"reconstruction"} if signature.startswith("explain") else set()
        assert scores.keys() == expected.keys() - {"reconstruction"} | pictures, signature
        for key, value in scores.items():
            np.testing.assert_allclose(
                value, expected[key], atol=1e-5, err_msg=f"{signature} {key}"
            )


@pytest.mark.parametrize("stored", ["arrays", "files"])
def test_preprocessing_of_training_equals_that_of_serving(stored, to_png):
    images = np.random.default_rng(0).integers(0, 256, (3, 31, 27, 3), dtype="uint8")
    given = list(images)
    if stored == "files":
        given = [EncodedImage(f"{i}.png", to_png(image)) for i, image in enumerate(images)]
    trained_on = np.stack(list(to_pixels(given, (12, 12), 3, WHITE)))
    from models.layers import ImagePreprocessing

    served = keras.ops.convert_to_numpy(ImagePreprocessing((12, 12))(images))
    np.testing.assert_array_equal(trained_on / np.float32(255), served)


def test_the_model_tells_what_it_is(pushed):
    def told(version):
        signature = tf.saved_model.load(str(version)).signatures["metadata"]
        first, second = signature(query=tf.constant(["", "anything"]))["metadata"].numpy()
        assert first == second
        return json.loads(first)

    known = told(pushed.version)
    digest = known.pop("model")
    assert known == {
        "detector": "capsnet",
        "calibrated_score": "conformity",
        "classes": ["bolt", "nut", "größe"],
        "image_size": [12, 12],
        "channels": 1,
        "alpha": 0.05,
        "threshold": 0.95,
        "calibration_images": 30,
        "least_alpha": pytest.approx(1 / 31),
    }
    assert re.fullmatch("[0-9a-f]{16}", digest)


def test_a_score_that_is_no_number_is_served_as_the_lowest(tmp_path):
    inputs = keras.Input((None, None, 1), dtype="uint8", name="images")
    images = layers.ImagePreprocessing((4, 4))(inputs)
    bright = keras.ops.mean(images, axis=(1, 2, 3))
    broken = keras.ops.log(bright)  # minus infinity for a black image
    probabilities = keras.ops.stack([broken, bright / bright], axis=-1)  # NaN, too
    scorer = keras.Model(inputs, {"pp": broken, "class_probabilities": probabilities})
    export(scorer, (4, 4), str(tmp_path))
    black_and_white = np.stack([np.zeros((4, 4, 1)), np.full((4, 4, 1), 255)]).astype("uint8")
    found = tf.saved_model.load(str(tmp_path)).signatures["score_arrays"](
        images=tf.constant(black_and_white)
    )
    np.testing.assert_array_equal(found["pp"], [tf.float32.min, 0])
    np.testing.assert_array_equal(found["class_probabilities"], [[0, 0], [0, 1]])


@pytest.mark.parametrize(
    ("signature", "empty"),
    [
        ("score_images", tf.constant([], tf.string)),
        ("explain_images", tf.constant([], tf.string)),
        ("score_arrays", tf.zeros((0, 5, 7, 1), tf.uint8)),
        ("explain_arrays", tf.zeros((0, 5, 7, 1), tf.uint8)),
        ("serving_default", tf.constant([], tf.string)),
        ("metadata", tf.constant([], tf.string)),
    ],
)
def test_an_empty_batch_has_an_empty_answer(signature, empty, pushed):
    function = tf.saved_model.load(str(pushed.version)).signatures[signature]
    (name,) = function.structured_input_signature[1]
    outputs = function(**{name: empty})
    assert outputs
    assert all(value.shape[0] == 0 for value in outputs.values())


_REPLAY = """
import json, sys
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
model = tf.saved_model.load(sys.argv[1])
replayed = {}
for record in tf.data.TFRecordDataset(sys.argv[2]).as_numpy_iterator():
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    signature = request.model_spec.signature_name
    inputs = {name: tf.constant(tf.make_ndarray(t)) for name, t in request.inputs.items()}
    if signature == "metadata":
        assert len(model.signatures[signature](**inputs)["metadata"]) == 1
        continue
    replayed[signature] = model.signatures[signature](**inputs)["pp"].numpy().tolist()
print(json.dumps(replayed))
"""


def test_the_warm_up_requests_run_every_signature_on_real_images(pushed, toys, fresh_python):
    output = fresh_python(_REPLAY, pushed.version, pushed.version / WARMUP_FILE)
    replayed = json.loads(output.splitlines()[-1])
    model = tf.saved_model.load(str(pushed.version))
    assert replayed.keys() | {"metadata"} == model.signatures.keys()
    expected = np.asarray(pushed.scorer(toys(120, 3, seed=0)[0][:4])["pp"])
    for signature, scores in replayed.items():
        np.testing.assert_allclose(scores, expected, atol=1e-5, err_msg=signature)


@pytest.mark.parametrize("channels", [1, 3])
def test_warm_up_requests_are_those_of_the_images(channels, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, channels), dtype="uint8")
    write_warmup_requests(str(tmp_path), images)
    records = list(tf.data.TFRecordDataset(str(tmp_path / WARMUP_FILE)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    requests = {
        log.predict_log.request.model_spec.signature_name: log.predict_log.request for log in logs
    }
    assert len(records) == len(requests) == 6
    arrays = tf.make_ndarray(requests["score_arrays"].inputs["images"])
    np.testing.assert_array_equal(arrays, images)
    for encoded, image in zip(
        requests["score_images"].inputs["images"].string_val, images, strict=True
    ):
        np.testing.assert_array_equal(tf.io.decode_image(encoded), image)


def test_the_saved_model_has_no_xla(pushed):
    """TensorFlow Serving does not load what XLA has compiled."""
    meta_graph = loader_impl.parse_saved_model(str(pushed.version)).meta_graphs[0]
    functions = meta_graph.graph_def.library.function
    nodes = [*meta_graph.graph_def.node, *(node for f in functions for node in f.node_def)]
    assert len(nodes) > 100
    assert not [node.op for node in nodes if node.op.startswith("Xla")]
    assert not [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]


def test_the_signatures_are_as_documented(pushed):
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    signatures = tf.saved_model.load(str(pushed.version)).signatures
    assert len(signatures) == 6
    for name, signature in signatures.items():
        (line,) = re.findall(rf"^\| `{name}` \| (`.*)", page, re.MULTILINE)
        ((key, spec),) = signature.structured_input_signature[1].items()
        assert line.startswith(f"`{key}`: {spec.dtype.name} {batch_shape(spec)}")
        for key, spec in signature.structured_outputs.items():
            documented = rf"^\| .*`{key}`.* \| {spec.dtype.name} {re.escape(batch_shape(spec))} \|"
            assert re.search(documented, page, re.MULTILINE), key


def batch_shape(spec):
    return {1: "(B,)", 2: "(B, C)", 3: "(B, H, W)", 4: "(B, H, W, K)"}[spec.shape.rank]
