"""Distribution of training over one device, all GPUs of this machine, or several machines."""

import functools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from components.training import cluster
from models.errors import UserError


def choose(name: str) -> tf.distribute.Strategy:
    """Chooses the strategy in whose scope a detector is fitted.

    Args:
        name: `auto` or `one_device`. `auto` takes all workers that TF_CONFIG names, each with all
            its GPUs. Without TF_CONFIG, it takes all GPUs of this machine, or the processor if
            there is no GPU. `one_device` takes one GPU, or the processor.

    Raises:
        UserError: if there is no such strategy, or if TF_CONFIG is malformed.
    """
    if name == "one_device":
        return tf.distribute.get_strategy()
    if name != "auto":
        raise UserError(f"strategy must be auto or one_device, not '{name}'.")
    if cluster.task().workers > 1:
        return _join_cluster()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


@functools.cache
def _join_cluster() -> "MultiWorkerStrategy":
    """Joins the cluster, which a process can do once, and waits for the other workers."""
    return MultiWorkerStrategy()


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """TensorFlow's strategy with a `reduce` that suits Keras 3.

    Keras 3.15 calls `reduce` with axis 0 for a batch, which is a structure of tensors, and for
    logs, which are scalars. TensorFlow's `reduce` takes only one tensor that has the axis.
    """

    def reduce(self, reduce_op: tf.distribute.ReduceOp | str, value: Any, axis: int | None) -> Any:
        """Reduces each tensor of a structure over all replicas."""

        def reduced(tensor: Any) -> Any:
            rank = self.experimental_local_results(tensor)[0].shape.rank
            return super(MultiWorkerStrategy, self).reduce(
                reduce_op, tensor, axis if rank else None
            )

        return tf.nest.map_structure(reduced, value)

    def from_chief(self, data: bytes) -> bytes:
        """Sends the `data` of the chief to all workers and returns it.

        Every worker must call this method, and waits until all others have called it, too.
        """
        length = int(self._first_replicas(np.array([len(data)], "int32"))[0])
        # The data is sent as int32 numbers, because collective operations do not take bytes.
        size = math.ceil(length / 4) * 4
        whole = data.ljust(size, b"\0")[:size]
        return self._first_replicas(np.frombuffer(whole, "int32")).tobytes()[:length]

    def _first_replicas(self, values: np.ndarray) -> np.ndarray:
        """Returns the `values`, int32 (N,), of replica 0, which belongs to the chief."""
        given = self.experimental_distribute_values_from_function(
            lambda context: tf.constant(values * (context.replica_id_in_sync_group == 0))
        )
        return self.reduce("SUM", given, axis=None).numpy()
