"""How training is spread: over one device, every GPU of this machine, or several machines."""

import math

import numpy as np
import tensorflow as tf

from components.training import cluster
from models.errors import UserError


def choose(name: str) -> tf.distribute.Strategy:
    """The strategy in whose scope a detector is fitted.

    Args:
        name: `auto`: every worker that TF_CONFIG names, each with every GPU it has; without
            TF_CONFIG every GPU of this machine; without a GPU the processor. `one_device`: one
            GPU, or the processor.

    Raises:
        UserError: if there is no such strategy or TF_CONFIG is malformed.
    """
    if name == "one_device":
        return tf.distribute.get_strategy()
    if name != "auto":
        raise UserError(f"strategy must be auto or one_device, not '{name}'.")
    if cluster.task().workers > 1:
        return MultiWorkerStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """TensorFlow's strategy with a `reduce` as Keras 3 calls it.

    Keras 3.15 reduces a batch, which is a structure, and its logs, scalars, along axis 0; this
    class's parent takes one tensor, and an axis that it has.
    """

    def reduce(
        self, reduce_op: tf.distribute.ReduceOp | str, value: object, axis: int | None
    ) -> object:
        """Reduces each tensor of a structure over all replicas."""

        def reduced(tensor):
            rank = self.experimental_local_results(tensor)[0].shape.rank
            return super(MultiWorkerStrategy, self).reduce(
                reduce_op, tensor, axis if rank else None
            )

        return tf.nest.map_structure(reduced, value)

    def from_chief(self, data: bytes) -> bytes:
        """The chief's `data`, in every worker; each must call it, and wait for the others."""
        length = int(self._first_replicas(np.array([len(data)], "int32"))[0])
        # Of whole numbers, for no collective takes bytes.
        size = math.ceil(length / 4) * 4
        whole = data.ljust(size, b"\0")[:size]
        return self._first_replicas(np.frombuffer(whole, "int32")).tobytes()[:length]

    def _first_replicas(self, values):
        """Of int32 arrays (N,), that of replica 0, which is the chief's."""
        given = self.experimental_distribute_values_from_function(
            lambda context: tf.constant(values * (context.replica_id_in_sync_group == 0))
        )
        return self.reduce("SUM", given, axis=None).numpy()
