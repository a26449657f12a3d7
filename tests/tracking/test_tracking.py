import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from damcrack.files import InputError
from damcrack.tracking.journal import Journal, Receipt, locked, waiting_journals
from damcrack.tracking.recorded import start_run
from damcrack.tracking.sender import LiveSender, Sender, Store, send_later, shown_uri, tracking_uri
from mlflow_server import wait_for

pytest.importorskip("mlflow")

NOWHERE = "http://me:secret@127.0.0.1:9"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One SQLite store for the module: creating its tables takes a second."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def store(tmp_path, monkeypatch, database):
    """A working folder of its own, the module's store, an experiment of its own, journals kept for later."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    monkeypatch.setenv("DAMCRACK_TRACK", "later")
    return Store(database)


def runs_of(store, folder):
    return store.client.search_runs([store.experiment_id(folder.name)])


def history(store, run, key):
    """(step, value) of every recorded value, doubled ones too."""
    found = store.client.get_metric_history(run.info.run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def test_run_arrives_whole(store, tmp_path):
    """Parameters, metrics by epoch, data sets, files, tags, name and status of a run are all in the store."""
    page = tmp_path / "page.html"
    page.write_text("first")
    with start_run("pretrain", "resnet18", {"fit.epochs": 3, "models": ["a"], "no": None}, {"k": "v"}) as run:
        for epoch in (1, 2, 3):
            run.metrics({"train_loss": 1 / epoch, "learning_rate": 0.1}, step=epoch)
        run.dataset("tiles", "d" * 64, "data/tiles", "training")
        run.artifact(page)
        page.write_text("changed later")
        run.finish_outputs("w" * 64, init_sha256="i")
    assert str(send_later()).endswith("runs sent to " + tracking_uri() + ": 1")
    (sent,) = runs_of(store, tmp_path)
    assert (sent.info.run_name, sent.info.status) == ("pretrain@resnet18", "FINISHED")
    assert sent.data.params == {"fit.epochs": "3", "models": '["a"]', "no": "null"}
    assert history(store, sent, "train_loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    (data,) = sent.inputs.dataset_inputs
    assert json.loads(data.dataset.profile)["digest"] == "d" * 64
    assert data.tags[0].value == "training"
    expected = {
        "k": "v",
        "damcrack.stage": "pretrain",
        "damcrack.output": "w" * 64,
        "damcrack.init_sha256": "i",
    }
    assert expected.items() <= sent.data.tags.items()
    folder = store.client.download_artifacts(sent.info.run_id, "page.html")
    assert Path(folder).read_text() == "first"
    assert list(Path(".damcrack/journal").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError("bad"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_status(store, tmp_path, error, status):
    """A run ends as its stage did, and the exception goes on to the caller."""
    caught = None
    try:
        with start_run("tile", None, {}, {}):
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt) as raised:
        caught = raised
    assert caught is error
    send_later()
    assert [run.info.status for run in runs_of(store, tmp_path)] == [status]


def test_replay_after_a_crash_doubles_nothing(store, tmp_path):
    """When the acknowledgement is lost, everything is sent again and the store holds it once."""
    with start_run("distill", None, {"a": 1}, {}) as run:
        run.metrics({"loss": 0.5, "bad": float("nan")}, step=1)
        run.dataset("tiles", "d" * 64, "data/tiles", "training")
        run.metrics({"loss": 0.25}, step=2)
    (journal,) = waiting_journals()
    content = journal.path.read_text()
    assert Sender(store).send(journal)
    for num_lost in (0, 3):
        journal.path.write_text(content)
        (known,) = runs_of(store, tmp_path)
        if num_lost:
            journal.acknowledge(Receipt(store.key, known.info.run_id, num_lost))
        assert send_later().num_sent == 1
    (sent,) = runs_of(store, tmp_path)
    assert history(store, sent, "loss") == [(1, 0.5), (2, 0.25)]
    assert len(store.client.get_metric_history(sent.info.run_id, "bad")) == 1
    assert len(sent.inputs.dataset_inputs) == 1


def test_record_of_a_dead_process(store, tmp_path):
    """A journal without an end and with a torn last line arrives up to the tear, as a killed run."""
    with start_run("finetune", None, {}, {}) as run:
        run.metrics({"loss": 1.0}, step=1)
    (journal,) = waiting_journals()
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text("".join(lines[:-1]) + '{"event": "metr')
    send_later()
    (sent,) = runs_of(store, tmp_path)
    assert sent.info.status == "KILLED"
    assert history(store, sent, "loss") == [(1, 1.0)]


def test_run_in_progress_is_left_alone(store, tmp_path):
    """`track send` does not touch the journal of a stage that still runs."""
    with start_run("tile", None, {}, {}) as run:
        assert (send_later().num_sent, len(waiting_journals())) == (0, 1)
        run.metrics({"tiles": 5})
    assert send_later().num_sent == 1


def test_parallel_runs_do_not_mix(store, tmp_path):
    """Two runs open at once keep their own metrics."""
    with start_run("finetune", "a", {}, {}) as one, start_run("finetune", "b", {}, {}) as two:
        for epoch in (1, 2):
            one.metrics({"loss": 1.0}, step=epoch)
            two.metrics({"loss": 2.0}, step=epoch)
    send_later()
    seen = {run.info.run_name: history(store, run, "loss") for run in runs_of(store, tmp_path)}
    assert seen == {"finetune@a": [(1, 1.0), (2, 1.0)], "finetune@b": [(1, 2.0), (2, 2.0)]}


def test_many_parameters(store, tmp_path):
    """More parameters than fit in one request all arrive."""
    with start_run("tile", None, {f"p{number}": number for number in range(230)}, {}):
        pass
    send_later()
    assert len(runs_of(store, tmp_path)[0].data.params) == 230


def test_journal_waits_for_the_store(store, tmp_path, monkeypatch):
    """While the store is away, journals stay and the reason names no password; then they arrive."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with start_run("tile", None, {}, {}):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    sent = send_later()
    assert (sent.num_sent, sent.num_waiting) == (0, 1)
    assert "127.0.0.1:9" in str(sent)
    assert "secret" not in str(sent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    assert send_later().num_sent == 1


def test_live_sender_pauses_after_a_failure(store, monkeypatch, capsys):
    """A store that is away is asked at the first epoch and at the end only, and one line says so."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with start_run("tile", None, {}, {}):
        pass
    (journal,) = waiting_journals()
    asked = []

    class Away(Sender):
        def send(self, journal):
            asked.append(journal)
            return super().send(journal)

    assert not LiveSender(journal, Away(Store(NOWHERE))).follow(["\n"] * 50)
    assert len(asked) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "the work goes on" in line
    assert "secret" not in line


def test_shown_uri():
    """Addresses are shown without who logs in."""
    assert shown_uri("at https://me:p@host:1/x") == "at https://host:1/x"
    assert shown_uri("sqlite:////a/b@c.db") == "sqlite:////a/b@c.db"


def test_unknown_mode(store, monkeypatch):
    """A mistyped DAMCRACK_TRACK is refused with what is allowed."""
    monkeypatch.setenv("DAMCRACK_TRACK", "never")
    with pytest.raises(InputError, match="got 'never'; allowed are live and later"):
        start_run("tile", None, {}, {})


def test_outage_in_the_middle(mlflow_server, tmp_path, monkeypatch, capfd):
    """The server dies between epochs: training goes on, says so once; later each metric is there once."""
    server = mlflow_server
    monkeypatch.chdir(tmp_path)
    for name, value in server.account.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    monkeypatch.delenv("DAMCRACK_TRACK", raising=False)
    Path("page.html").write_text("page")
    with start_run("pretrain", "resnet18", {"epochs": 6}, {}) as run:
        for epoch in (1, 2, 3):
            run.metrics({"loss": 1 / epoch}, step=epoch)
        (journal,) = waiting_journals()
        key = Store(server.uri).key
        # start, parameters and three epochs
        wait_for(lambda: journal.receipt(key).num_sent == 5, "the first epochs")
        server.kill()
        for epoch in (4, 5, 6):
            run.metrics({"loss": 1 / epoch}, step=epoch)
        run.artifact(Path("page.html"))
    assert capfd.readouterr().err.count("the work goes on") == 1
    server.start()
    assert (send_later().num_sent, waiting_journals()) == (1, [])
    store = Store(server.uri)
    (sent,) = runs_of(store, tmp_path)
    assert sent.info.status == "FINISHED"
    assert history(store, sent, "loss") == [(epoch, 1 / epoch) for epoch in range(1, 7)]
    assert [file.path for file in store.client.list_artifacts(sent.info.run_id)] == ["page.html"]


def test_killed_stage_ends_as_killed(store, tmp_path, monkeypatch):
    """The sender outlives a stage that is killed, and records what it had and that it died."""
    script = "import time\nfrom damcrack.tracking.recorded import start_run\n"
    script += "with start_run('tile', None, {}, {}) as run:\n"
    script += (
        "    run.metrics({'loss': 1.0}, step=1)\n    print('recorded', flush=True)\n    time.sleep(60)\n"
    )
    environment = os.environ | {"DAMCRACK_TRACK": "live", "PYTHONPATH": os.pathsep.join(sys.path)}
    stage = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert stage.stdout.readline() == b"recorded\n"
    stage.kill()
    stage.wait()
    wait_for(lambda: not waiting_journals(), "the end of the journal")
    (sent,) = runs_of(store, tmp_path)
    assert (sent.info.status, history(store, sent, "loss")) == ("KILLED", [(1, 1.0)])


def test_lock_dies_with_its_holder(tmp_path):
    """A lock is refused while held and free afterwards."""
    path = Journal(tmp_path / "a.jsonl").path
    with locked(path) as first, locked(path) as second:
        assert first and not second
    with locked(path) as third:
        assert third
