"""`damcrack ui`: MLflow's own pages, on a free port, with the address printed once they answer."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from damcrack.files import InputError
from damcrack.tracking.recorded import start_run
from mlflow_server import wait_for

pytest.importorskip("mlflow")
from damcrack.tracking.ui import HOST, PORT, VIEW, free_port, serve

pytestmark = pytest.mark.slow

DAMCRACK = (sys.executable, "-c", "from damcrack.cli.main import main; main()")


@pytest.fixture
def one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space in its name, in which one run waits on disk."""
    folder = tmp_path / "a b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DAMCRACK_TRACK", "later")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DAMCRACK_GRAPH_RUN"):
        monkeypatch.delenv(name, raising=False)
    with start_run("pretrain", "resnet18", {"epochs": 1}, {}) as run:
        run.metrics({"val_accuracy": 0.75}, step=1)
    return folder


def get(address: str) -> dict:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


def test_pages_are_served_and_end_with_the_command(one_run: Path) -> None:
    """The address answers when it is printed and shows our runs; the server ends with the command, with status 0."""
    written = one_run / "written"
    with written.open("w") as file, socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # the usual port is taken, by us or by another
            taken.bind((HOST, PORT))
            taken.listen()
        started = subprocess.Popen([*DAMCRACK, "ui"], stdout=file, stderr=file)
        wait_for(lambda: "http://" in written.read_text(), "the address", lambda: started.poll() is None, 400)
    address = re.search(rf"http://{re.escape(HOST)}:(\d+)/#/experiments/(\d+)/runs\S*", written.read_text())
    assert address and address[1] != str(PORT), written.read_text()
    api = f"http://{HOST}:{address[1]}/api/2.0/mlflow"
    experiment = get(f"{api}/experiments/get?experiment_id={address[2]}")["experiment"]
    assert experiment["name"] == "damcrack"
    view = json.loads(
        {tag["key"]: tag["value"] for tag in experiment["tags"]}[f"mlflow.sharedViewState.{VIEW}"]
    )
    assert "metrics.`val_accuracy`" in view["selectedColumns"]
    environment = Path(f"/proc/{server_of(started)}/environ").read_text()
    assert "MLFLOW_DISABLE_TELEMETRY=true" in environment and "DO_NOT_TRACK=true" in environment
    started.send_signal(signal.SIGTERM)  # as Ctrl-C, which a background process may be deaf to
    assert started.wait(120) == 0
    with pytest.raises(OSError):
        get(f"{api}/experiments/get?experiment_id={address[2]}")


def server_of(command: subprocess.Popen[bytes]) -> int:
    """The process that the command started."""
    return int(Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()[0])


def test_a_port_that_is_taken_is_one_sentence() -> None:
    """By name it is refused; without one another is found."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=str(port)):
            free_port(port)
    assert free_port(None) > 0


def test_a_server_that_dies_says_why(one_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of its log, and where the log is."""
    monkeypatch.setattr("damcrack.tracking.ui._prepared_page", lambda store: "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    monkeypatch.setattr("damcrack.tracking.ui.send_later", lambda: "")
    with pytest.raises(InputError, match=r"ui\.log"):
        serve(None, lambda line: None)


def test_a_store_that_mlflow_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of runs, as MLflow took once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    with pytest.raises(InputError):
        serve(None, lambda line: None)


def test_a_team_server_is_named_not_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where runs go to a server, its address is all that is needed; passwords in it are not shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@team.invalid:5000")
    said: list[str] = []
    serve(None, said.append)
    assert "http://team.invalid:5000" in said[-1] and "secret" not in "".join(said)
