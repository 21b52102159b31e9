"""Runs a pipeline on this machine; the TFX command is given this file.

    tfx pipeline create --engine local --pipeline_path pipeline/local_runner.py
    tfx run create --pipeline_name capsad_mnist

CAPSAD_PIPELINE chooses another pipeline; the other CAPSAD_* variables (`configs.ENVIRONMENT` and
CAPSAD_DATA_DIR) override its configuration.
"""

import os
import sys
from pathlib import Path

# TFX executes this file by its path, so Python looks for modules in its folder first, where
# pipeline.py would hide the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

# ruff: noqa: E402
from tfx.orchestration.local.local_dag_runner import LocalDagRunner

from models.errors import UserError
from pipeline import configs
from pipeline.pipeline import create_pipeline


def main() -> None:
    """Runs the pipeline that the environment describes."""
    try:
        config = configs.from_environment(os.environ.get("CAPSAD_PIPELINE", "capsad_mnist"))
        LocalDagRunner().run(create_pipeline(config))
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
