"""One MLflow tracking store: where it is, how a run in it is found again, and what its refusals mean."""

import os
import re
from functools import cached_property
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from damcrack.files import InputError, one_at_a_time
from damcrack.messages import without_passwords

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Tags of runs that more than one module writes or looks for.
STAGE = "damcrack.stage"
GRAPH_RUN = "damcrack.graph_run"
OUTPUT = "damcrack.output"
RESTORED_FROM = "damcrack.restored_from"

MAX_DIGEST = 36  # MLflow's limit for the digest of a data set, in characters
STORE_LOCK = Path(".damcrack/mlflow")
# Quiet, and not as patient as MLflow's own seven retries of two minutes each, which are for runs that exist nowhere
# else. One retry is for a connection that the server has closed meanwhile, as it does after it failed to take a file.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
AWAY = "it does not answer"


def experiment_name() -> str:
    """MLFLOW_EXPERIMENT_NAME, else damcrack."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "damcrack"


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else a SQLite file here: an old ./mlruns would flip MLflow's own default."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def set_defaults(**more: str) -> None:
    """Set environment variables that the user has not set; MLflow reads them at import or at each call."""
    for name, value in {**SETTINGS, **more}.items():
        os.environ.setdefault(name, value)


class Store:
    """One MLflow tracking store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @cached_property
    def client(self) -> "MlflowClient":
        """Connect; the first connection to a new SQLite file creates its tables, one process at a time.

        Raises:
            InputError: the address is of a database in memory, where what is sent ends with the process.
        """
        if re.fullmatch(r"sqlite(\+\w+)?:/{2,3}(:memory:.*)?", self.uri):
            raise InputError(
                f"MLFLOW_TRACKING_URI: got {self.uri}, a database in memory; expected sqlite:////FOLDER/mlflow.db"
            )
        set_defaults()
        from mlflow import MlflowClient

        with one_at_a_time(STORE_LOCK):
            return MlflowClient(tracking_uri=self.uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI"))

    def experiment_id(self, name: str) -> str:
        """Find or create an experiment; without a server its artifacts lie in ./mlartifacts."""
        client = self.client
        with one_at_a_time(STORE_LOCK):
            known = client.get_experiment_by_name(name)
            if known is not None:
                return str(known.experiment_id)
            local = not self.uri.startswith(("http:", "https:", "databricks"))
            place = (Path.cwd() / "mlartifacts").as_uri() if local else None
            return str(client.create_experiment(name, artifact_location=place))

    def maker_of(self, output: str, name: str = "") -> "Run | None":
        """The newest finished run, of that name, that computed an output; one that restored it if no other is known."""
        experiments = [one.experiment_id for one in self.client.search_experiments()]
        made = f"tags.`{OUTPUT}` = '{output}' and attributes.status = 'FINISHED'"
        made += f" and attributes.run_name = '{name}'" if name else ""
        found = self.client.search_runs(experiments, made, order_by=["attributes.start_time DESC"])
        return min(found, key=lambda run: RESTORED_FROM in run.data.tags, default=None)


def sending_errors() -> tuple[type[Exception], ...]:
    """What a store that is away, slow or unwilling raises (imports MLflow)."""
    set_defaults()
    from mlflow.exceptions import MlflowException

    # Of a variable of MLflow's with a value that it does not know, and of a database's driver that is not installed.
    wrong_setting = (ValueError, ImportError)
    if find_spec("sqlalchemy") is None:  # needed for databases alone, not for servers
        return (MlflowException, OSError, *wrong_setting)
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError, *wrong_setting)


def one_line(error: Exception) -> str:
    """What a store's refusal means and how to fix it, without passwords, short enough for a terminal."""
    text = str(error).strip()
    lines = text.splitlines() or [type(error).__name__]
    return _meaning(text) or without_passwords(lines[0])[:160]


def _meaning(text: str) -> str:
    """Words for the refusals that users meet; MLflow says little more than a number."""
    number = re.search(r"error code (\d{3})|(\d{3}) (?:Client|Server) Error|too many (\d{3}) error", text)
    code = next(filter(None, number.groups())) if number else ""
    # A server with accounts answers 500 to any token.
    if code in ("401", "500") and os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return "it does not accept MLFLOW_TRACKING_TOKEN: wrong, expired, or it wants a user and password"
    if code == "401":
        return "wrong user or password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if code == "403":
        return "this account may not do that; ask the server's administrator"
    is_foreign = code == "404" and "RESOURCE_DOES_NOT_EXIST" not in text
    if is_foreign or "not in a valid JSON format" in text or "redirects" in text:
        version = installed_version("mlflow")
        return f"no MLflow, one of another version than ours ({version}), or a login page is at this address"
    if "must be in the 'active' state" in text:
        return "its experiment was deleted; `mlflow experiments restore` it, or set MLFLOW_EXPERIMENT_NAME"
    if "filesystem tracking backend" in text:
        return "MLFLOW_TRACKING_URI is a folder, which MLflow takes no more; expected http(s)://HOST or sqlite:////FILE"
    if "database is locked" in text:
        return "another program holds its database; wait until that ends, or run an MLflow server for both"
    # Where a server fails to take a file it often hangs up before it answers.
    if "mlflow-artifacts" in text and "refused" not in text:
        return "it could not store a file: its artifact store is full or away, its own log says which"
    if code == "429" or code.startswith("5"):
        return f"it answers {code}; its own log, or that of the proxy before it, says why"
    away = not code and ("Max retries exceeded" in text or "Connection" in text)
    return AWAY if away else ""
