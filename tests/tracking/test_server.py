"""The team's server: who is let in, what users read when it refuses, what its death costs, copies of its databases."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from damcrack.files import InputError
from damcrack.registry.model_names import model_folder
from damcrack.tracking import send
from damcrack.tracking.recorded import start_run
from damcrack.tracking.send import pending_runs, send_later
from damcrack.tracking.store import Store, one_line, sending_errors
from mlflow_server import SERVE, wait_for

pytest.importorskip("mlflow")
from mlflow.server.auth.client import AuthServiceClient

pytestmark = pytest.mark.slow

BACKUP, RESTORE = SERVE.with_name("backup.sh"), SERVE.with_name("restore.sh")


@pytest.fixture
def at_server(mlflow_server, tmp_path, monkeypatch):
    """A working folder of its own, runs sent later, the server's administrator."""
    monkeypatch.chdir(tmp_path)
    settings = mlflow_server.account | {"MLFLOW_EXPERIMENT_NAME": tmp_path.name, "DAMCRACK_TRACK": "later"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # as SETTINGS; other tests leave 0
    return mlflow_server


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"MLFLOW_TRACKING_PASSWORD": "not-this-one"}, "wrong user or password"),
        ({"MLFLOW_TRACKING_TOKEN": "expired"}, "does not accept MLFLOW_TRACKING_TOKEN"),
        ({"MLFLOW_TRACKING_PATH": "/elsewhere"}, "another version than ours"),
    ],
)
def test_refusal_is_one_sentence(at_server, monkeypatch, settings, sentence):
    """A wrong password, an expired token and a server that speaks otherwise are named; the record waits, unmoved."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", at_server.uri + settings.pop("MLFLOW_TRACKING_PATH", ""))
    if "MLFLOW_TRACKING_TOKEN" in settings:
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with start_run("tile", None, {}, {}) as run:
        run.metrics({"tiles": 5})
    content = pending_runs()[0].read_bytes()
    said = str(send_later())
    assert sentence in said
    assert "not-this-one" not in said
    assert pending_runs()[0].read_bytes() == content
    with pytest.raises(InputError, match=sentence):
        model_folder("models:/dam-crack-detector@champion")


def test_artifact_that_cannot_be_kept(at_server, tmp_path):
    """A full or broken artifact store: what was recorded is there, one sentence says so, the file is sent later."""
    page = tmp_path / "page.html"
    page.write_text("page")
    store = at_server.folder / "state/artifacts"
    store.mkdir(parents=True, exist_ok=True)
    aside = store.rename(store.with_name("aside"))
    store.write_text("a file where the folder was: nothing can be written below it")
    with start_run("evaluate", None, {}, {}) as run:
        run.metrics({"a/accuracy": 0.5})
        run.artifact(page)
    assert "its artifact store" in str(send_later())
    store.unlink()
    aside.rename(store)
    assert str(send_later()).endswith(": 1")
    client = Store(at_server.uri).client
    (sent,) = client.search_runs([client.get_experiment_by_name(tmp_path.name).experiment_id])
    assert (sent.info.status, sent.data.metrics["a/accuracy"]) == ("FINISHED", 0.5)
    assert [file.path for file in client.list_artifacts(sent.info.run_id)] == ["page.html"]


def test_accounts_keep_strangers_out(at_server, monkeypatch):
    """Nobody reads without an account; the password of the administrator is not in the server's file of settings."""
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    with pytest.raises(sending_errors()) as refused:
        Store(at_server.uri).client.search_experiments()
    assert "wrong user or password" in one_line(refused.value)
    settings = at_server.folder / "state/basic_auth.ini"
    assert at_server.password not in settings.read_text()
    assert settings.stat().st_mode & 0o077 == 0


def test_account_of_an_engineer(at_server, tmp_path, monkeypatch):
    """Whoever has an account adds runs to an experiment of somebody else, and cannot delete it."""
    owner = Store(at_server.uri)
    experiment_id = owner.experiment_id(tmp_path.name)
    account = {"username": f"engineer-{tmp_path.name}", "password": "a long enough password"}
    AuthServiceClient(at_server.uri).create_user(**account)
    for name, value in account.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name.upper()}", value)
    with start_run("tile", None, {}, {}) as run:
        run.metrics({"tiles": 5})
    assert (send_later().num_sent, pending_runs()) == (1, [])
    with pytest.raises(sending_errors()) as refused:
        Store(at_server.uri).client.delete_experiment(experiment_id)
    assert one_line(refused.value) == "this account may not do that; ask the server's administrator"


