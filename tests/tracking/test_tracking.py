"""What a run says is on disk first, arrives whole, and arrives once."""

import errno
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from damcrack.files import InputError
from damcrack.registry.registry import MlflowRegistry
from damcrack.tracking import recorded, send
from damcrack.tracking.recorded import Graph, start_run
from damcrack.tracking.send import PENDING, PendingRun, pending_runs, read_events, send_later
from damcrack.tracking.store import AWAY, RESTORED_FROM, Store, experiment_name
from mlflow_server import wait_for

pytestmark = pytest.mark.slow

pytest.importorskip("mlflow")

NOWHERE = "http://me:secret@127.0.0.1:9"
GRAPH = Graph("20261126T120000Z", {"distill.common.alpha": 0.6, "photos.sources": ["sample"]})


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One SQLite store for the module: creating its tables takes a second."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def store(tmp_path, monkeypatch, database):
    """A working folder of its own, the module's store, an experiment of its own, runs sent later."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    monkeypatch.setenv("DAMCRACK_TRACK", "later")
    return Store(database)


@pytest.fixture(params=["refuses", "hangs"])
def nowhere(request, monkeypatch):
    """Address of a server that refuses connections, or takes them and never answers."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if request.param == "hangs":
            server.listen()
        yield f"http://me:secret@127.0.0.1:{server.getsockname()[1]}"


def all_runs(store):
    """Newest first."""
    return store.client.search_runs([store.experiment_id(Path.cwd().name)])


def runs_of(store):
    return {run.info.run_name: run for run in all_runs(store)}


