"""A data set held out as in the pipeline, without TensorFlow."""

import numpy as np

from components import sources
from components.example_gen.hold_out import SPLITS, hold_out, resolve_anomaly


def held_out(
    source_name: str, data_dir: str, anomaly: str, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split -> images, uint8 (N, H, W, K), and labels, (N,): 0 to C - 1, -1 for anomalies."""
    source = sources.find(source_name, data_dir)
    labels = source.labels()
    held = resolve_anomaly([anomaly], source.class_names)
    assignment = hold_out(
        labels,
        source.class_names,
        held,
        seed=seed,
        eval_fraction=0.05,
        calibration_fraction=0.05,
        test_fraction=0.2,
    )
    normal = [index for index in range(len(source.class_names)) if index not in held]
    renumbered = np.full(len(source.class_names), -1)
    renumbered[normal] = np.arange(len(normal))

    splits = {name: ([], []) for name in SPLITS}
    for part, values in labels.items():
        images = np.stack(list(source.read(part, 0, len(values))))
        for index, name in enumerate(SPLITS):
            chosen = assignment[part] == index
            splits[name][0].append(images[chosen])
            splits[name][1].append(renumbered[values[chosen]])
    return {
        name: (np.concatenate(images), np.concatenate(labels))
        for name, (images, labels) in splits.items()
    }
