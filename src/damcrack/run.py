"""What a stage may tell its caller while it runs; the caller decides where it goes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


class Run:
    """One execution of one stage, as seen from inside the stage.

    This one tells nobody: for calls from Python and for tests. `progress.Watcher` shows what is said, and
    `tracking.recorded.TrackedRun` records it too. `scratch` is the folder for what may be thrown away between runs:
    decoded arrays, checkpoints.
    """

    def __init__(self, scratch: Path = Path(".damcrack")) -> None:
        self.scratch = scratch

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record named numbers; `step` is the epoch, counted from 1."""

    def dataset(self, name: str, digest: str, source: str, role: str) -> None:
        """Record an input data set by its content digest; `role` is training, validation or test."""

    def artifact(self, path: Path) -> None:
        """Keep a file (figure, table, page) with the run."""

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
        """Pass `items` through behind a progress bar titled `what`."""
        return items

    def say(self, line: str) -> None:
        """Show one line to whoever watches."""
