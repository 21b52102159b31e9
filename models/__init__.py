"""Capsule networks and other anomaly detectors in Keras 3, for any of its backends."""
