import pytest

from components.evaluation.verdict import overfitting


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
