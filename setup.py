"""Builds the package; everything about it stands in pyproject.toml.

Beam brings the project to remote workers by this file: `--setup_file=./setup.py`.
"""

from setuptools import setup

setup()
