"""One MLflow run per stage execution, recorded in a journal first and sent by a process beside it.

Environment:
    MLFLOW_TRACKING_URI     the store; default: mlflow.db here, artifacts in ./mlartifacts
    MLFLOW_EXPERIMENT_NAME  default: damcrack
    DAMCRACK_TRACK          live (default), or later: only keep the journal, `damcrack track send` sends it
"""

import getpass
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import damcrack
from damcrack.files import InputError
from damcrack.progress import Watcher
from damcrack.run import Item
from damcrack.source import source_name
from damcrack.tracking.journal import JournalWriter
from damcrack.tracking.sender import QUICK_FAILURE, QUIET, experiment_name, send_later, tracking_uri
from damcrack.tracking.system import SystemMetrics

__all__ = ["Graph", "TrackedRun", "Watcher", "send_later", "start_run"]

# A sender that is still busy so long after its stage ended is stopped; the journal keeps what it had left.
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

    `params` are flattened (dotted keys); `tags` add to, and win over, those that we know ourselves. A stage that
    was killed and is started again with the same inputs (tag damcrack.stage_key) goes on in its own run.

    Raises:
        InputError: the journal's folder cannot be written, or DAMCRACK_TRACK is not live or later.
    """
    name = stage if item is None else f"{stage}@{item}"
    watcher = Watcher()
    live = _wants_live(watcher)
    writer = JournalWriter(name, tags.get("damcrack.stage_key", ""), experiment_name())
    known = {"damcrack.stage": stage, "damcrack.item": item or "", "mlflow.source.name": f"damcrack {stage}"}
    facts: dict[str, Any] = {"name": name, "experiment": experiment_name()}
    facts |= {"tags": {**known, **code_tags(), **tags}, "graph": _texts(graph)}
    writer.append("resume" if writer.known else "start", **facts)
    writer.append("params", values={key: _text(value) for key, value in params.items()})
    if writer.known:
        watcher.say("going on in the run of the stage that was cut off")
    return TrackedRun(writer, watcher, SenderProcess(writer, watcher) if live else None)


def _texts(graph: Graph | None) -> dict[str, Any] | None:
    if graph is None:
        return None
    return {"name": graph.name, "params": {key: _text(value) for key, value in graph.params.items()}}


def _wants_live(watcher: Watcher) -> bool:
    when = os.environ.get("DAMCRACK_TRACK") or "live"
    if when not in ("live", "later"):
        raise InputError(f"DAMCRACK_TRACK: got {when!r}; allowed are live and later")
    if when == "live" and find_spec("mlflow") is None:
        watcher.say("mlflow is not installed: runs are kept in .damcrack/journal")
        return False
    return when == "live"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def code_tags() -> dict[str, str]:
    """Tags that say which code runs and for whom; the commit only inside a git checkout."""
    tags = {
        "damcrack.code_version": f"{damcrack.__version__}+{source_name()}",
        "mlflow.user": getpass.getuser(),
        "mlflow.source.type": "LOCAL",
    }
    commit = _git("rev-parse", "HEAD")
    if os.environ.get("DAMCRACK_REVISION"):  # an image holds no checkout, but knows what it was built from
        tags |= {"mlflow.source.git.commit": os.environ["DAMCRACK_REVISION"]}
    elif commit:
        # DVC rewrites its lock file while the graph runs: that is not a change of the code.
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
        tags |= {"mlflow.source.git.commit": commit, "damcrack.git_dirty": "true" if changed else "false"}
    return tags


def caller_tags() -> dict[str, str]:
    """Which run of the graph and which DVC stage this is, where the caller says so."""
    names = {"damcrack.graph_run": "DAMCRACK_GRAPH_RUN", "damcrack.dvc_stage": "DVC_STAGE"}
    return {tag: os.environ[name] for tag, name in names.items() if os.environ.get(name)}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class SenderProcess:
    """The process that sends a journal while we write it; it shares the journal's lock."""

    def __init__(self, writer: JournalWriter, watcher: Watcher) -> None:
        self._watcher = watcher
        self._process = subprocess.Popen(
            [sys.executable, "-m", "damcrack.tracking.sender", str(writer.journal.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_sender_environment(),
            pass_fds=[writer.fileno()],
            # Ctrl-C on the stage must not reach it: the last thing it sends is that the run was killed.
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._watcher.say(line.rstrip())

    def wake(self) -> None:
        """Tell it that there is something new."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died; `finish` says so
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def finish(self) -> None:
        """Let it send the rest; never wait longer than LAST_WORD_S."""
        try:
            _close(self._process.stdin)  # tells it that the stage is over
            code = self._process.wait(LAST_WORD_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._listener.join()
        if code not in (0, 1):
            self._watcher.say("sending to MLflow broke off; later, `damcrack track send` sends the record")


def _close(stream: IO[str] | None) -> None:
    assert stream is not None
    with suppress(BrokenPipeError):
        stream.close()


def _sender_environment() -> dict[str, str]:
    source_root = str(Path(damcrack.__file__).parents[1])
    path = os.pathsep.join(filter(None, [source_root, os.environ.get("PYTHONPATH")]))
    given = {**os.environ, "PYTHONPATH": path, "MLFLOW_TRACKING_URI": tracking_uri()}
    return QUIET | QUICK_FAILURE | given


class TrackedRun:
    """A `stages.run.Run` that MLflow remembers; leaving the `with` block ends it with the right status."""

    def __init__(self, writer: JournalWriter, watcher: Watcher, sender: SenderProcess | None) -> None:
        self._writer = writer
        self._watcher = watcher
        self._sender = sender
        self.scratch = watcher.scratch
        self._recorded = {
            (name, event["step"])
            for event in writer.known
            if event["event"] == "metrics"
            for name in event["values"]
        }
        samples = [step for name, step in self._recorded if name.startswith("system/")]
        self._wake()
        self._system = SystemMetrics(self.metrics, max(samples, default=0))

    def _wake(self) -> None:
        if self._sender is not None:
            self._sender.wake()

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record named numbers; `step` is the epoch, counted from 1.

        An epoch that was recorded before the stage was killed, and is trained again, is not recorded twice.
        """
        at = step or 0
        numbers = {key: float(value) for key, value in values.items() if (key, at) not in self._recorded}
        if numbers:
            self._writer.append("metrics", values=numbers, step=at)
            self._wake()

    def dataset(self, name: str, digest: str, source: str, role: str) -> None:
        """Record an input data set by its content digest."""
        self._writer.append("dataset", name=name, digest=digest, source=source, role=role)

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file as it is now."""
        self._writer.append("artifact", kept=self._writer.keep(path))

    def tag(self, values: Mapping[str, object]) -> None:
        """Set tags on the run."""
        self._writer.append("tags", values={key: _text(value) for key, value in values.items()})

    def finish_outputs(self, digest: str, **others: object) -> None:
        """Tag the run with the digest of its main output, by which a model finds the runs that made it.

        `others` become tags `damcrack.NAME`; `init_sha256` and `teacher_sha256` continue the lineage.
        """
        self.tag({f"damcrack.{key}": value for key, value in {"output": digest, **others}.items()})

    def restored(self, digest: str) -> None:
        """Tag the run `restored_from`: the run that made the output with this digest."""
        self._writer.append("restored", output=digest)

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
        """Pass `items` through behind a progress bar titled `what`."""
        return self._watcher.track(items, what, total)

    def say(self, line: str) -> None:
        """Show one line to whoever watches."""
        self._watcher.say(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._system.stop()
        if error is not None:
            self.tag({"damcrack.error": f"{type(error).__name__}: {error}"[:500]})
        self._writer.append("end", status=_status(error))
        self._writer.close()
        if self._sender is not None:
            self._sender.finish()


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
