"""Files appear atomically (written next to their place, renamed last); errors; ordered work on all cores."""

import csv
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

OUTPUT_MARKER = ".damcrack-output"


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, got, expected and how to fix it."""


class PhotoError(InputError):
    """One image cannot be used; it is set aside with this message as its reason and the rest goes on."""


class NonFiniteLossError(InputError):
    """The loss became NaN or infinite; the message names epoch and step."""


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
            f"cannot write {out}: {error.strerror}; choose another --out or fix the permissions"
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
    """Read a CSV with a header line into one dict per row, all values as text; a byte order mark is skipped."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def sha256_bytes(content: bytes) -> str:
    """Hex SHA-256 of a byte string."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 8  # each may hold one decoded photo, 300 MB at 100 megapixels


def num_workers() -> int:
    """Cores this process may use, at most 8."""
    return min(
        MAX_WORKERS,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work(item)` in the order of `items`; an exception of `work` comes out at its item's place.

    Threads, because decoding, resizing and reading let go of Python's lock. At most two items per worker are
    taken ahead, so memory does not grow with their number.
    """
    workers = num_workers()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
