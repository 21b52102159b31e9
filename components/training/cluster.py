"""The machines that train together, which TF_CONFIG names.

This module does not load TensorFlow.
"""

import json
import os
from dataclasses import dataclass

from models.errors import UserError


@dataclass(frozen=True)
class Task:
    """The part of this process in the cluster."""

    workers: int
    """Number of processes that train, including the chief. If it is 1, there is no cluster."""
    is_chief: bool
    """Whether this process writes models, logs and backups."""


def task() -> Task:
    """Reads from TF_CONFIG which part this process has.

    Without TF_CONFIG, the process is a chief that trains alone.

    Raises:
        UserError: if TF_CONFIG is not what TensorFlow's MultiWorkerMirroredStrategy takes.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return Task(1, True)
    try:
        config = json.loads(text)
        cluster = {kind: list(hosts) for kind, hosts in config.get("cluster", {}).items()}
        if not cluster:
            return Task(1, True)
        kind, index = config["task"]["type"], int(config["task"]["index"])
        known = kind in ("chief", "worker") and 0 <= index < len(cluster[kind])
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known or not cluster.keys() <= {"chief", "worker"}:
        raise UserError(
            'TF_CONFIG must be like {"cluster": {"worker": ["host1:port", "host2:port"]}, "task": '
            f'{{"type": "worker", "index": 0}}}}, not {text}.'
        )
    is_chief = kind == "chief" or ("chief" not in cluster and index == 0)
    return Task(sum(map(len, cluster.values())), is_chief)
