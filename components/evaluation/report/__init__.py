"""The HTML report of a run, with the figures and tables behind it."""
