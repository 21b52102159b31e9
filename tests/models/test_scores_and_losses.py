import keras
import numpy as np
import pytest

from models import scores
from models.losses import MarginLoss, SumOfSquares
from models.score_names import ANOMALY_SCORE, anomalousness


def test_margin_loss_is_equation_4():
    target = np.array([[0, 1, 0]], "float32")
    lengths = np.array([[0.3, 0.7, 0.05]], "float32")
    expected = (0.9 - 0.7) ** 2 + 0.5 * (0.3 - 0.1) ** 2
    np.testing.assert_allclose(MarginLoss()(target, lengths), expected, rtol=1e-5)


def test_sum_of_squares_sums_pixels_and_averages_images():
    images = np.zeros((2, 2, 2, 1), "float32")
    other = np.array([1.0, 0.5], "float32")[:, None, None, None] * np.ones((2, 2, 2, 1), "float32")
    np.testing.assert_allclose(SumOfSquares()(images, other), (4 + 1) / 2, rtol=1e-6)


@pytest.mark.parametrize("loss", [MarginLoss(0.8, 0.2, 0.3), SumOfSquares()])
def test_losses_round_trip(loss):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert copy.get_config() == loss.get_config()


def test_reconstruction_error_divides_by_the_unsquared_norm():
    image = np.array([[[[0.6], [0.8]]]], "float32")  # norm 1
    other = np.zeros_like(image)
    np.testing.assert_allclose(scores.reconstruction_error(image, other), [-1.0], rtol=1e-5)
    # Twice the image: four times the squared error over twice the norm.
    np.testing.assert_allclose(scores.reconstruction_error(2 * image, other), [-2.0], rtol=1e-5)


def test_reconstruction_error_of_a_black_image_is_finite():
    black = np.zeros((1, 3, 3, 1), "float32")
    assert np.isfinite(scores.reconstruction_error(black, black + 0.1)).all()


def test_prediction_probability_is_the_longest_capsule_without_softmax():
    assert float(scores.prediction_probability(np.array([[0.2, 0.7, 0.1]]))[0]) == pytest.approx(
        0.7
    )


def test_scores_of_logits_are_those_of_the_papers():
    logits = np.array([[1.0, 2.0, -1.0], [800.0, 0.0, 0.0]])
    np.testing.assert_allclose(scores.max_logit(logits), [2, 800])
    # The second would overflow if the exponentials were added up as they are.
    np.testing.assert_allclose(
        scores.energy(logits), [np.log(np.exp(logits[0]).sum()), 800], rtol=1e-6
    )
    softmax = np.exp(2) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(scores.maximum_softmax_probability(logits), [softmax, 1], rtol=1e-6)
    for score in (scores.max_logit, scores.energy, scores.maximum_softmax_probability):
        half = score(keras.ops.cast(logits, "float16"))
        assert keras.backend.standardize_dtype(half.dtype) == "float32"


def test_anomalousness_turns_normality_scores_only():
    values = np.array([0.1, 0.9])
    np.testing.assert_array_equal(anomalousness("pp", values), -values)
    np.testing.assert_array_equal(anomalousness(ANOMALY_SCORE, values), values)
