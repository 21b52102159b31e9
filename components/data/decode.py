"""The one decoder of image bytes: for training, in the served model and for scoring.

It is built of TensorFlow operations only, so the exported model holds it. JPEG is decoded by the
accurate integer transform, which gives the same pixels everywhere.
"""

import functools

import tensorflow as tf

from components.data.formats import WHITE

_REFUSED = "The image is not JPEG, PNG, GIF or BMP: convert it, for example to PNG."
_PALETTE = "A BMP image with colours in a palette is not decoded: convert it to PNG."
# The palette of a grey BMP: blue, green, red and nothing of each grey value.
_GREY_PALETTE = b"".join(bytes((value, value, value, 0)) for value in range(256))
_RATIOS = (1, 2, 4, 8)


def decode_image(
    encoded: tf.Tensor, image_size: tuple[int, int], channels: int, white: int = WHITE
) -> tf.Tensor:
    """Decodes an image and resizes it to `image_size`.

    Args:
        encoded: string tensor, shape (): JPEG, PNG, GIF (its first frame) or BMP.
        image_size: height and width of the result.
        channels: 1 or 3.
        white: grey value of 16-bit grey images that becomes 255.

    Returns:
        uint8 tensor, shape (*image_size, channels).

    Raises:
        tf.errors.InvalidArgumentError: if it is no such image.
    """
    # Imported here, because Keras is not needed where examples are only written.
    from models.images import resize_images

    image = decode(encoded, channels, image_size, white)
    resized = tf.ensure_shape(resize_images(image, image_size), (*image_size, channels))
    return tf.cast(resized, tf.uint8)


def decode(
    encoded: tf.Tensor,
    channels: int,
    at_least: tuple[int, int] | None = None,
    white: int = WHITE,
) -> tf.Tensor:
    """Decodes an image.

    EXIF notes of a rotation are not applied.

    Args:
        encoded: string tensor, shape (): JPEG, PNG, GIF (its first frame) or BMP.
        channels: 1 or 3. Colours become grey as in ITU-R 601-2; grey becomes three equal channels.
        at_least: height and width. A JPEG of at least twice this size is decoded at 1/2, 1/4 or
            1/8 of its size, as long as it stays at least twice as large; `None`: at full size.
        white: grey value of 16-bit grey images that becomes 255.

    Returns:
        uint8 tensor, shape (H, W, channels).

    Raises:
        tf.errors.InvalidArgumentError: if it is no such image.
    """
    kinds = (
        (b"\xff\xd8\xff", functools.partial(_decode_jpeg, encoded, at_least)),
        (b"\x89PNG", functools.partial(_decode_png, encoded, white)),
        (b"GIF8", functools.partial(_decode_gif, encoded)),
        (b"BM", functools.partial(_decode_bmp, encoded)),
    )
    is_kind = [tf.strings.substr(encoded, 0, len(start)) == start for start, _ in kinds]
    # Index of the kind that holds; that of the refusal where none does.
    holds = tf.cast(tf.stack([*is_kind, tf.constant(True)]), tf.int32)
    index = tf.argmax(holds, output_type=tf.int32)
    image = tf.switch_case(index, [*(make for _, make in kinds), _refuse])
    image.set_shape((None, None, 3))
    return _to_grey(image) if channels == 1 else image


@functools.cache
def batch_decoder(
    image_size: tuple[int, int], channels: int, white: int = WHITE
) -> tf.types.experimental.PolymorphicFunction:
    """`decode_image` for batches, compiled: string tensor (B,) -> uint8 (B, *image_size, K).

    At most two images are decoded at a time, because a photograph needs hundreds of megabytes.
    """
    return tf.function(
        lambda encoded: tf.map_fn(
            lambda image: decode_image(image, image_size, channels, white),
            encoded,
            fn_output_signature=tf.TensorSpec((*image_size, channels), tf.uint8),
            parallel_iterations=2,
        ),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )


def _decode_jpeg(encoded, at_least):
    def at(ratio):
        return tf.io.decode_jpeg(encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    if at_least is None:
        return at(1)
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
    # Whole numbers of times that the image is larger than needed, in both directions.
    times = tf.minimum(height // (2 * at_least[0]), width // (2 * at_least[1]))
    index = tf.reduce_sum([tf.cast(times >= ratio, tf.int32) for ratio in _RATIOS[1:]])
    return tf.switch_case(index, [functools.partial(at, ratio) for ratio in _RATIOS])


def _decode_png(encoded, white):
    # Bit depth and colour type, which is 0 or 4 for grey.
    depth, colour = tf.unstack(
        tf.io.decode_raw(tf.strings.substr(encoded, 24, 2), tf.uint8, False), 2
    )

    def deep():
        image = tf.cast(tf.io.decode_png(encoded, channels=3, dtype=tf.uint16), tf.float32)
        brightest = tf.where(colour % 4 == 0, float(white), float(WHITE))
        return tf.cast(tf.clip_by_value(tf.round(image * (255 / brightest)), 0, 255), tf.uint8)

    return tf.cond(depth == 16, deep, lambda: tf.io.decode_png(encoded, channels=3))


def _decode_gif(encoded):
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _decode_bmp(encoded):
    image = tf.io.decode_bmp(encoded)
    is_grey = tf.shape(image)[-1] == 1
    palette = tf.strings.substr(encoded, 54, len(_GREY_PALETTE))
    with tf.control_dependencies(
        [tf.debugging.Assert(~is_grey | (palette == _GREY_PALETTE), [_PALETTE])]
    ):
        return tf.cond(is_grey, lambda: tf.repeat(image, 3, axis=-1), lambda: image[..., :3])


def _refuse():
    with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), [_REFUSED])]):
        return tf.zeros((1, 1, 3), tf.uint8)


def _to_grey(image):
    """Grey by whole numbers, exactly as Pillow converts to L; three equal channels stay equal."""
    weights = tf.constant((19595, 38470, 7471))
    total = tf.reduce_sum(tf.cast(image, tf.int32) * weights, -1, keepdims=True)
    return tf.cast((total + 0x8000) // 0x10000, tf.uint8)
