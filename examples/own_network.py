"""Scores of capsad on a Keras network of your own, which stays as it is."""

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from capsad import calibrate, scores

digits = load_digits()
pixels, labels = (digits.data / 16).astype("float32"), digits.target
is_known = labels < 8  # eights and nines are the anomalies
train, kept = (np.flatnonzero(is_known)[start::2] for start in (0, 1))
calibration, test = kept[::2], np.r_[kept[1::2], np.flatnonzero(~is_known)]

keras.utils.set_random_seed(0)
inputs = keras.Input((64,))
logits = keras.layers.Dense(8)(keras.layers.Dense(64, "relu")(inputs))
network = keras.Model(inputs, logits)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
network.compile(keras.optimizers.Adam(0.003), loss)
network.fit(pixels[train], labels[train], epochs=40, verbose=0)

scorer = keras.Model(
    inputs,
    {"msp": scores.maximum_softmax_probability(logits), "energy": scores.energy(logits)},
)
usual = scorer.predict(pixels[calibration], verbose=0)
for name in ("msp", "energy"):
    found = calibrate(scorer, usual[name], name).predict(pixels[test], verbose=0)
    area = roc_auc_score(~is_known[test], found["anomaly_score"])
    alarms = (found["anomaly_score"][is_known[test]] > 0.95).mean()
    print(f"{name}: auROC {area:.3f}, {alarms:.1%} of known digits flagged at alpha 0.05")
