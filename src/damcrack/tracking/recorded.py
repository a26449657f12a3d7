"""One MLflow run per stage execution: on disk first, sent by a thread beside the stage or later.

Environment:
    MLFLOW_TRACKING_URI     the store; default: mlflow.db here, artifacts in ./mlartifacts
    MLFLOW_EXPERIMENT_NAME  default: damcrack
    DAMCRACK_TRACK          live (default), or later: only write to disk, `damcrack track send` sends
"""

import fcntl
import getpass
import json
import os
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import damcrack
from damcrack.code import code_name
from damcrack.files import InputError, one_at_a_time, write_bytes
from damcrack.messages import without_passwords
from damcrack.progress import Watcher
from damcrack.tracking.send import PENDING, remove_left_over, send_live
from damcrack.tracking.store import GRAPH_RUN, OUTPUT, STAGE, experiment_name

# How long a stage that is over waits for the last of its record to be sent.
LAST_WORD_S = 60.0


@dataclass(frozen=True)
class Graph:
    """The run of the whole graph that a stage's run belongs to: its name, and all values of params.yaml."""

    name: str
    params: Mapping[str, Any]


def start_run(
    stage: str,
    item: str | None,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    graph: Graph | None = None,
) -> "TrackedRun":
    """Open a run named `stage` or `stage@item`, under that of its `graph`; use it in a `with` statement.

    `params` are flattened (dotted keys); `tags` add to, and override, those that we know ourselves.

    Raises:
        InputError: DAMCRACK_TRACK is not live or later.
        OSError: the folder of pending runs cannot be written.
    """
    when = os.environ.get("DAMCRACK_TRACK") or "live"
    if when not in ("live", "later"):
        raise InputError(f"DAMCRACK_TRACK: got {when!r}; allowed are live and later")
    known = {STAGE: stage, "damcrack.item": item or "", "mlflow.source.name": f"damcrack {stage}"}
    file = RunFile(
        name=stage if item is None else f"{stage}@{item}",
        experiment=experiment_name(),
        tags={**known, **code_tags(), **tags},
        params=_texts(params),
        graph=graph.name if graph else "",
        graph_params=_texts(graph.params) if graph else {},
    )
    return TrackedRun(file, when == "live")


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items()}


def _text(value: object) -> str:
    return without_passwords(value if isinstance(value, str) else json.dumps(value, default=str))


def code_tags() -> dict[str, str]:
    """Tags that say which code runs and for whom; the commit only inside a git checkout."""
    tags = {
        "damcrack.code_version": f"{damcrack.__version__}+{code_name()}",
        "mlflow.user": user_name(),
        "mlflow.source.type": "LOCAL",
    }
    commit = git("rev-parse", "HEAD")
    if os.environ.get("DAMCRACK_REVISION"):  # an image holds no checkout, but knows what it was built from
        tags |= {"mlflow.source.git.commit": os.environ["DAMCRACK_REVISION"]}
    elif commit:
        # DVC rewrites its lock file while the graph runs: that is not a change of the code.
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
        tags |= {"mlflow.source.git.commit": commit, "damcrack.git_dirty": "true" if changed else "false"}
    return tags


def user_name() -> str:
    """Who runs this; the user id of a container may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return f"uid-{os.getuid()}"


def caller_tags() -> dict[str, str]:
    """Which run of the graph and which DVC stage this is, where the caller says so."""
    names = {GRAPH_RUN: "DAMCRACK_GRAPH_RUN", "damcrack.dvc_stage": "DVC_STAGE"}
    return {tag: os.environ[name] for tag, name in names.items() if os.environ.get(name)}


def git(*arguments: str) -> str:
    """What a git command prints; empty without git, or outside a checkout."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class RunFile:
    """The file of one run, locked while it is open; each event is in it atomically."""

    def __init__(self, **start: Any) -> None:
        stamp, words = time.strftime("%Y%m%dT%H%M%S", time.gmtime()), re.sub(r"[^\w@=+-]", "_", start["name"])
        self.path = (PENDING / f"{stamp}-{words}-{uuid.uuid4().hex[:8]}.jsonl").absolute()
        self._last_ms = self._num_copies = 0
        with one_at_a_time(PENDING):
            remove_left_over()
            self._file = self.path.open("xb", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self.append("start", **start)

    def append(self, event: str, **fields: Any) -> None:
        """Add one event that happened now; a clock that is set back does not turn the order around.

        Raises:
            OSError: the disk is full; the file is as it was.
        """
        self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
        line = (json.dumps({"event": event, "time_ms": self._last_ms, **fields}) + "\n").encode()
        size = self._file.tell()
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            self._file.truncate(size)
            self._file.seek(size)
            raise

    def copy(self, path: Path) -> str:
        """Copy a file beside ours, as the original may change or go; return the copy's name."""
        name = f"{self._num_copies}/{path.name}"
        target = self.path.with_suffix("") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, path.read_bytes())
        self._num_copies += 1
        return name

    def close(self) -> None:
        self._file.close()


class TrackedRun(Watcher):
    """A `damcrack.run.Run` that MLflow remembers; leaving the `with` block ends it with the right status."""

    def __init__(self, file: RunFile, live: bool) -> None:
        super().__init__()
        self._file = file
        self._over = threading.Event()
        self._sender = threading.Thread(target=send_live, args=(file.path, self._over, self.say), daemon=True)
        if live and find_spec("mlflow") is None:
            self.say(f"mlflow is not installed: runs stay in {PENDING}")
        elif live:
            self._sender.start()

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record named numbers; `step` is the epoch, counted from 1."""
        numbers = {name: float(value) for name, value in values.items()}
        self._file.append("metrics", values=numbers, step=step or 0)

    def dataset(self, name: str, digest: str, source: str, role: str) -> None:
        self._file.append("dataset", name=name, digest=digest, source=source, role=role)

    def artifact(self, path: Path) -> None:
        """Record a copy of a file as it is now."""
        self._file.append("artifact", file=self._file.copy(path))

    def tag(self, values: Mapping[str, object]) -> None:
        self._file.append("tags", values=_texts(values))

    def finish_outputs(self, digest: str, **others: object) -> None:
        """Tag the run with the digest of its main output, by which a model finds the runs that made it.

        `others` become tags `damcrack.NAME`; `init_sha256` and `teacher_sha256` continue the lineage.
        """
        self.tag({OUTPUT: digest, **{f"damcrack.{name}": value for name, value in others.items()}})

    def restored(self, digest: str) -> None:
        """Tag the run with the run that computed the output with this digest."""
        self._file.append("restored", output=digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with suppress(*([] if error is None else [OSError])):  # a full disk does not hide what went wrong
                if error is not None:
                    self.tag({"damcrack.error": without_passwords(f"{type(error).__name__}: {error}")[:500]})
                self._file.append(_status(error))
        finally:
            self._finish()

    def _finish(self) -> None:
        """Let the thread send the rest; the work itself is done."""
        self._over.set()
        if self._sender.ident:
            self._sender.join(LAST_WORD_S)
        if self._sender.is_alive():  # the lock stays and ends with the process: nobody else sends meanwhile
            self.say("MLflow is slow; later, `damcrack track send` sends the rest of this run's record")
        else:
            self._file.close()


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
