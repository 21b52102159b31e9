"""Asks a served model for scores, with nothing but Python.

python examples/client.py http://localhost:8501 IMAGE...
"""

import base64
import json
import sys
import urllib.request
from pathlib import Path

server, *files = sys.argv[1:]
images = [{"b64": base64.b64encode(Path(file).read_bytes()).decode()} for file in files]
body = json.dumps({"signature_name": "score_images", "instances": images}).encode()
with urllib.request.urlopen(f"{server}/v1/models/capsad:predict", body, timeout=30) as answer:
    for file, scores in zip(files, json.load(answer)["predictions"], strict=True):
        print("flagged" if scores["flagged"] else "normal ", scores["anomaly_score"], file)
