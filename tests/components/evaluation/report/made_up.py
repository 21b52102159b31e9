"""A report of numbers that are made up."""

import numpy as np

from components.evaluation.report import page
from components.evaluation.verdict import Check, Verdict
from models import metrics

BLESSED = Verdict(True, "Blessed: so & so", "It is good.", [Check("auROC > 0.5", "0.7", True)])


def made_up(names=("<b>ball</b>", "cube & $x_1$", "odd")):
    """Data with two normal classes and, last, an anomaly."""
    generator = np.random.default_rng(0)
    count = 120
    labels = np.r_[np.arange(60) % 2, np.full(60, -1)]
    names = np.array(names)
    anomaly_score = np.clip(generator.random(count) * 0.8 + 0.25 * (labels < 0), 0, 0.999)
    scores = {"pp": 1 - anomaly_score, "anomaly_score": anomaly_score}
    auroc = {"pp": metrics.auroc(anomaly_score, labels < 0)}
    auroc["anomaly_score"] = auroc["pp"]
    return page.ReportData(
        title="capsad_test",
        detector="capsnet",
        source="made up",
        normal_classes=tuple(names[:2]),
        anomaly_classes=(names[2],),
        images=generator.integers(0, 256, (count, 8, 8, 1), dtype="uint8"),
        anomaly_maps=None,
        nearest_images=None,
        pixels=None,
        reconstructions=generator.random((count, 8, 8, 1)),
        labels=labels,
        class_text=names[labels],
        predicted=np.where(labels < 0, 1, labels),
        ids=np.array([f"test-{i:08d}" for i in range(count)]),
        digests=[f"{i:064x}" for i in range(count)],
        scores=scores,
        calibrated_score="pp",
        auroc={"overall": auroc, names[0]: auroc, names[1]: {}},
        measures={
            name: {
                "auroc": auroc[name],
                "auroc_low": 0.61,
                "auroc_high": 0.83,
                "aupr": 0.5,
                "fpr_at_95_tpr": 0.25,
            }
            for name in scores
        },
        accuracy=0.97,
        calibration_size=50,
        split_sizes={"train": {names[0]: 100}, "test": {names[0]: 30, names[2]: 60}},
        history={"loss": [1.0, 0.5], "val_loss": [1.1, 0.6]},
        verdict=BLESSED,
        data_notes=["3 files ignored, because hidden: <x>"],
        config={"data": {"source": "made up"}, "seed": 0},
        versions={"Python": "3"},
        seed=0,
        seconds={"Training": 12.0},
    )
