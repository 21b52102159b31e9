"""Frozen networks that were trained on ImageNet, and their feature maps."""

import os
from pathlib import Path
from typing import NamedTuple

import keras

from models.errors import UserError
from models.layers import ImageNetScaling

IMAGENET, NONE = "imagenet", "none"
_LEAST_SIZE = 32


class _Backbone(NamedTuple):
    """A network of `keras.applications`."""

    constructor: str
    scaling: str
    """Mode of `ImageNetScaling`."""
    maps: tuple[str, str]
    """Layers whose outputs are 1/8 and 1/16 as large as the image. The last one is 1/32."""
    file: str
    """Name under which Keras keeps the ImageNet weights."""


_BACKBONES = {
    "mobilenet": _Backbone(
        "MobileNet",
        "signed",
        ("conv_pw_5_relu", "conv_pw_11_relu"),
        "mobilenet_1_0_224_tf_no_top.h5",
    ),
    "efficientnetv2b0": _Backbone(
        "EfficientNetV2B0",
        "bytes",
        ("block4a_expand_activation", "block6a_expand_activation"),
        "efficientnetv2-b0_notop.h5",
    ),
    "resnet50": _Backbone(
        "ResNet50",
        "caffe",
        ("conv3_block4_out", "conv4_block6_out"),
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "convnexttiny": _Backbone(
        "ConvNeXtTiny",
        "bytes",
        ("convnext_tiny_stage_1_block_2_identity", "convnext_tiny_stage_2_block_8_identity"),
        "convnext_tiny_notop.h5",
    ),
}
MAPS = ("stride8", "stride16", "stride32")


def names() -> tuple[str, ...]:
    """Names of all backbones."""
    return tuple(_BACKBONES)


def backbone(
    name: str, weights: str, input_shape: tuple[int, int, int], maps: tuple[str, ...] = MAPS
) -> keras.Model:
    """A frozen network that gives feature maps of images.

    Args:
        name: name of the backbone, see `names`.
        weights: `imagenet`: Keras fetches them once into its own folder, `~/.keras/models`;
            `none`: random weights; otherwise the path of a file of weights without the top.
        input_shape: height, width and channels (H, W, K) of the images, K = 1 or 3.
        maps: names of the feature maps, some of `stride8`, `stride16` and `stride32`: they are 1/8,
            1/16 and 1/32 as large as the image.

    Returns:
        Model from float images in [0, 1], shape (B, H, W, K), to a dict of the feature maps, each
        (B, h, w, D). Its weights are not trainable.

    Raises:
        UserError: if the backbone is unknown, the images are too small, or the weights cannot be
            fetched or are those of another network.

    Reference:
        Howard et al. 2017, MobileNets, arXiv 1704.04861; Tan, Le 2021, EfficientNetV2,
        arXiv 2104.00298; He et al. 2016, Deep residual learning, arXiv 1512.03385; Liu et al. 2022,
        A ConvNet for the 2020s, arXiv 2201.03545.
    """
    if name not in _BACKBONES:
        raise UserError(
            f"Unknown backbone '{name}': there are {', '.join(_BACKBONES)}.", "backbone"
        )
    check_image_size(input_shape[:2])
    spec = _BACKBONES[name]
    height, width, channels = input_shape
    network = _network(name, spec, weights, (height, width, 3))
    network.trainable = False
    found = [*(network.get_layer(layer).output for layer in spec.maps), network.output]
    outputs = {key: tensor for key, tensor in zip(MAPS, found, strict=True) if key in maps}
    features = keras.Model(network.input, outputs, name=name)
    images = keras.Input((height, width, channels), name="images")
    scaled = ImageNetScaling(spec.scaling, name="imagenet_scaling")(images)
    frozen = keras.Model(images, features(scaled), name="backbone")
    frozen.trainable = False
    return frozen


def check_image_size(image_size: tuple[int, int]) -> None:
    """Raises a UserError if images of (height, width) are too small for a backbone."""
    if min(image_size) < _LEAST_SIZE:
        raise UserError(
            f"Images of {image_size[0]}x{image_size[1]} pixels are too small for a backbone, which "
            f"needs at least {_LEAST_SIZE}x{_LEAST_SIZE}: take larger images.",
            "image_size",
        )


def _network(
    name: str, spec: _Backbone, weights: str, input_shape: tuple[int, int, int]
) -> keras.Model:
    constructor = getattr(keras.applications, spec.constructor)

    def build(from_imagenet: bool) -> keras.Model:
        given = IMAGENET if from_imagenet else None
        return constructor(include_top=False, weights=given, input_shape=input_shape)

    if weights == IMAGENET:
        try:
            return build(True)
        except Exception as error:  # Keras raises many kinds, of the network and of HDF5.
            folder = Path(os.environ.get("KERAS_HOME", "~/.keras"), "models").expanduser()
            reason = " ".join(str(error).split())[:150]
            raise UserError(
                f"The ImageNet weights of {name} cannot be fetched ({reason}). Put the file "
                f"{spec.file} of keras.applications into {folder}, or name a file of weights.",
                "weights",
            ) from error
    network = build(False)
    if weights != NONE:
        _load(network, name, weights)
    return network


def _load(network: keras.Model, name: str, path: str) -> None:
    if not os.path.isfile(path):
        raise UserError(f"The file of weights {path} does not exist.", "weights")
    try:
        network.load_weights(path)
    except Exception as error:  # Keras raises many kinds, of the network and of HDF5.
        raise UserError(
            f"{path} does not hold weights of {name} without its top: it is damaged, or it is of "
            "another network. Name another file.",
            "weights",
        ) from error
