"""Trains a detector within TFX, on one device, on several, or on several machines."""
