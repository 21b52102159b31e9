"""The decoder of image bytes."""

import tensorflow as tf


def decode_image(encoded: tf.Tensor, image_size: tuple[int, int], channels: int) -> tf.Tensor:
    """Decodes one PNG, JPEG, GIF or BMP, resized to `image_size`.

    Returns:
        uint8 tensor, shape (*image_size, channels).
    """
    # Imported here, because Keras is not needed where examples are only written.
    from models.images import resize_images

    image = tf.io.decode_image(encoded, channels, expand_animations=False)
    image.set_shape((None, None, channels))
    resized = tf.ensure_shape(resize_images(image, image_size), (*image_size, channels))
    return tf.cast(resized, tf.uint8)
