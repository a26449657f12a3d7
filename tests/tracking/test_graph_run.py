"""Runs of one graph, and runs of stages that were cut off, against a real store."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from damcrack.tracking import journal as journals
from damcrack.tracking.journal import JOURNALS, JournalWriter, waiting_journals
from damcrack.tracking.recorded import Graph, start_run
from damcrack.tracking.sender import Store, send_later

pytest.importorskip("mlflow")

GRAPH = Graph("20261126T120000Z", {"distill.common.alpha": 0.6, "photos.sources": ["sample"]})
KEY = {"damcrack.stage_key": "k" * 64}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def store(tmp_path, monkeypatch, database):
    """A working folder and an experiment of its own, journals kept for later."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    monkeypatch.setenv("DAMCRACK_TRACK", "later")
    return Store(database)


def runs_of(store):
    found = store.client.search_runs([store.experiment_id(Path.cwd().name)])
    return {run.info.run_name: run for run in found}


def history(store, run, key):
    return sorted((m.step, m.value) for m in store.client.get_metric_history(run.info.run_id, key))


def test_runs_of_a_graph_lie_under_one(store):
    """Stages of a graph are children of one run with all of the graph's values, and the evaluation's scores."""
    with start_run("distill", "fixed", {"alpha": 0.6}, {}, GRAPH) as run:
        run.metrics({"val_accuracy": 0.5}, step=1)
    with start_run("evaluate", None, {}, {}, GRAPH) as run:
        run.metrics({"resnet18-fixed/accuracy": 0.9})
    assert send_later().num_sent == 2
    runs = runs_of(store)
    graph = runs["graph 20261126T120000Z"]
    assert graph.data.params == {"distill.common.alpha": "0.6", "photos.sources": '["sample"]'}
    assert graph.data.metrics == {"resnet18-fixed/accuracy": 0.9}
    assert graph.info.status == "FINISHED"
    assert graph.info.end_time == runs["evaluate"].info.end_time
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
    assert parents == {
        "distill@fixed": graph.info.run_id,
        "evaluate": graph.info.run_id,
        graph.info.run_name: None,
    }


def test_graph_fails_with_its_stage(store):
    """A graph's run ends as failed if one of its stages failed, until that one has succeeded."""
    with pytest.raises(ValueError, match="bad"), start_run("tile", None, {}, {}, GRAPH):
        raise ValueError("bad")
    with start_run("pretrain", "resnet18", {}, {}, GRAPH):
        pass
    send_later()
    assert runs_of(store)["graph 20261126T120000Z"].info.status == "FAILED"
    with start_run("tile", None, {}, {}, GRAPH):
        pass
    send_later()
    assert runs_of(store)["graph 20261126T120000Z"].info.status == "FINISHED"


