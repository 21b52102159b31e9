import dataclasses

import pytest

from components.evaluation.verdict import Gate, judge, overfitting

GOOD = {"auroc": 0.9, "auroc_low": 0.85, "auroc_high": 0.94, "spread": 0.9}
TOLD_APART = {
    "balanced_accuracy": 0.95,
    "balanced_accuracy_low": 0.9,
    "guessed": 0.2,
    "spread": 0.8,
}
TRAINED = {"epochs": 3, "history": {"loss": [1.0, 0.5, 0.4], "accuracy": [0.2, 0.8, 0.9]}}
GATE = Gate(
    min_auroc=0.6, is_stated=False, max_auroc_drop=0.02, tells_classes_apart=True, compares=True
)
TRIAL = dataclasses.replace(GATE, min_auroc=0.0, is_stated=True)
STATED = dataclasses.replace(GATE, min_auroc=0.8, is_stated=True)


def judged(measured=(), classes=(), training=TRAINED, baseline="there is none", gate=GATE):
    return judge(
        {**GOOD, **dict(measured)}, {**TOLD_APART, **dict(classes)}, training, baseline, gate
    )


def test_fit_for_use_is_said_only_of_what_the_user_required():
    usual, stated = judged(), judged(gate=STATED)
    assert usual.blessed and stated.blessed
    assert "fit for use" not in usual.headline + usual.reason
    assert "No requirement was stated" in usual.reason
    assert "fit for use" in stated.headline
    assert "0.9000 (95 % interval 0.8500 to 0.9400), and you required at least 0.8" in stated.reason


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"training": {"epochs": 0, "history": {}}}, "trained: no epoch was finished"),
        ({"training": {**TRAINED, "history": {"loss": [1.0, 0.999]}}}, "it learned nothing"),
        ({"measured": {"auroc_low": 0.49}, "gate": dataclasses.replace(GATE, min_auroc=0)}, "0.49"),
        ({"measured": {"spread": 0.0}, "gate": TRIAL}, "the detector collapsed"),
        ({"training": {"epochs": 0, "history": {}}, "gate": TRIAL}, "no epoch was finished"),
        ({"measured": {"auroc_low": 0.59}}, "at least 0.6 (the default)"),
        ({"measured": {"auroc_low": 0.79}, "gate": STATED}, "at least 0.8 (your requirement)"),
        ({"measured": {"auroc": float("nan"), "auroc_low": float("nan")}}, "nan"),
        ({"measured": {"spread": 0.0}}, "the same for all: the detector collapsed"),
        ({"classes": {"spread": 1e-5}}, "probabilities differ"),
        ({"classes": {"balanced_accuracy_low": 0.2}}, "above guessing (0.2)"),
        ({"baseline": 0.921}, "0.9000 against 0.9210"),
    ],
)
def test_each_condition_alone_refuses(changed, reason):
    verdict = judged(**changed)
    assert not verdict.blessed
    assert verdict.headline == "Not blessed: do not use it"
    assert reason in verdict.reason


def test_a_stated_requirement_below_guessing_is_a_trial_and_called_so():
    at_chance = {"auroc": 0.4, "auroc_low": 0.2}, {"balanced_accuracy_low": 0.1}
    trial = judged(*at_chance, gate=TRIAL)
    assert trial.blessed
    assert trial.headline == "Blessed as a trial: it need not be better than guessing"
    assert sum("waived by your requirement" in check.outcome for check in trial.checks) == 2
    assert not judged(*at_chance, gate=dataclasses.replace(GATE, min_auroc=0.0)).blessed
    assert not judged(*at_chance, gate=dataclasses.replace(TRIAL, min_auroc=0.5)).blessed


def test_several_failures_are_counted():
    verdict = judged(measured={"spread": 0.0, "auroc_low": 0.4})
    assert verdict.reason.startswith("The scores of the test images differ: ")
    assert verdict.reason.endswith(" 2 other conditions failed, too.")
    assert [check.passed for check in verdict.checks].count(False) == 3


def test_a_detector_that_is_not_taught_the_classes_need_not_tell_them_apart():
    gate = dataclasses.replace(GATE, tells_classes_apart=False)
    unlearned = {"balanced_accuracy_low": 0.1, "spread": 0.0}
    assert judged(classes=unlearned, gate=gate).blessed
    assert not judged(classes=unlearned).blessed


def test_the_comparison_says_why_there_is_none():
    def outcome(**changed):
        verdict = judged(**changed)
        assert verdict.blessed
        return verdict.checks[-1].outcome

    assert outcome() == "there is none"
    assert "on this platform" in outcome(gate=dataclasses.replace(GATE, compares=False))
    assert outcome(baseline=0.919) == "0.9000 against 0.9190"


def test_what_is_not_trained_in_epochs_needs_no_loss():
    assert judged(training={"epochs": 1, "history": {}}).blessed
    fell = {"layer_1_error": [0.2, 0.1], "layer_2_error": [0.3, 0.3]}
    assert judged(training={"epochs": 2, "history": fell}).blessed


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ({"accuracy": [0.5, 0.98], "val_accuracy": [0.5, 0.49]}, True),
        ({"lengths_accuracy": [0.98], "val_lengths_accuracy": [0.7]}, True),
        ({"accuracy": [0.98], "val_accuracy": [0.79]}, False),
        ({"accuracy": [0.5, 0.9], "val_accuracy": [0.1, 0.85]}, False),  # The last epoch counts.
        ({"accuracy": [0.98]}, False),
        ({"loss": [1.0], "val_loss": [9.0]}, False),
        ({}, False),
    ],
)
def test_a_network_that_learned_by_heart_is_told(history, told):
    sentences = overfitting(history, takes_best=False)
    assert len(sentences) == told
    if told:
        assert "its accuracy is 0.98 on them, but 0." in sentences[0]


def test_with_early_stopping_the_best_epoch_counts():
    history = {"accuracy": [0.7, 0.98], "val_accuracy": [0.65, 0.6], "val_loss": [0.4, 0.9]}
    assert overfitting(history, takes_best=True) == []
    assert len(overfitting(history, takes_best=False)) == 1
