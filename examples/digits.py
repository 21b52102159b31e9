"""Finds the nines among handwritten digits, having seen all others."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import capsad

digits = load_digits()
images = (digits.images * 15).astype("uint8").repeat(2, axis=1).repeat(2, axis=2)
known = (digits.target != 9) & (np.arange(len(images)) < 1200)
small = {"kernel_size": 5, "primary_kernel_size": 5, "filters": 64, "primary_types": 8}
detector = capsad.fit(images[known], digits.target[known], epochs=10, learning_rate=0.003, **small)
scores = detector.score(images[~known])
is_nine = digits.target[~known] == 9
print(f"auROC {roc_auc_score(is_nine, scores['anomaly_score']):.3f}")
print(f"flagged: {scores.flagged(0.05)[is_nine].mean():.0%} of the nines")