def test_server_killed_while_a_training_records(at_server, tmp_path, monkeypatch, capfd):
    """Killed, back two epochs later, killed again, back after the end: each number is there once, nobody waited."""
    monkeypatch.setenv("DAMCRACK_TRACK", "live")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(send, "EVERY_S", 0.2)
    store = Store(at_server.uri)
    experiment_id = store.experiment_id(tmp_path.name)  # alive, and MLflow is imported

    def losses():
        found = store.client.search_runs([experiment_id])
        points = [store.client.get_metric_history(run.info.run_id, "loss") for run in found]
        return [(point.step, point.value) for one in points for point in one]

    (tmp_path / "page.html").write_text("page")
    longest_s = 0.0
    with start_run("pretrain", "resnet18", {"epochs": 6}, {}) as run:
        for epoch in range(1, 7):
            started = time.monotonic()
            run.metrics({"loss": 1 / epoch}, step=epoch)
            longest_s = max(longest_s, time.monotonic() - started)
            if epoch == 4:
                at_server.start()
            if epoch in (2, 5):
                wait_for(lambda: losses() != [], "the first epoch")
                at_server.kill()
        run.artifact(tmp_path / "page.html")
    assert longest_s < 1
    assert "the stage continues" in capfd.readouterr().err
    at_server.start()
    send_later()
    assert pending_runs() == []
    assert losses() == [(epoch, 1 / epoch) for epoch in range(1, 7)]
    (sent,) = store.client.search_runs([experiment_id])
    assert sent.info.status == "FINISHED"
    assert [file.path for file in store.client.list_artifacts(sent.info.run_id)] == ["page.html"]


def call(script, folder, **environment):
    return subprocess.run([script, folder], env=os.environ | environment, capture_output=True, text=True)


def addresses(folder):
    return {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'runs.db'}",
        "MLFLOW_ACCOUNTS_URI": f"sqlite:///{folder / 'accounts.db'}",
    }


def test_restored_server_has_the_same_runs(at_server, tmp_path):
    """A copy made while the server runs fills an empty one with the same runs, metrics and accounts."""
    with start_run("pretrain", "resnet18", {"epochs": 2}, {}) as run:
        run.metrics({"loss": 1.0}, step=1)
        run.metrics({"loss": 0.5}, step=2)
    send_later()
    made = call(BACKUP, tmp_path / "backups", **addresses(at_server.folder / "state"))
    assert made.returncode == 0, made.stderr
    new = tmp_path / "new"
    new.mkdir()
    restored = call(RESTORE, made.stdout.strip(), **addresses(new))
    assert restored.returncode == 0, restored.stderr
    old_client, new_client = (
        Store(uri).client for uri in (at_server.uri, addresses(new)["MLFLOW_BACKEND_STORE_URI"])
    )
    assert everything(new_client) == everything(old_client)
    again = call(RESTORE, made.stdout.strip(), **addresses(new))
    assert (again.returncode, "restore into a new place" in again.stderr) == (1, True)


def everything(client):
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return {
        run.info.run_id: (
            run.info.status,
            run.data.params,
            run.data.tags,
            {
                key: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            },
        )
        for run in runs
    }


@pytest.mark.parametrize("damage", ["runs", "SHA256SUMS"])
def test_damaged_copy_is_refused(at_server, tmp_path, damage):
    """A copy with a changed byte, or without its sums, restores nothing."""
    backup = Path(call(BACKUP, tmp_path, **addresses(at_server.folder / "state")).stdout.strip())
    if damage == "runs":
        with (backup / "runs").open("ab") as file:
            file.write(b"x")
    else:
        (backup / "SHA256SUMS").unlink()
    refused = call(RESTORE, backup, **addresses(tmp_path))
    assert refused.returncode == 1
    assert len(refused.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "runs.db").exists()


def test_old_copies_go(at_server, tmp_path):
    """Only the newest KEEP copies stay."""
    for name in ("20200101T000000Z", "20200102T000000Z"):
        (tmp_path / name).mkdir()
    made = call(BACKUP, tmp_path, KEEP="2", **addresses(at_server.folder / "state"))
    kept = sorted(path.name for path in tmp_path.iterdir() if path.name != "work")
    assert kept == ["20200102T000000Z", Path(made.stdout.strip()).name]
