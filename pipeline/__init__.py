"""What runs: the configurations, the pipelines, their runners and the command line."""
