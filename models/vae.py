"""A convolutional variational autoencoder."""

from typing import Any

import keras
from keras import layers, ops

from models.cnn import check_image_size
from models.layers import standardisation
from models.layers.float32_layer import Float32Layer
from models.layers.shapes import Shape


@keras.saving.register_keras_serializable("capsad")
class GaussianSample(Float32Layer):
    """Gives `mean + exp(log_variance / 2) * noise` in training, and the mean otherwise.

    Args:
        seed: seed of the noise.

    Call arguments:
        mean: float tensor, shape (B, Z).
        log_variance: float tensor, shape (B, Z).

    Returns:
        Float tensor, shape (B, Z).

    Reference:
        Kingma, Welling 2014, Auto-encoding variational Bayes, arXiv 1312.6114, section 2.4.
    """

    def __init__(self, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(
        self, mean: keras.KerasTensor, log_variance: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        """Adds noise in training only."""
        if not training:
            return mean
        noise = keras.random.normal(ops.shape(mean), seed=self.generator)
        return mean + ops.exp(log_variance / 2) * noise

    def compute_output_shape(
        self, mean_shape: Shape, log_variance_shape: Shape | None = None
    ) -> Shape:
        """Returns the output shape, (B, Z)."""
        return mean_shape

    def get_config(self) -> dict[str, Any]:
        """Returns every argument of the constructor."""
        return {**super().get_config(), "seed": self.seed}


def vae(
    input_shape: tuple[int, int, int], latent_dim: int, seed: int, standardise: bool = False
) -> keras.Model:
    """Builds the variational autoencoder.

    The encoder has 3x3 convolutions with 32 and 64 channels, max-pooling and 128 dense units. The
    decoder mirrors the encoder.

    Args:
        input_shape: height, width and channels (H, W, K) of the images.
        latent_dim: dimension Z of the latent Gaussian.
        seed: seed of the noise in training.
        standardise: whether the encoder gives each image mean 0 and variance 1 first.

    Returns:
        Model from float images (B, H, W, K) in [0, 1] to `reconstruction` (B, H, W, K) in [0, 1],
        `mean` (B, Z) and `divergence` (B,), the Kullback-Leibler divergence from the standard
        Gaussian in nats.

    Raises:
        UserError: if the images are too small.

    Reference:
        arXiv 1907.06312, section 4; Kingma, Welling 2014, arXiv 1312.6114.
    """
    check_image_size(input_shape[:2])
    height, width, channels = input_shape
    images = keras.Input(input_shape, name="images")
    hidden = standardisation()(images) if standardise else images
    hidden = layers.Conv2D(32, 3, activation="relu")(hidden)
    hidden = layers.MaxPooling2D()(layers.Conv2D(64, 3, activation="relu")(hidden))
    pooled = hidden.shape[1:]
    hidden = layers.Dense(128, activation="relu")(layers.Flatten()(hidden))
    mean = layers.Dense(latent_dim, dtype="float32", name="mean")(hidden)
    log_variance = layers.Dense(latent_dim, dtype="float32", name="log_variance")(hidden)
    divergence = 0.5 * ops.sum(
        ops.exp(log_variance) + ops.square(mean) - 1.0 - log_variance, axis=-1
    )

    latent = GaussianSample(seed, name="latent")(mean, log_variance)
    hidden = layers.Dense(128, activation="relu")(latent)
    hidden = layers.Dense(pooled[0] * pooled[1] * pooled[2], activation="relu")(hidden)
    hidden = layers.UpSampling2D()(layers.Reshape(pooled)(hidden))
    # If the size is odd, the pooling dropped the last row or column: this adds it again.
    hidden = layers.ZeroPadding2D(((0, height % 2), (0, width % 2)))(hidden)
    hidden = layers.Conv2DTranspose(32, 3, activation="relu")(hidden)
    reconstruction = layers.Conv2DTranspose(channels, 3, activation="sigmoid")(hidden)
    outputs = {"reconstruction": reconstruction, "mean": mean, "divergence": divergence}
    return keras.Model(images, outputs, name="vae")
