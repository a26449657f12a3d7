"""Outputs appear whole or not at all: written beside their place, renamed last."""

import csv
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from damcrack.errors import InputError


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Yield an empty sibling of `out`; on success it replaces `out`, on any exception it is removed.

    Raises:
        InputError: the parent of `out` cannot be written.
    """
    temporary = _sibling(out)
    try:
        yield temporary
        _replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sibling(out: Path) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        created = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(
            f"cannot write {out}: {error.strerror}; choose another --out or mend the permissions"
        ) from error
    created.chmod(0o777 & ~_umask())
    return created


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _replace(temporary: Path, out: Path) -> None:
    aside = temporary.with_name(temporary.name + "-old")
    if out.is_dir():
        out.rename(aside)
    temporary.rename(out)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process of this machine through at a time; the others wait. The lock is a file beside `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside `path` and rename it into place."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in the given order; non-finite numbers are refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with Unix line ends; floats keep their shortest exact form."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV with a header line into one dict per row, all values as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sha256_bytes(content: bytes) -> str:
    """Hex SHA-256 of a byte string."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
