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
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import damcrack
from damcrack.edges.journal import JournalWriter
from damcrack.edges.progress import Watcher
from damcrack.edges.sender import QUICK_FAILURE, QUIET, experiment_name, send_later, tracking_uri
from damcrack.errors import InputError
from damcrack.stages.run import Item

__all__ = ["TrackedRun", "Watcher", "send_later", "start_run"]

# A sender that is still busy so long after its stage ended is stopped; the journal keeps what it had left.
LAST_WORD_S = 60.0


def start_run(
    stage: str, item: str | None, params: Mapping[str, Any], tags: Mapping[str, str]
) -> "TrackedRun":
    """Open a run named `stage` or `stage@item`; use it in a `with` statement.

    `params` are flattened (dotted keys); `tags` add to, and win over, those that we know ourselves.

    Raises:
        InputError: the journal's folder cannot be written, or DAMCRACK_TRACK is not live or later.
    """
    name = stage if item is None else f"{stage}@{item}"
    watcher = Watcher()
    live = _wants_live(watcher)
    writer = JournalWriter(name)
    known = {"damcrack.stage": stage, "damcrack.item": item or "", "mlflow.source.name": f"damcrack {stage}"}
    writer.append("start", name=name, experiment=experiment_name(), tags={**known, **code_tags(), **tags})
    writer.append("params", values={key: _text(value) for key, value in params.items()})
    return TrackedRun(writer, watcher, SenderProcess(writer, watcher) if live else None)


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
        "damcrack.code_version": damcrack.__version__,
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
            [sys.executable, "-m", "damcrack.edges.sender", str(writer.journal.path)],
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
        self._wake()

    def _wake(self) -> None:
        if self._sender is not None:
            self._sender.wake()

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record named numbers; `step` is the epoch, counted from 1."""
        numbers = {key: float(value) for key, value in values.items()}
        self._writer.append("metrics", values=numbers, step=step or 0)
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
