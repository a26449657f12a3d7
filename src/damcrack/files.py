"""Files appear atomically (written next to their place, renamed last); errors; ordered work on all cores."""

import csv
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, TypeVar

from filelock import FileLock, Timeout


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, got, expected and how to fix it."""


class PhotoError(InputError):
    """One image cannot be used; it is set aside with this message as its reason and the rest goes on."""


class NonFiniteLossError(InputError):
    """The loss became NaN or infinite; the message names epoch and step."""


OUTPUT_MARKER = (
    ".damcrack-output"  # in each folder that we write: the kind of output, and the names of our files
)
_TRACES = frozenset({".damcrack-lock", f".{OUTPUT_MARKER}.part"})  # of calls that run or were killed
_TEMPORARY = "damcrack-tmp-"
# What viewers and file systems put everywhere: a folder that holds nothing else is empty.
_NO_CONTENT = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "lost+found"}) | _TRACES


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The marker of an output of ours; None where there is none, or one that names files outside the folder."""
    try:
        marker = json.loads((folder / OUTPUT_MARKER).read_text(encoding="utf-8"))
        paths = [PurePath(name) for name in marker["files"]]
        inside = not any(path.is_absolute() or ".." in path.parts for path in paths)
        return dict(marker) if inside and isinstance(marker["kind"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_marker(folder: Path, kind: str, files: Iterable[str], **more: Any) -> None:
    """Mark `folder` as ours; equal outputs have equal markers, whatever the machine."""
    write_json(folder / OUTPUT_MARKER, {"kind": kind, "files": sorted(files), **more})


def check_output(out: Path, kind: str) -> Path:
    """The folder that --out means, links followed: new, empty, or an earlier output of the same kind.

    Raises:
        InputError: it is anything else, or cannot be read.
    """
    place = Path(os.path.realpath(out.expanduser()))
    try:
        names = sorted(_names_in(place)) if os.path.lexists(place) else []
    except NotADirectoryError as error:
        raise InputError(f"{out} is a file, expected a folder; choose another --out") from error
    except OSError as error:
        raise InputError(f"cannot read {out}: {error.strerror}; choose another --out") from error
    marker = read_marker(place)
    if names and marker is None:
        raise InputError(
            f"{out} holds {names[0]} and was not written by this version of damcrack; "
            "choose a new or an empty folder as --out"
        )
    if marker and marker["kind"] != kind:
        raise InputError(f"{out} is an output of the kind {marker['kind']}, not {kind}; choose another --out")
    return place


@contextmanager
def new_directory(out: Path, kind: str = "output") -> Iterator[Path]:
    """Yield an empty folder next to `out`; on success it replaces `out`, on any exception it is removed.

    Files in `out` that we did not write move along. A call that was killed is cleaned up, or finished, by the next.

    Raises:
        InputError: `out` is not ours (see `check_output`), another call writes to it, or it cannot be written.
    """
    place = check_output(out, kind)
    if Path.cwd().is_relative_to(place):
        raise InputError(f"{out} is the current folder or above it; choose a folder inside as --out")
    new, old = (place.with_name(f".{place.name}.{state}") for state in ("new", "old"))
    with writable(out):
        place.parent.mkdir(parents=True, exist_ok=True)
    with in_use(new.with_name(f"{new.name}.lock"), out):
        with writable(out):
            finish_replacing(old, place)
            remove_unfinished(new)
            new.mkdir()
            write_marker(new, kind, ())
        try:
            yield new
            _check_names(new, check_output(place, kind))
            with writable(out):
                _replace(new, place, old, kind)
        finally:
            finish_replacing(old, place)
            remove_unfinished(new)


def check_output_file(out: Path, kind: str, start: str) -> None:
    """Refuse to replace a file that does not start as we write it.

    Raises:
        InputError: it is another file, a folder, or cannot be read.
    """
    try:
        with out.open("rb") as file:
            head = file.read(len(start))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another file") from error
    if head and head != start.encode():
        raise InputError(f"{out} exists and is not a {kind}; choose another file")


@contextmanager
def writable(out: Path) -> Iterator[None]:
    """Explain a refusal of the file system; a full disk is explained at the end of the command.

    Raises:
        InputError: in place of OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"cannot write {out}: {error.strerror}; choose another --out or fix the permissions or the disk"
        ) from error


@contextmanager
def in_use(lock_file: Path, out: Path) -> Iterator[None]:
    """Hold `out` for this call; the lock ends with the process, and its file with this block.

    Raises:
        InputError: another call holds it.
    """
    lock = FileLock(lock_file)
    with writable(out):
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(
                f"{out} is in use by another call; wait until it ends, or choose another --out"
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes it itself, at the release
            lock_file.unlink(missing_ok=True)
        lock.release()


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - _NO_CONTENT


def content_names(folder: Path) -> set[str]:
    """Relative names of all files and folders in `folder`, folders with a slash; not its marker."""
    names = set[str]()
    for root, folders, files in os.walk(folder):
        parent = Path(root).relative_to(folder)
        names |= {(parent / name).as_posix() for name in files}
        names |= {f"{(parent / name).as_posix()}/" for name in folders}
    return names - {OUTPUT_MARKER, *_TRACES}


def foreign_names(folder: Path) -> set[str]:
    """What is in a folder of ours that its marker does not name."""
    return content_names(folder) - set((read_marker(folder) or {"files": ()})["files"])


def remove_ours(folder: Path) -> None:
    """Remove what the marker of `folder` names, and the folder itself if nothing else is in it."""
    marker = read_marker(folder)
    if marker is None:
        return
    for name in sorted(marker["files"], reverse=True):  # what is in a folder comes before the folder
        path = folder / name
        with suppress(OSError):  # a folder with something else in it stays
            path.rmdir() if name.endswith("/") and not path.is_symlink() else path.unlink(missing_ok=True)
    if content_names(folder):
        write_marker(folder, marker["kind"], ())
    else:
        _remove_tree(folder)


def remove_unfinished(new: Path) -> None:
    """Remove the work of a call that was killed; a folder without our marker stays."""
    if new.is_dir() and (read_marker(new) or not _names_in(new)):
        with suppress(OSError):
            _remove_tree(new)


def remove_output(place: Path) -> None:
    """Remove a folder that is ours by its place, with all that is in it; one that is half removed is none any more."""
    new = place.with_name(f".{place.name}.new")
    for rename in (False, True):  # first what a kill left
        with suppress(OSError):
            if rename:
                place.rename(new)
            _remove_tree(new)


def _remove_tree(folder: Path) -> None:
    """Remove a folder of ours; its marker goes last, so that what a kill leaves is known to be ours."""
    for path in folder.iterdir():
        if path.name != OUTPUT_MARKER:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / OUTPUT_MARKER).unlink(missing_ok=True)
    folder.rmdir()


def _check_names(new: Path, place: Path) -> None:
    clash = content_names(new) & foreign_names(place)
    files = sorted(name for name in clash if not name.endswith("/"))
    if files:
        raise InputError(
            f"{place / files[0]} is not ours, and would be replaced; move it, or choose another --out"
        )


def _replace(new: Path, place: Path, old: Path, kind: str) -> None:
    write_marker(new, kind, content_names(new))
    if place.is_dir():
        if read_marker(place) is None:
            write_marker(place, kind, ())
        place.rename(old)
    new.rename(place)


def finish_replacing(old: Path, place: Path) -> None:
    """Bring back what has no successor; else move what is not ours to the successor and remove the rest."""
    if read_marker(old) is None:
        remove_unfinished(old)
        return
    if not place.exists():
        old.rename(place)
        return
    for name in sorted(foreign_names(old)):
        source, target = old / name, place / name
        if name.endswith("/") and not source.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
        elif not os.path.lexists(target):
            source.rename(target)
    for name in sorted(foreign_names(old), reverse=True):
        with suppress(OSError):
            (old / name).rmdir()
    remove_ours(old)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process of this machine through at a time; the others wait. The lock is a file beside `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder for temporary files, which goes at the end; those of calls that were killed go first."""
    for left in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
        with suppress(OSError, Timeout):  # it is in use, or has just gone
            ours = not hasattr(os, "getuid") or left.lstat().st_uid == os.getuid()
            if ours and not left.is_symlink():
                with FileLock(left / ".lock").acquire(blocking=False):
                    shutil.rmtree(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
        lock = FileLock(folder / ".lock")
        with suppress(FileNotFoundError, Timeout):  # somebody tidies up at this moment
            lock.acquire(blocking=False)
            break
    try:
        files = folder / "files"
        files.mkdir()
        yield files
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a place beside `path` for what replaces it at the end; on any exception `path` stays as it is."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside `path` and rename it into place."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in the given order; non-finite numbers are refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows with Unix line ends; floats keep their shortest exact form."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: Path, fix: str = "run the command that writes it again") -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        InputError: it is missing, or holds anything else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; {fix}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); {fix}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged (expected a JSON object); {fix}")
    return value


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV with a header line into one dict per row, all values as text; a byte order mark is skipped.

    Raises:
        InputError: it is no text in UTF-8, or no table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} is no table of comma-separated values in UTF-8 ({error}); save it again"
        ) from error


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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, cores)


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
