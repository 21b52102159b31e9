"""Scores the images of a folder with a model that `capsad run` has pushed.

    python examples/your_folder.py RUN FOLDER

Prints the most anomalous ones, and writes all of them to scores.csv.
"""

import sys

import capsad

run, folder = sys.argv[1:]
scores = capsad.load(run).score(folder)
frame = scores.to_frame(alpha=0.05).sort_values("anomaly_score", ascending=False)
print(frame.head(10).to_string())
frame.to_csv("scores.csv")
