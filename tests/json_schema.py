"""What --json prints must be what docs/json.schema.json describes."""

import functools
import json
from pathlib import Path

import jsonschema

SCHEMA = Path(__file__).parents[1] / "docs" / "json.schema.json"


@functools.cache
def definitions():
    return json.loads(SCHEMA.read_text())["$defs"]


def valid_json(found):
    """Checks an object, and returns it."""
    command = found["schema"].removeprefix("capsad-").rpartition("-")[0]
    jsonschema.Draft202012Validator(definitions()[command]).validate(found)
    return found
