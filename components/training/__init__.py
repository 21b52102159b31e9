"""Trains a detector within TFX, on one device, several devices or several machines."""
