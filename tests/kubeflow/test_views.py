"""What Kubeflow's pages get of a stage."""

import json
from pathlib import Path

import pytest

from damcrack.kubeflow.views import metrics_of


@pytest.mark.parametrize(
    ("history", "numbers"),
    [
        ("epoch,val_loss,train_loss\n1,0.5,0.4\n2,inf,0.3\n", {"epoch": 2.0, "train_loss": 0.3}),
        ("epoch,val_loss\n3,nan\n", {"epoch": 3.0}),
        ("epoch,phase\n3,warm-up\n", {"epoch": 3.0}),
        ("epoch,val_loss\n3,\n", {"epoch": 3.0}),
        ("epoch,val_loss\n", {}),
        ("epoch\n3,4,5\n", {"epoch": 3.0}),
    ],
)
def test_only_finite_numbers_of_a_training_reach_kubeflow(
    tmp_path: Path, history: str, numbers: dict
) -> None:
    """Kubeflow refuses a whole result with another in it, after the stage's work is done."""
    (tmp_path / "history.csv").write_text(history)
    assert metrics_of([tmp_path]) == numbers


def test_only_finite_numbers_of_an_evaluation_reach_kubeflow(tmp_path: Path) -> None:
    """JSON of Python may hold infinities."""
    values = {"auc": float("inf"), "f1": 0.5, "n": 3, "name": "x", "is_best": True}
    (tmp_path / "metrics.json").write_text(json.dumps({"chosen": "a", "experiments": {"a": values}}))
    (tmp_path / "parity.json").write_text(json.dumps({"gap": float("nan")}))
    assert metrics_of([tmp_path]) == {"f1": 0.5, "n": 3.0}
