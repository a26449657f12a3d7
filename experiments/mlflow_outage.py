"""Kill the tracking server with SIGKILL while a training is recorded and while a model is registered.

    python -m experiments.mlflow_outage EVALUATION EXPORT     # folders that `evaluate` and `export` wrote

Starts a server of its own with infra/mlflow/serve.sh; empty databases as its settings say (default: SQLite and
a folder). Each round kills it after so many requests, starts it again, and repeats what was interrupted. Fails if an
epoch is lost or doubled, a version is there twice, or a version's file has another hash than was exported.
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
from collections.abc import Callable
from pathlib import Path

from damcrack.edges.journal import waiting_journals
from damcrack.edges.registry import fetch_model
from damcrack.edges.sender import Store, send_later
from damcrack.edges.tracking import start_run
from damcrack.outputs import sha256_file

SERVE = Path(__file__).parents[1] / "infra/mlflow/serve.sh"
EPOCHS = 60
REGISTRY = ("registered-models", "model-versions", "logged-models", "mlflow-artifacts")


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

    def num_requests(self, *words: str) -> int:
        """How many requests with one of the words in them it has answered."""
        requests = (line for line in self._log.read_text().splitlines() if " HTTP/1.1" in line)
        return sum(any(word in line for word in words) for line in requests)

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


def attack_training(server: Server, num_epochs: int) -> str:
    """Kill the server when it holds `num_epochs` of a training that goes on; count its epochs in the end."""
    name = f"outage-{secrets.token_hex(4)}"
    with start_run("pretrain", name, {"epochs": EPOCHS}, {}) as run:
        before = server.num_requests("runs/log-batch")
        killed = False
        for epoch in range(1, EPOCHS + 1):
            run.metrics({"train_loss": 1 / epoch, "val_loss": 2 / epoch}, step=epoch)
            if not killed and epoch > EPOCHS // 2:
                wait_for(lambda: server.num_requests("runs/log-batch") >= before + num_epochs, 120)
                server.kill()
                killed = True
            time.sleep(0.01)
    server.start()
    send_later()
    assert not waiting_journals()
    client = Store(server.uri).client
    experiment = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    (sent,) = client.search_runs([experiment.experiment_id], f"tags.`damcrack.item` = '{name}'")
    expected = [(epoch, 1 / epoch) for epoch in range(1, EPOCHS + 1)]
    points = client.get_metric_history(sent.info.run_id, "train_loss")
    assert sorted((point.step, point.value) for point in points) == expected
    assert sent.info.status == "FINISHED"
    return f"training, killed after {num_epochs} requests: {len(points)} of {EPOCHS} epochs, none twice"


def attack_registration(server: Server, evaluation: Path, export: Path, num_requests: int) -> str:
    """Kill the server after so many requests of a registration; register again, and look at what is there."""
    name = f"outage-{secrets.token_hex(4)}"
    command = ["damcrack", "register", "--evaluation", str(evaluation), "--export", str(export)]
    command += ["--out", "registered", "--set", f"model_name={name}", "--set", "min_accuracy=0.0"]
    before = server.num_requests(*REGISTRY)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def reached() -> bool:
        return server.num_requests(*REGISTRY) >= before + num_requests or first.poll() is not None

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
    how = "it had ended" if not first.returncode else f"it said: {said[-1][:110]}"
    return f"registration, killed after {num_requests} requests: {len(left)} version left, then 1, hashes right; {how}"


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
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("export", type=Path)
    parser.add_argument("--port", type=int, default=5077)
    parser.add_argument("--training", type=int, nargs="*", default=[1, 5, 20])
    parser.add_argument("--registration", type=int, nargs="*", default=[1, 5, 12, 19, 20, 24])
    options = parser.parse_args()
    evaluation, export = options.evaluation.resolve(), options.export.resolve()
    params = Path("params.yaml").read_bytes()
    os.environ["MLFLOW_EXPERIMENT_NAME"] = f"outage-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        Path("params.yaml").write_bytes(params)
        server = Server(Path(name), options.port)
        server.start()
        try:
            for number in options.training:
                os.environ["DAMCRACK_TRACK"] = "live"
                print(attack_training(server, number), flush=True)
            os.environ["DAMCRACK_TRACK"] = "later"
            for number in options.registration:
                print(attack_registration(server, evaluation, export, number), flush=True)
        finally:
            server.kill()
            os.chdir("/")


if __name__ == "__main__":
    sys.exit(main())
