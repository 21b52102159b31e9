"""Capsule networks and other anomaly detectors in Keras 3, on any of its backends."""
