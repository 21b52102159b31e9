"""The SavedModel and its signatures."""

import keras
import tensorflow as tf

from components.examples import ENCODED, decode_image


def export(scorer: keras.Model, image_size: tuple[int, int], folder: str) -> None:
    """Writes `scorer` as a SavedModel that needs none of our code.

    Its signatures return the scorer's named outputs, and take a batch of any size from 1:

    * `serving_default`: `examples`, string (B,): serialized tf.train.Examples with
      `image/encoded`;
    * `score_images`: `images`, string (B,): encoded PNG, JPEG, GIF or BMP of any sizes;
    * `score_arrays`: `images`, uint8 (B, H, W, K), any H and W.

    Args:
        scorer: what a detector's `fit` returns.
        image_size: height and width to which images are resized.
        folder: where the SavedModel goes.
    """
    channels = scorer.input.shape[-1]

    def score_images(images):
        # Images of different sizes form a batch only once they are resized.
        return scorer(
            tf.map_fn(
                lambda encoded: decode_image(encoded, image_size, channels),
                images,
                fn_output_signature=tf.TensorSpec((*image_size, channels), tf.uint8),
            )
        )

    def score_examples(examples):
        spec = {ENCODED: tf.io.FixedLenFeature([], tf.string)}
        return score_images(tf.io.parse_example(examples, spec)[ENCODED])

    archive = keras.export.ExportArchive()
    archive.track(scorer)
    for name, function, signature in (
        ("serving_default", score_examples, tf.TensorSpec([None], tf.string, "examples")),
        ("score_images", score_images, tf.TensorSpec([None], tf.string, "images")),
        (
            "score_arrays",
            scorer,
            tf.TensorSpec([None, None, None, channels], tf.uint8, "images"),
        ),
    ):
        archive.add_endpoint(name, function, input_signature=[signature])
    archive.write_out(folder, verbose=False)
