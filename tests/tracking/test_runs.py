"""The table of recorded runs."""

import re
from pathlib import Path

import pytest

from damcrack.files import InputError
from damcrack.tracking.recorded import Graph, start_run
from damcrack.tracking.runs import show_runs
from damcrack.tracking.sender import send_later

pytest.importorskip("mlflow")


def graph(name, tiles, accuracy):
    """Record what a graph of one distilled classifier leaves."""
    whole = Graph(name, {})
    kind = {"network": "resnet18", "temperature.kind": "dynamic", "alpha": 0.6}
    with start_run("distill", "dynamic", kind, {}, whole) as run:
        run.dataset("miniimagenet", "m" * 64, "sample", "training")
        run.metrics({"val_accuracy": accuracy / 2, "temperature": 4.1}, step=1)
        run.finish_outputs(f"weights of {name}")
    with start_run("finetune", "ours", {"network": "resnet18", "init": "dynamic"}, {}, whole) as run:
        run.finish_outputs(f"detector of {name}", init_sha256=f"weights of {name}")
    with start_run("evaluate", None, {}, {}, whole) as run:
        run.dataset("tiles", tiles * 64, "tiles", "test")
        run.metrics({"ours/accuracy": accuracy, "ours/recall": 0.5, "otsu_threshold/accuracy": 0.25})


def test_best_runs_beside_the_paper(tmp_path, monkeypatch, capsys):
    """Of two graphs on the same tiles the better is shown, with the paper's number; other tiles are a table apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")  # nothing is cut, nothing goes over two lines
    monkeypatch.setenv("DAMCRACK_TRACK", "later")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    with pytest.raises(InputError, match="no finished runs in experiment"):
        show_runs()
    for name, tiles, accuracy in (("worse", "a", 0.5), ("20261126T220000Z", "a", 0.75), ("other", "b", 0.9)):
        graph(name, tiles, accuracy)
    assert send_later().num_sent == 9
    capsys.readouterr()
    show_runs()
    shown = capsys.readouterr().out
    rows = [re.split(r"\s{2,}", line.strip()) for line in shown.splitlines()]
    ours = [row[:6] for row in rows if row[0] == "ours"]
    assert ours == [
        ["ours", "90.00%", "99.85%", "50.00%", "1", "other"],
        ["ours", "75.00%", "99.85%", "50.00%", "2", "20261126T220000Z"],
    ]
    assert [row[:8] for row in rows if row[0] == "resnet18"] == [
        ["resnet18", "dynamic T", "45.00%", "82.52%", "0.6", "4.100", "3", "other"]
    ]
    assert not list(Path(".damcrack/journal").glob("*.jsonl"))
