"""Kill the tracking server with SIGKILL while a network is trained and while a model is registered.

    make repro && python -m experiments.mlflow_outage

Starts a server of its own with infra/mlflow/serve.sh; empty databases as its settings say (default: SQLite and
a folder). Trains on the images, and registers the model, that the graph has left in this checkout. Fails if an epoch is
lost or doubled, a version is there twice, or a version's file has another hash than was exported.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from damcrack.files import read_csv, sha256_file
from damcrack.registry.registry import fetch_model
from damcrack.tracking.journal import waiting_journals
from damcrack.tracking.sender import Store, send_later

SERVE = Path(__file__).parents[1] / "infra/mlflow/serve.sh"
EPOCHS = 20
KILLS = ((1, 6, 12), (3, 17), (EPOCHS - 1,))  # the epochs in which the server is killed, a training each
MOMENTS = (  # of a registration: the requests after the first of which the server is killed
    "registered-models/create",
    "mlflow/logged-models",
    "mlflow-artifacts/artifacts",
    "model-versions/create",
    "model-versions/set-tag",
    "registered-models/alias",
)


class Server:
    """The server under attack."""

    def __init__(self, folder: Path, port: int) -> None:
        self.uri, self._log = f"http://127.0.0.1:{port}", folder / "server.log"
        password = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD") or secrets.token_urlsafe(12)
        state = {
            "MLFLOW_PORT": str(port),
            "MLFLOW_SERVER_STATE": str(folder / "state"),
            "MLFLOW_WORKERS": "1",
        }
        self._environment = {**os.environ, **state, "MLFLOW_AUTH_ADMIN_PASSWORD": password}
        os.environ |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": password}
        os.environ |= {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [SERVE], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._answers, 180)

    def kill(self) -> None:
        """Kill it and its workers."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def num_requests(self, word: str) -> int:
        """How many requests with the word in their path it has answered."""
        return sum(" HTTP/1.1" in line and word in line for line in self._log.read_text().splitlines())

    def _answers(self) -> bool:
        try:
            return bool(urllib.request.urlopen(f"{self.uri}/health", timeout=1).status == 200)
        except OSError:
            return False


def wait_for(condition: Callable[[], bool], limit_s: float) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def attack_training(server: Server, checkout: Path, kills: Sequence[int]) -> str:
    """Kill the server under a training after each of so many epochs; compare its record with the model's history.

    The training is the stage's own command, recorded live. After a kill the server is away for some epochs and comes
    back while the training goes on, but for the last time: then what waits is sent once the training is over.
    """
    name, out = f"outage-{secrets.token_hex(4)}", Path("models") / secrets.token_hex(4)
    changes = [f"epochs={EPOCHS}", "batch_size=8", f"seed={secrets.randbelow(1000)}"]
    command = ["damcrack", "pretrain", "--item", "resnet18", "--images", str(checkout / "data/miniimagenet")]
    command += ["--out", str(out), *(word for one in changes for word in ("--set", one))]
    environment = {**os.environ, "DAMCRACK_TRACK": "live", "DAMCRACK_GRAPH_RUN": name}
    before = server.num_requests("runs/log-batch")
    said = Path("training.log")
    with said.open("w") as log:
        training = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def epochs_done() -> int:
        return said.read_text().count("validation accuracy")

    def reached(epoch: int) -> bool:
        return epochs_done() >= epoch or training.poll() is not None

    told = []
    for number, epoch in enumerate(kills, 1):
        wait_for(partial(reached, epoch), 300)
        assert training.poll() is None, f"the training was over before epoch {epoch}"
        told.append(f"{epochs_done()} ({server.num_requests('runs/log-batch') - before} requests answered)")
        server.kill()
        if number < len(kills):
            wait_for(partial(reached, epoch + 2), 300)
            server.start()
    assert training.wait(600) == 0, said.read_text()[-2000:]
    assert waiting_journals(), "nothing was left to send, so the last kill came too late"
    server.start()
    send_later()
    assert not waiting_journals()
    num_points = check_history(server, name, out / "history.csv")
    return f"training of {EPOCHS} epochs, killed in {', '.join(told)}: {num_points} points, none lost, none twice"


def check_history(server: Server, graph_run: str, history: Path) -> int:
    """The server's record of the run is the training's own history, number by number; how many numbers."""
    client = Store(server.uri).client
    experiment = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    made_it = f"tags.`damcrack.graph_run` = '{graph_run}' and tags.`damcrack.stage` = 'pretrain'"
    (run,) = client.search_runs([experiment.experiment_id], made_it)
    assert run.info.status == "FINISHED"
    rows = read_csv(history)
    assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 1))
    num_points = 0
    for name in (name for name in rows[0] if name != "epoch" and rows[0][name]):
        points = client.get_metric_history(run.info.run_id, name)
        expected = [(int(row["epoch"]), float(row[name])) for row in rows]
        assert [(point.step, point.value) for point in points] == expected, name
        num_points += len(points)
    return num_points


def attack_registration(server: Server, checkout: Path, moment: str) -> str:
    """Kill the server once it has answered such a request; register again, and look at what is there."""
    name, export = f"outage-{secrets.token_hex(4)}", checkout / "results/export"
    command = ["damcrack", "register", "--out", "registered", "--set", f"model_name={name}"]
    command += ["--photos", str(checkout / "data/photos"), "--tiles", str(checkout / "data/tiles")]
    command += ["--evaluation", str(checkout / "results/evaluate"), "--export", str(export)]
    before = server.num_requests(moment)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def reached() -> bool:
        return server.num_requests(moment) > before or first.poll() is not None

    wait_for(reached, 180)
    server.kill()
    said = first.communicate()[1].strip().splitlines()
    server.start()
    client = Store(server.uri).client
    left = client.search_model_versions(f"name = '{name}'")
    for version in left:
        check(name, str(version.version), export)
    if first.returncode:
        assert "Traceback" not in "\n".join(said)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    versions = client.search_model_versions(f"name = '{name}'")
    assert [int(version.version) for version in versions] == [1], versions
    check(name, "1", export)
    assert client.get_registered_model(name).aliases.get("champion") == "1"
    how = "it had ended" if not first.returncode else f"it said: {said[-1][:110]}"
    return f"registration, killed after {moment}: {len(left)} version left, then 1, hashes right; {how}"


def check(name: str, version: str, export: Path) -> None:
    """A version's files are those that were exported."""
    folder = fetch_model(f"models:/{name}/{version}")
    told = json.loads((export / "model.json").read_text())
    assert sha256_file(folder / "model.onnx") == told["onnx_sha256"]


def main() -> None:
    """Attack at several moments and say what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=5077)
    options = parser.parse_args()
    checkout = Path.cwd()
    params = Path("params.yaml").read_bytes()
    os.environ["MLFLOW_EXPERIMENT_NAME"] = f"outage-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        Path("params.yaml").write_bytes(params)
        server = Server(Path(name), options.port)
        server.start()
        try:
            for kills in KILLS:
                print(attack_training(server, checkout, kills), flush=True)
            os.environ["DAMCRACK_TRACK"] = "later"
            for moment in MOMENTS:
                print(attack_registration(server, checkout, moment), flush=True)
        finally:
            server.kill()
            os.chdir("/")


if __name__ == "__main__":
    sys.exit(main())
