"""What the stock Evaluator measures, and what blesses a model."""
