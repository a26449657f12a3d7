import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SERVE = Path(__file__).parents[1] / "infra/mlflow/serve.sh"


class Server:
    """A real MLflow server with accounts on loopback, as `make server` starts it, that can be killed and started."""

    def __init__(self, folder, **settings):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.password = secrets.token_urlsafe(12)
        self.log = folder / "server.log"
        self._settings = settings

    @property
    def account(self):
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }

    def start(self):
        own = {
            "MLFLOW_PORT": str(self.port),
            "MLFLOW_SERVER_STATE": str(self.folder / "state"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
            "MLFLOW_WORKERS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        others = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [SERVE], env=others | own | self._settings, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self.healthy, "the server", self.alive)

    def alive(self):
        return self._process.poll() is None

    def healthy(self):
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=1).status == 200
        except OSError:
            return False

    def kill(self):
        if self.alive():
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def wait_for(condition, what, possible=lambda: True, limit_s=120):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert possible(), f"{what} has died"
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.1)
