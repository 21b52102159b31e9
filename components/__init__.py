"""What TFX needs around the models: data, training, serving, evaluation and report."""
