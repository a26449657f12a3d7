"""Where images come from, as the stages see it; whoever calls a stage hands in the way to open one."""

from collections.abc import Callable
from typing import Protocol


class Source(Protocol):
    """Read-only files under one root."""

    def names(self) -> list[str]:
        """All file names, sorted, relative to the root, with forward slashes."""

    def read(self, name: str) -> bytes:
        """Content of one file.

        Raises:
            FileNotFoundError: there is no such file (any more).
            InputError: the source cannot be reached or may not be read.
        """


OpenSource = Callable[[str], Source]
"""Open a folder or an `s3://bucket/prefix`; raises InputError where there is none."""
