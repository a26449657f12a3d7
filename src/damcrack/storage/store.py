"""What taking new imagery in needs of a bucket or folder: list, read, and create what is not there yet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Stored:
    """A listed object; `etag` is another one whenever the content is."""

    name: str
    etag: str
    size_bytes: int


class Store(Protocol):
    """Objects under one root, created once and never changed.

    All methods raise InputError where the store cannot be reached or refuses.
    """

    def listed(self, prefix: str = "") -> list[Stored]:
        """All objects whose names, relative to the root, start with `prefix`; sorted by name."""

    def read(self, name: str, etag: str | None = None) -> bytes:
        """Content of one object.

        Raises:
            FileNotFoundError: it is gone, or its content is not the one of `etag` any more.
        """

    def create(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one; tell whether it now holds exactly `content`.

        Of several that try at once with different contents, one is told yes.
        """

    def age_s(self, name: str) -> float | None:
        """Seconds since the object was created, by the store's own clock; None if there is none."""


OpenStore = Callable[[str], Store]
"""Open a folder or an `s3://bucket/prefix`; raises InputError where there is none."""
