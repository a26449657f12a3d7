"""A folder as a store: created whole or not at all, and once, on any file system with hard links."""

import os
import tempfile
import time
from pathlib import Path

from damcrack.files import InputError
from damcrack.storage.source import FolderSource
from damcrack.storage.store import Stored


class FolderStore:
    """Files under a root; nothing outside it is read, whatever a name says."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = FolderSource(root)

    def listed(self, prefix: str = "") -> list[Stored]:
        """All files whose names start with `prefix`."""
        found = []
        for name in self._files.names():
            if name.startswith(prefix) and not name.rsplit("/", 1)[-1].startswith(".new-"):
                try:
                    found.append(self._stored(name))
                except FileNotFoundError:
                    continue
        return found

    def _stored(self, name: str) -> Stored:
        known = (self._root / name).stat()
        return Stored(name, f"{known.st_mtime_ns}-{known.st_size}-{known.st_ino}", known.st_size)

    def read(self, name: str, etag: str | None = None) -> bytes:
        """Content of one file; FileNotFoundError if it is gone or not the one of `etag`."""
        content = self._files.read(name)
        if etag is not None and self._stored(name).etag != etag:
            raise FileNotFoundError(name)
        return content

    def create(self, name: str, content: bytes) -> bool:
        """Write beside, then link into place: the link fails where there is one already."""
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                os.link(file.name, path)
        except FileExistsError:
            return path.read_bytes() == content
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}; mend its permissions") from error
        return True

    def age_s(self, name: str) -> float | None:
        """Seconds since the file was written; None if there is none."""
        try:
            return time.time() - (self._root / name).stat().st_mtime
        except FileNotFoundError:
            return None