def history(store, run, key):
    """(step, value) of every recorded value, doubled ones too."""
    found = store.client.get_metric_history(run.info.run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def record(stage="tile", graph=None):
    """A run of two epochs; its file."""
    with start_run(stage, None, {"a": 1}, {}, graph) as run:
        run.metrics({"loss": 0.5, "bad": float("nan")}, step=1)
        run.dataset("tiles", "d" * 64, "data/tiles", "training")
        run.metrics({"loss": 0.25}, step=2)
    return pending_runs()[-1]


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
    sent = send_later()
    assert (sent.num_sent, sent.num_waiting, sent.problems) == (1, 0, [])
    (run,) = runs_of(store).values()
    assert (run.info.run_name, run.info.status) == ("pretrain@resnet18", "FINISHED")
    assert run.data.params == {"fit.epochs": "3", "models": '["a"]', "no": "null"}
    assert history(store, run, "train_loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    (data,) = run.inputs.dataset_inputs
    assert json.loads(data.dataset.profile)["digest"] == "d" * 64
    assert data.tags[0].value == "training"
    expected = {"k": "v", "damcrack.stage": "pretrain", "damcrack.output": "w" * 64}
    assert (expected | {"damcrack.init_sha256": "i"}).items() <= run.data.tags.items()
    folder = store.client.download_artifacts(run.info.run_id, "page.html")
    assert Path(folder).read_text() == "first"
    assert list(PENDING.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(f"no answer from {NOWHERE}"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_status(store, error, status):
    """A run ends as its stage did; the exception goes on to the caller, and is a tag without who logs in."""
    with pytest.raises(type(error)) as caught, start_run("tile", None, {}, {}):
        raise error
    assert caught.value is error
    assert "secret" not in pending_runs()[0].read_text()
    send_later()
    run = runs_of(store)["tile"]
    assert run.info.status == status
    assert ("127.0.0.1:9" in run.data.tags["damcrack.error"]) == (status == "FAILED")


def test_what_is_sent_again_is_not_doubled(store):
    """A run that arrived while the answer was lost is sent again, and the store holds it once."""
    path = record(graph=GRAPH)
    content = path.read_text()
    for _ in range(3):
        path.write_text(content)
        assert send_later().num_sent == 1
    runs = runs_of(store)
    assert set(runs) == {"tile", "graph 20261126T120000Z"} and len(all_runs(store)) == 2
    assert history(store, runs["tile"], "loss") == [(1, 0.5), (2, 0.25)]
    assert len(store.client.get_metric_history(runs["tile"].info.run_id, "bad")) == 1
    assert len(runs["tile"].inputs.dataset_inputs) == 1


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_inputs", "log_artifact", "set_terminated"])
@pytest.mark.parametrize("arrives", [False, True], ids=["lost", "answer-lost"])
def test_failure_at_any_request(store, tmp_path, monkeypatch, call, arrives):
    """Whatever request fails, arrived or not: the run waits, and is whole and single afterwards."""
    from mlflow import MlflowClient

    with start_run("tile", None, {"a": 1}, {}, GRAPH) as run:
        run.metrics({"loss": 0.5}, step=1)
        run.dataset("tiles", "d" * 64, "data/tiles", "training")
        (tmp_path / "page.html").write_text("page")
        run.artifact(tmp_path / "page.html")
    real = getattr(MlflowClient, call)

    def fail(*given, **named):
        if arrives:
            real(*given, **named)
        raise OSError("the server was killed")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, fail)
        assert (send_later().num_sent, len(pending_runs())) == (0, 1)
    assert (send_later().num_sent, pending_runs()) == (1, [])
    assert sorted(run.info.run_name for run in all_runs(store)) == ["graph 20261126T120000Z", "tile"]
    run = runs_of(store)["tile"]
    assert (run.info.status, history(store, run, "loss")) == ("FINISHED", [(1, 0.5)])
    assert (run.data.params, len(run.inputs.dataset_inputs)) == ({"a": "1"}, 1)
    assert [file.path for file in store.client.list_artifacts(run.info.run_id)] == ["page.html"]


def test_two_sends_at_once(store):
    """Two callers that send the same runs send each of them once."""
    names = [f"stage{number}" for number in range(6)]
    for name in names:
        record(name)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(send_later) for _ in range(2)]
    assert sum(sent.result().num_sent for sent in both) == 6
    assert sorted(run.info.run_name for run in all_runs(store)) == names


def test_run_of_a_process_that_died(store):
    """A run without an end and with a torn last line arrives up to the tear, killed when it was last heard of."""
    path = record()
    *lines, end = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + end[:10])
    last_ms = json.loads(lines[-1])["time_ms"]
    sent = send_later()
    assert (sent.num_sent, sent.num_waiting) == (1, 0)
    assert f"line {len(lines) + 1} " in str(sent)
    run = runs_of(store)["tile"]
    assert (run.info.status, run.info.end_time) == ("KILLED", last_ms)
    assert history(store, run, "loss") == [(1, 0.5), (2, 0.25)]


FOREIGN = {
    "no JSON": b"\xff\xfe",
    "no event": b"[1, 2]",
    "unknown event": b'{"event": "other", "time_ms": 1}',
    "no number": b'{"event": "metrics", "time_ms": 1, "values": {"loss": "high"}, "step": 1}',
    "nested for ever": b"[" * 100_000,
    "half a letter": b'{"event": "tags", "time_ms": 1, "values": {"a": "\\ud800"}}',
    "larger than numbers are": b'{"event": "metrics", "time_ms": 1, "values": {"a": 1.0}, "step": 1%030d}'
    % 0,
    "file elsewhere": b'{"event": "artifact", "time_ms": 1, "file": "../../../secret"}',
    "absolute file": b'{"event": "artifact", "time_ms": 1, "file": "/etc/hostname"}',
    "no such file": b'{"event": "artifact", "time_ms": 1, "file": "0/page.html"}',
}


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN)
def test_foreign_line_is_named_and_passed_over(store, tmp_path, line):
    """The rest of the run arrives, nothing from outside its folder; the file is set aside, not sent again."""
    (tmp_path / "secret").write_text("secret")
    path = record()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    sent = send_later()
    assert (sent.num_sent, sent.num_waiting) == (1, 0)
    assert path.stem in str(sent) and "line 3 " in str(sent)
    run = runs_of(store)["tile"]
    assert (run.info.status, history(store, run, "loss")) == ("FINISHED", [(1, 0.5), (2, 0.25)])
    assert store.client.list_artifacts(run.info.run_id) == []
    assert path.with_suffix(".damaged").is_file()
    assert str(send_later()).endswith(": 0")


def test_foreign_files_hold_up_no_run(store):
    """A file of something else and a folder are named and stay; the run arrives."""
    record()
    other = PENDING / "0-other.jsonl"
    other.write_bytes(b'{"a": 1}\n')
    (PENDING / "0-folder.jsonl").mkdir()
    sent = send_later()
    assert (sent.num_sent, sent.num_waiting) == (1, 2)
    for name in ("0-other", "0-folder"):
        assert name in str(sent)
    assert other.read_bytes() == b'{"a": 1}\n'


