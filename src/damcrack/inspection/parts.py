"""A survey that several machines inspect: each looks at a part of the photos, and one writes tables and page.

A part is like a call that was killed: its photos are stored, tables and page are not there yet. Whoever then inspects
everything, over the photos' folders of all parts, looks at no photo a second time.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from damcrack.files import InputError, sha256_bytes


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1 on) of `of`. A file's name alone says which it is in, so that new files move no other."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> "Part":
        """Read NUMBER/OF.

        Raises:
            InputError: it is something else.
        """
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text, re.ASCII)
        part = cls(*map(int, found.groups())) if found else cls(1, 0)
        if part.number > part.of:
            raise InputError(f"--part {text}: expected NUMBER/OF, from 1/4 to 4/4 for four parts")
        return part

    def holds(self, name: str) -> bool:
        """Whether a listed file of that name belongs to it."""
        return int(sha256_bytes(name.encode())[:12], 16) % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class SharedPhotos(Protocol):
    """Where the machines store the folders of the photos: see cracks.findings for their names."""

    def bring(self, folder: Path, whole: bool = False) -> None:
        """Fill a photo's folder with what another machine found; with the picture of full size only if `whole`."""

    def send(self, folder: Path) -> None:
        """Store a photo's folder."""
