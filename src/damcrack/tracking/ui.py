"""MLflow's own pages on the recorded runs, on loopback and without accounts, for whoever sits at this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from damcrack.files import InputError
from damcrack.messages import without_passwords
from damcrack.tracking.send import send_later
from damcrack.tracking.store import (
    STAGE,
    Store,
    experiment_name,
    one_line,
    sending_errors,
    set_defaults,
    tracking_uri,
)

HOST, PORT = "127.0.0.1", 5000
LOG = Path(".damcrack/ui.log")
STARTS_WITHIN_S = 400.0  # importing MLflow on busy cores
VIEW = "damcrack"  # key of the view that the address names
COLUMNS = (
    "attributes.`Duration`",
    "params.`network`",
    "params.`epochs`",
    "metrics.`val_accuracy`",
    "metrics.`val_pixel_f1`",
    "metrics.`train_loss`",
)


def serve(port: int | None, say: Callable[[str], None]) -> None:
    """Send the runs that wait, then serve the pages until interrupted; says their address once they answer.

    Raises:
        InputError: the port is taken, or the server does not start.
    """
    # Nothing here runs jobs on the server; leaving them on costs 2 GB of memory.
    set_defaults(DO_NOT_TRACK="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    say(str(send_later()))
    uri = tracking_uri()
    if uri.startswith("http"):
        say(f"the runs are on the server of MLFLOW_TRACKING_URI: open {without_passwords(uri)}")
        return
    try:
        page = _prepared_page(Store(uri))
    except InputError:
        raise
    except sending_errors() as error:
        raise InputError(f"MLflow at {without_passwords(uri)} cannot be used: {one_line(error)}") from error
    port = free_port(port)
    LOG.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1",
               "--artifacts-destination", "mlartifacts", "--host", HOST, "--port", str(port)]  # fmt: skip
    with LOG.open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_up(server, port)
        say(f"http://{HOST}:{port}/#/experiments/{page}\nCtrl-C ends it")
        server.wait()
    except KeyboardInterrupt:
        say("")
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def free_port(wanted: int | None) -> int:
    """`wanted`, or by default 5000 or any free port.

    Raises:
        InputError: `wanted` is taken.
    """
    for port in (wanted,) if wanted else (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
            except OSError:
                continue
    raise InputError(f"--port {wanted} is taken; choose another, or leave it out to get a free one")


def _prepared_page(store: Store) -> str:
    """The page of our experiment: one row a stage, newest first, with the columns that matter."""
    experiment_id = store.experiment_id(experiment_name())
    view = {
        "searchFilter": f"tags.`{STAGE}` != 'graph'",
        "orderByKey": "attributes.end_time",  # by start MLflow folds the stages away below their graph
        "orderByAsc": False,
        "selectedColumns": COLUMNS,
    }
    store.client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{VIEW}", json.dumps(view))
    store.client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")
    return f"{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


def _wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    lines = LOG.read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "nothing")
    raise InputError(f"MLflow's server did not start; the last line of {LOG}: {last}")