def test_full_disk_leaves_the_file_as_it_was(store, monkeypatch):
    """An event of which a part was written before the disk was full is not in the file, the next one is."""
    with start_run("tile", None, {}, {}) as run:
        run.metrics({"loss": 0.5}, step=1)
        (path,) = pending_runs()
        before, file = path.read_bytes(), run._file._file

        class Full:
            room = 20

            def write(self, line):
                if not self.room:
                    raise OSError(errno.ENOSPC, "No space left on device")
                written = file.write(line[: self.room])
                self.room = 0
                return written

            def __getattr__(self, name):
                return getattr(file, name)

        with monkeypatch.context() as patch:
            patch.setattr(run._file, "_file", Full())
            with pytest.raises(OSError, match="No space left"):
                run.metrics({"loss": 0.25}, step=2)
        assert path.read_bytes() == before
        run.metrics({"loss": 0.125}, step=3)
    assert str(send_later()).endswith(": 1")
    assert history(store, runs_of(store)["tile"], "loss") == [(1, 0.5), (3, 0.125)]


def test_run_in_progress_is_left_alone(store):
    """`track send` does not touch the file of a stage that still runs."""
    with start_run("tile", None, {}, {}) as run:
        assert (send_later().num_sent, len(pending_runs())) == (0, 1)
        run.metrics({"tiles": 5})
    assert send_later().num_sent == 1


def test_parallel_runs_do_not_mix(store):
    """Two runs open at once keep their own metrics."""
    with start_run("finetune", "a", {}, {}) as one, start_run("finetune", "b", {}, {}) as two:
        for epoch in (1, 2):
            one.metrics({"loss": 1.0}, step=epoch)
            two.metrics({"loss": 2.0}, step=epoch)
    send_later()
    seen = {name: history(store, run, "loss") for name, run in runs_of(store).items()}
    assert seen == {"finetune@a": [(1, 1.0), (2, 1.0)], "finetune@b": [(1, 2.0), (2, 2.0)]}


def test_many_parameters_and_metrics(store):
    """More than fits in one request all arrives."""
    with start_run("tile", None, {f"p{number}": number for number in range(110)}, {}) as run:
        run.metrics({f"m{number}": number for number in range(1010)})
    send_later()
    run = runs_of(store)["tile"]
    assert (len(run.data.params), len(run.data.metrics)) == (110, 1010)


def test_store_that_is_away(store, monkeypatch, nowhere):
    """Runs wait, no password is shown, the store is asked once; then they arrive."""
    record("one")
    record("two")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nowhere)
    sent = send_later()
    assert (sent.num_sent, sent.num_waiting, sent.problems) == (0, 2, [AWAY])
    assert "127.0.0.1" in str(sent) and "secret" not in str(sent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    assert send_later().num_sent == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_INSECURE_TLS", "perhaps"),
        ("MLFLOW_TRACKING_URI", "mssql://me:secret@127.0.0.1/db"),
        ("MLFLOW_TRACKING_URI", "http://[::1"),
        ("MLFLOW_TRACKING_URI", "mlruns"),
        # What is sent to a database in memory would be gone with the process.
        ("MLFLOW_TRACKING_URI", "sqlite:///"),
        ("MLFLOW_TRACKING_URI", "sqlite://"),
        ("MLFLOW_TRACKING_URI", "sqlite:///:memory:"),
    ],
)
def test_a_setting_that_cannot_be_used_is_no_traceback(store, monkeypatch, name, value):
    """The record waits, and the registry says so in one sentence."""
    path = record()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    sent = send_later()
    assert (sent.num_waiting, path.is_file()) == (1, True) and "secret" not in str(sent)
    with pytest.raises(InputError):
        MlflowRegistry().records("dam")


class _AnswersAll(BaseHTTPRequestHandler):
    """What proxies say in the place of MLflow."""

    status, body = 200, b""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [(200, b"", ""), (200, b"{}", ""), (200, b"<html>login", "login page"), (502, b"<html>", "502")],
)
def test_a_proxy_in_the_place_of_mlflow_takes_no_run(store, monkeypatch, status, body, says):
    """Whatever it answers, the record stays on disk; the sentence names what it is."""
    path = record()
    handler = type("_Answers", (_AnswersAll,), {"status": status, "body": body})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    sent = send_later()
    server.shutdown()
    server.server_close()
    assert (sent.num_sent, sent.num_waiting, path.is_file()) == (0, 1, True)
    assert says in str(sent)


def test_an_experiment_that_was_deleted(store):
    """Its runs wait, and arrive once it is restored."""
    record()
    send_later()
    experiment = store.client.get_experiment_by_name(experiment_name())
    store.client.delete_experiment(experiment.experiment_id)
    record("later")
    sent = send_later()
    assert sent.num_waiting == 1 and "mlflow experiments restore" in str(sent)
    store.client.restore_experiment(experiment.experiment_id)
    assert send_later().num_sent == 1


