"""What a stage may tell its caller while it runs; the caller decides where it goes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Run(Protocol):
    """One execution of one stage, as seen from inside the stage."""

    scratch: Path
    """Folder for what may be thrown away between runs: decoded arrays, checkpoints."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record named numbers; `step` is the epoch, counted from 1."""

    def dataset(self, name: str, digest: str, source: str, role: str) -> None:
        """Record an input data set by its content digest; `role` is training, validation or test."""

    def artifact(self, path: Path) -> None:
        """Keep a file (figure, table, page) with the run."""

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
        """Pass `items` through behind a progress bar titled `what`."""

    def say(self, line: str) -> None:
        """Show one line to whoever watches."""


class SilentRun:
    """Tells nobody: for calls from Python and for tests."""

    def __init__(self, scratch: Path = Path(".damcrack")) -> None:
        self.scratch = scratch

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        pass

    def dataset(self, name: str, digest: str, source: str, role: str) -> None:
        pass

    def artifact(self, path: Path) -> None:
        pass

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
        return items

    def say(self, line: str) -> None:
        pass
