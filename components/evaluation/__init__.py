"""What the stock Evaluator measures, when it blesses a model, and the report of a run."""