def test_clock_that_is_set_back(store, monkeypatch):
    """Epochs stay in order, and the run does not end before it began, when the clock jumps back an hour."""
    times = iter([7_200_000, 7_201_000, 3_600_000, 3_601_000])
    with monkeypatch.context() as patched:
        patched.setattr(recorded.time, "time_ns", lambda: next(times, 3_605_000) * 1_000_000)
        with start_run("pretrain", None, {}, {}) as run:
            for epoch in (1, 2, 3):
                run.metrics({"loss": 1 / epoch}, step=epoch)
    send_later()
    sent = runs_of(store)["pretrain"]
    assert sent.info.end_time >= sent.info.start_time == 7_200_000
    points = store.client.get_metric_history(sent.info.run_id, "loss")
    by_time = sorted(points, key=lambda point: (point.timestamp, point.step))
    assert [point.step for point in by_time] == [1, 2, 3]


def test_runs_of_a_graph_are_nested(store):
    """A graph's run has the values of params.yaml, and the state of the stage that ended last."""
    record("distill", GRAPH)
    with pytest.raises(ValueError, match="bad"), start_run("evaluate", None, {}, {}, GRAPH):
        raise ValueError("bad")
    assert send_later().num_sent == 2
    runs = runs_of(store)
    graph = runs.pop("graph 20261126T120000Z")
    assert graph.data.params == {"distill.common.alpha": "0.6", "photos.sources": '["sample"]'}
    assert (graph.info.status, graph.info.end_time) == ("FAILED", runs["evaluate"].info.end_time)
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {graph.info.run_id}
    assert {run.data.tags["damcrack.graph_run"] for run in runs.values()} == {GRAPH.name}


def test_a_restored_stage_is_not_taken_for_another_of_equal_bytes(store):
    """Two items that came to the same model are two runs, and each is restored from its own."""
    for item in ("first", "second"):
        with start_run("finetune", item, {}, {}) as run:
            run.finish_outputs("e" * 64)
    send_later()
    makers = runs_of(store)
    with start_run("finetune", "first", {}, {}) as run:
        run.restored("e" * 64)
    send_later()
    assert all_runs(store)[0].data.tags[RESTORED_FROM] == makers["finetune@first"].info.run_id


def test_restored_run_is_not_the_one_that_computed(store):
    """A version belongs to the run that computed its weights, not to a newer one that took them from a cache."""
    for restored in (False, True, True):
        with start_run("finetune", "restored" if restored else "computed", {}, {}) as run:
            if restored:
                run.restored("c" * 64)
            run.finish_outputs("c" * 64)
    send_later()
    runs = runs_of(store)
    computed = runs["finetune@computed"].info.run_id
    assert runs["finetune@restored"].data.tags[RESTORED_FROM] == computed
    assert store.maker_of("c" * 64).info.run_id == computed


def test_database_that_another_program_holds(store, tmp_path, monkeypatch):
    """Runs wait, and a command that needs the registry ends in a sentence; once it is free the runs arrive."""
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=0.5"
    )  # not five seconds
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    record()
    with closing(sqlite3.connect("mlflow.db")) as other:
        other.execute("create table mine (x)")
        other.execute("begin exclusive")
        assert (sent := send_later()).num_waiting == 1 and "holds its database" in sent.problems[0]
        with pytest.raises(InputError, match="holds its database"):
            MlflowRegistry().find("crack", "0", "0")
        other.rollback()
        other.execute("drop table mine")
    assert send_later().num_sent == 1


