"""Compares detectors, anomalies and seeds on one data set."""
