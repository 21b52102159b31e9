"""Writes, pushes and loads the SavedModel, and computes scores with it."""
