"""The configurations, the pipelines, their runners and the command line."""
