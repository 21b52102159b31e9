"""A detector of your own: the distance to the mean image of the nearest class.

In the project it would be one file in models/detectors and one line in the registry there
(docs/extending.md). Without that, it works in Python.
"""

from dataclasses import dataclass

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from models.detectors.pixels import PixelDetector
from models.layers import ClassCentres


@dataclass(kw_only=True)
class MeanImage(PixelDetector):
    """Scores images by minus the squared distance to the mean of the nearest class."""

    name = "mean_image"
    title = "Mean image of each class"
    reference = ""
    scores = ("distance",)
    epochs = 1

    def train(self, images, labels, validation, callbacks):  # noqa: ANN001, ANN201, D102
        inputs, seen = self.scorer_input(images)
        features = keras.Model(inputs, keras.layers.Flatten()(seen))
        centres = ClassCentres(int(labels.max()) + 1)
        distances = centres(features.output)
        centres.place(features.predict(images, verbose=0), labels)
        return keras.Model(
            inputs,
            {
                "distance": -keras.ops.min(distances, axis=-1),
                "class_probabilities": keras.ops.softmax(-distances, axis=-1),
            },
        )


digits = load_digits()
images = (digits.images * 15).astype("uint8")[..., None]
(normal,), (nines,) = np.nonzero(digits.target < 9), np.nonzero(digits.target == 9)
train, calibration, test = normal[::3], normal[1::3], np.r_[normal[2::3], nines]
scorer = MeanImage().fit(images[train], digits.target[train], calibration=images[calibration])
found = scorer.predict(images[test], verbose=0)
print(f"auROC {roc_auc_score(digits.target[test] == 9, found['anomaly_score']):.3f}")