@pytest.mark.parametrize("sent_before", [True, False])
def test_killed_stage_goes_on_in_its_run(store, sent_before):
    """A stage killed after epoch 2, whose checkpoint is of epoch 1, leaves one run with each epoch once."""
    with pytest.raises(KeyboardInterrupt), start_run("pretrain", "resnet18", {"epochs": 3}, KEY) as run:
        run.metrics({"loss": 3.0}, step=1)
        run.metrics({"loss": 2.0}, step=2)
        raise KeyboardInterrupt
    if sent_before:
        send_later()
        assert runs_of(store)["pretrain@resnet18"].info.status == "KILLED"
    with start_run("pretrain", "resnet18", {"epochs": 3}, KEY) as run:
        run.metrics({"loss": 2.0}, step=2)
        run.metrics({"loss": 1.0}, step=3)
    send_later()
    (sent,) = runs_of(store).values()
    assert sent.info.status == "FINISHED"
    assert history(store, sent, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert not [path for path in JOURNALS.rglob("*") if path.is_file()]


def test_stage_killed_without_a_word_goes_on_in_its_run(store, tmp_path):
    """Kill -9 in the middle of a line: the same stage, started again, still leaves one whole run."""
    script = "import time\nfrom damcrack.tracking.recorded import start_run\n"
    script += f"with start_run('tile', None, {{}}, {KEY}) as run:\n    run.metrics({{'loss': 2.0}}, step=1)\n"
    script += "    print('recorded', flush=True)\n    time.sleep(60)\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    stage = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert stage.stdout.readline() == b"recorded\n"
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    (record,) = waiting_journals()
    with record.path.open("a") as file:
        file.write('{"event": "metr')
    with start_run("tile", None, {}, KEY) as run:
        run.metrics({"loss": 1.0}, step=2)
    send_later()
    (sent,) = runs_of(store).values()
    assert (sent.info.status, history(store, sent, "loss")) == ("FINISHED", [(1, 2.0), (2, 1.0)])


@pytest.mark.parametrize("key", [{"damcrack.stage_key": "other"}, {}])
def test_other_inputs_are_another_run(store, key):
    """A stage with other inputs, or called without saying which, does not go on in a killed run."""
    with pytest.raises(KeyboardInterrupt), start_run("tile", None, {}, KEY):
        raise KeyboardInterrupt
    with start_run("tile", None, {}, key):
        pass
    assert send_later().num_sent == 2


def test_time_of_death(store):
    """A stage that died without a word ended when it was last heard of, not when that was noticed."""
    writer = JournalWriter("tile")
    writer.append("start", name="tile", experiment=Path.cwd().name, tags={})
    writer.close()
    (record,) = waiting_journals()
    last_ms = record.events()[-1]["time_ms"]
    time.sleep(0.05)
    send_later()
    (sent,) = runs_of(store).values()
    assert (sent.info.status, sent.info.end_time) == ("KILLED", last_ms)


def test_record_without_a_word_is_dropped(store):
    """A process killed before its first event leaves nothing, and holds up no other run."""
    JournalWriter("tile").close()
    with start_run("tile", None, {}, {}):
        pass
    assert (send_later().num_sent, waiting_journals()) == (1, [])


def test_clock_that_is_set_back(store, monkeypatch):
    """Epochs stay in order, and the run does not end before it began, when the clock jumps back an hour."""
    times = iter([7_200_000, 7_201_000, 3_600_000, 3_601_000, 3_602_000, 3_603_000, 3_604_000])
    with monkeypatch.context() as patched:
        patched.setattr(journals.time, "time_ns", lambda: next(times, 3_605_000) * 1_000_000)
        with start_run("pretrain", None, {}, {}) as run:
            for epoch in (1, 2, 3):
                run.metrics({"loss": 1 / epoch}, step=epoch)
    assert send_later().num_sent == 1
    (sent,) = runs_of(store).values()
    assert sent.info.end_time >= sent.info.start_time == 7_200_000
    points = store.client.get_metric_history(sent.info.run_id, "loss")
    by_time = sorted(points, key=lambda point: (point.timestamp, point.step))
    assert [point.step for point in by_time] == [1, 2, 3]
    assert sent.data.metrics["loss"] == 1 / 3


def test_what_a_run_takes_of_the_machine(store):
    """Each run holds at least one sample of processor and memory, as MLflow's system metrics."""
    with start_run("tile", None, {}, {}):
        pass
    send_later()
    (sent,) = runs_of(store).values()
    assert sent.data.metrics["system/process_memory_peak_megabytes"] > 20
    assert sent.data.metrics["system/process_cpu_cores"] >= 0


def test_experiment_has_its_views(store):
    """An experiment is born with the views, and an older one is given them; a view of somebody else stays."""
    client = store.client
    old = client.create_experiment("old", tags={"mlflow.sharedViewState.mine": "{}"})
    assert store.experiment_id("old") == old
    for name in (Path.cwd().name, "old"):
        tags = client.get_experiment(store.experiment_id(name)).tags
        titles = [
            json.loads(v).get("name") for k, v in tags.items() if k.startswith("mlflow.sharedViewState.")
        ]
        assert {"1 Graphs: what each whole run reached", "2 Distillation: T and alpha"} <= set(titles)
    assert tags["mlflow.sharedViewState.mine"] == "{}"