def test_database_that_is_none(store, tmp_path, monkeypatch):
    """A file of something else stays as it is, and runs wait."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    Path("mlflow.db").write_bytes(b"no database" * 100)
    record()
    assert send_later().num_waiting == 1
    assert Path("mlflow.db").read_bytes() == b"no database" * 100


def test_left_overs_of_killed_processes_are_removed(store):
    """A run that had not begun, and copies for a run that has arrived, go with the next; those of waiting runs stay."""
    waiting = record()
    (waiting.with_suffix("") / "0").mkdir(parents=True)
    begun = PENDING / "20260101T000000-tile-0.jsonl"
    begun.touch()
    (PENDING / "20260101T000000-tile-1/0").mkdir(parents=True)
    (PENDING / "20260101T000000-tile-1/0/x.png").write_bytes(b"x")
    record()
    assert not begun.exists() and not list(PENDING.glob("*-1"))
    assert waiting.exists() and (waiting.with_suffix("") / "0").is_dir()


def test_unknown_mode(store, monkeypatch):
    """A mistyped DAMCRACK_TRACK is refused before anything is written."""
    monkeypatch.setenv("DAMCRACK_TRACK", "never")
    with pytest.raises(InputError, match="DAMCRACK_TRACK"):
        start_run("tile", None, {}, {})
    assert not PENDING.exists()


@pytest.fixture
def live(store, monkeypatch):
    """Runs are sent while they are recorded, at short intervals."""
    monkeypatch.setenv("DAMCRACK_TRACK", "live")
    monkeypatch.setattr(send, "EVERY_S", 0.1)
    return store


def test_live_run_shows_while_it_is_recorded(live):
    """Epochs, and the machine's state if MLflow is asked to sample it, are in the store before the stage ends."""
    with start_run("pretrain", None, {}, {}) as run:
        for epoch in (1, 2):
            run.metrics({"loss": 1 / epoch}, step=epoch)
            wait_for(lambda: "pretrain" in runs_of(live), "the run")
            seen = [(step, 1 / step) for step in range(1, epoch + 1)]
            wait_for(lambda seen=seen: history(live, runs_of(live)["pretrain"], "loss") == seen, "the epoch")
        assert runs_of(live)["pretrain"].info.status == "RUNNING"
    assert runs_of(live)["pretrain"].info.status == "FINISHED"
    assert pending_runs() == []


def test_machine_is_sampled_by_mlflow(live, monkeypatch):
    """MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING adds MLflow's own samples to a live run."""
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with start_run("pretrain", None, {}, {}) as run:
        run.metrics({"loss": 1.0}, step=1)

        def names():
            runs = runs_of(live)
            return set(runs["pretrain"].data.metrics) if runs else set()

        wait_for(lambda: "system/cpu_utilization_percentage" in names(), "a sample")


def test_live_pauses_after_a_failure(live, monkeypatch, capsys, nowhere):
    """A store that is away is asked less and less often, one line says so, and the work is not held up."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nowhere)
    asked = []
    real = PendingRun.send
    monkeypatch.setattr(PendingRun, "send", lambda run, over=False: asked.append(run) or real(run, over))
    with start_run("tile", None, {}, {}) as run:
        wait_for(lambda: len(asked) == 3, "three tries")
        started = time.monotonic()
        for epoch in range(100):
            run.metrics({"loss": 1.0}, step=epoch)
        assert time.monotonic() - started < 1
    said = capsys.readouterr().err
    assert said.count("the stage continues") == 1
    assert "secret" not in said
    assert len(pending_runs()) == 1


def test_store_that_hangs_at_the_end(live, monkeypatch):
    """A stage that is over waits for a hanging store so long and no longer; nobody else sends the run meanwhile."""
    released = threading.Event()
    monkeypatch.setattr(recorded, "LAST_WORD_S", 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(PendingRun, "send", lambda run, over=False: released.wait())
        with start_run("tile", None, {}, {}) as run:
            run.metrics({"loss": 1.0}, step=1)
    (path,) = pending_runs()
    assert [event["event"] for event in read_events(path)[0]] == ["start", "metrics", "FINISHED"]
    assert send_later().num_sent == 0
    released.set()


def test_killed_stage_loses_nothing(live):
    """After kill -9 in the middle of a live training all its epochs are on disk, and arrive as a killed run's."""
    script = "import sys, time\nfrom damcrack.tracking.recorded import start_run\n"
    script += "with start_run('tile', None, {}, {}) as run:\n"
    script += "    for epoch in range(1, 1000):\n"
    script += "        run.metrics({'loss': 1 / epoch}, step=epoch)\n        print(epoch, flush=True)\n"
    script += "        time.sleep(0.02)\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    stage = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    while int(stage.stdout.readline()) < 20:
        pass
    stage.send_signal(signal.SIGKILL)
    last = int((stage.stdout.read().split() or [20])[-1])
    stage.wait()
    assert send_later().num_sent == 1
    run = runs_of(live)["tile"]
    assert run.info.status == "KILLED"
    epochs = [step for step, _ in history(live, run, "loss")]
    assert epochs == list(range(1, len(epochs) + 1)) and len(epochs) >= last


def test_a_user_id_without_a_name_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a user of no list."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert recorded.code_tags()["mlflow.user"] == "uid-54321"
