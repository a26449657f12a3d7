"""Files below a folder on this machine, or below a prefix in a bucket, whatever they hold."""

import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from damcrack.files import OUTPUT_MARKER, InputError, temporary_folder

HEAD_BYTES = 32
RESULTS = ("survey.json", "compare.json")
_OURS = "an output of damcrack; what it holds is not inspected"


@dataclass(frozen=True)
class Listed:
    """A file, by its name below a place, or as the report calls it; empty if it is the place itself.

    `same` is equal for one file under two names, `is_link` where a link leads to it.
    """

    name: str
    read: Callable[[], bytes]
    size_bytes: int = 0
    first_bytes: Callable[[], bytes] = bytes
    on_disk: Callable[[], AbstractContextManager[Path]] = lambda: nullcontext(Path())
    is_local: bool = True
    is_link: bool = False
    is_video: bool = False
    same: object = None


@dataclass(frozen=True)
class Unusable:
    """A file, folder, or part of a video that is not looked at, and why; `no_photo` if nobody would expect it."""

    name: str
    reason: str
    no_photo: bool = False


class StoredFile(Protocol):
    """An object in a listing."""

    @property
    def name(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...


class Bucket(Protocol):
    """Objects below a prefix."""

    def listed(self, prefix: str = "") -> Sequence[StoredFile]: ...
    def read(self, name: str) -> bytes: ...
    def first_bytes(self, name: str, num_bytes: int) -> bytes: ...
    def save(self, name: str, path: Path) -> None: ...


OpenBucket = Callable[[str], Bucket]


def why_not_entered(folder: str) -> str | None:
    """Say why a folder of that name holds no photos to be inspected; None if it may."""
    if folder.startswith("."):
        return "a hidden folder; not inspected"
    if folder.casefold() == "masks" or folder.casefold().startswith("masks-"):
        return "a folder of masks, not of photos; rename it if it holds photos"
    return None


def walk(root: Path) -> Iterator[Listed | Unusable]:
    """Every file below a folder; links are followed, and each folder is entered once, by its own name if it has one."""
    yield from _Walk(root).files()


class _Walk:
    """Folders still to be entered, links after all others; and those that were, by what the file system calls them."""

    def __init__(self, root: Path) -> None:
        self._seen = {_identity(root.stat()): "the folder itself"}
        self._folders, self._links = [(root, "")], list[tuple[Path, str]]()
        self._linked = False

    def files(self) -> Iterator[Listed | Unusable]:
        while self._folders or self._links:
            if self._folders:
                yield from self._below(*self._folders.pop())
                continue
            self._linked = True
            folder, prefix = self._links.pop(0)
            if twice := self._twice(folder.stat(), prefix):
                yield twice
            else:
                yield from self._below(folder, prefix)

    def _twice(self, known: os.stat_result, prefix: str) -> Unusable | None:
        first = self._seen.setdefault(_identity(known), prefix)
        return (
            None if first == prefix else Unusable(prefix, f"a folder that is listed already as {first}", True)
        )

    def _below(self, folder: Path, prefix: str) -> Iterator[Listed | Unusable]:
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            reason = f"the folder cannot be listed ({error.strerror}); fix its permissions"
            yield Unusable(prefix or ".", reason)
            return
        names = {path.name for path in paths}
        if OUTPUT_MARKER in names or any(
            _is_result(name, (folder / name).read_bytes) for name in names.intersection(RESULTS)
        ):
            yield Unusable(prefix or ".", _OURS, no_photo=True)
            return
        for path in paths:
            yield from self._entry(path, prefix + path.name)

    def _entry(self, path: Path, name: str) -> Iterator[Listed | Unusable]:
        try:
            known = path.stat()
        except OSError as error:
            yield Unusable(name, _broken(path, error))
            return
        if not stat.S_ISDIR(known.st_mode):
            yield file(path, name, known, self._linked)
        elif why := why_not_entered(path.name):
            yield Unusable(name + "/", why, no_photo=True)
        elif path.is_symlink():
            self._links.append((path, name + "/"))
        elif twice := self._twice(known, name + "/"):
            yield twice
        else:
            self._folders.append((path, name + "/"))


def file(path: Path, name: str, known: os.stat_result, is_link: bool = False) -> Listed | Unusable:
    """A file of this machine; a pipe or a device is none."""
    if not stat.S_ISREG(known.st_mode):
        return Unusable(name, "a pipe, socket or device, expected a file", no_photo=True)
    return Listed(
        name,
        path.read_bytes,
        known.st_size,
        partial(_first_bytes, path),
        lambda: nullcontext(path),
        is_link=is_link or path.is_symlink(),
        same=_identity(known),
    )


def objects(uri: str, open_bucket: OpenBucket) -> Iterator[Listed | Unusable]:
    """Every object below a prefix; or one object; or those that fit a pattern, part by part of their names.

    Raises:
        InputError: the bucket cannot be listed, or holds nothing of that name.
    """
    bucket = open_bucket(uri)
    listed = bucket.listed()
    if not listed:
        parent, _, name = uri.rstrip("/").rpartition("/")
        if parent != "s3:/":
            bucket = open_bucket(parent)
            listed = [one for one in bucket.listed(name) if one.name == name]
            if listed:
                yield _object(bucket, listed[0], "")
                return
        bucket, listed = _matching(uri, open_bucket)
    yield from _below(bucket, listed)


def _matching(uri: str, open_bucket: OpenBucket) -> tuple[Bucket, Sequence[StoredFile]]:
    parts = uri.removeprefix("s3://").split("/")
    fixed = next((number for number, part in enumerate(parts) if any(sign in part for sign in "*?[")), 0)
    if not fixed:
        raise InputError(f"{uri}: no object of that name or below it; fix the address")
    bucket, pattern = open_bucket("s3://" + "/".join(parts[:fixed])), parts[fixed:]
    listed = [
        one
        for one in bucket.listed()
        if len(one.name.split("/")) == len(pattern) and all(map(fnmatchcase, one.name.split("/"), pattern))
    ]
    if not listed:
        raise InputError(f"{uri}: no object fits the pattern; fix it (* stays within one folder)")
    return bucket, listed


def _below(bucket: Bucket, listed: Sequence[StoredFile]) -> Iterator[Listed | Unusable]:
    not_entered: dict[str, str] = {}
    for one in listed:
        folder, _, last = one.name.rpartition("/")
        if last == OUTPUT_MARKER or (last in RESULTS and _is_result(last, partial(bucket.read, one.name))):
            not_entered[folder + "/" if folder else ""] = _OURS
        parts = folder.split("/")
        for number, part in enumerate(parts, 1):
            if why := why_not_entered(part):
                not_entered["/".join(parts[:number]) + "/"] = why
    outer = {
        folder: why
        for folder, why in not_entered.items()
        if not any(folder != other and folder.startswith(other) for other in not_entered)
    }
    for folder, why in outer.items():
        yield Unusable(folder or ".", why, no_photo=True)
    for one in listed:
        if not one.name.startswith(tuple(outer)):
            yield _object(bucket, one, one.name)


def _object(bucket: Bucket, stored: StoredFile, name: str) -> Listed:
    @contextmanager
    def on_disk() -> Iterator[Path]:
        with temporary_folder() as folder:
            path = folder / f"file{PurePosixPath(stored.name).suffix}"
            bucket.save(stored.name, path)
            yield path

    return Listed(
        name,
        partial(bucket.read, stored.name),
        stored.size_bytes,
        partial(bucket.first_bytes, stored.name, HEAD_BYTES),
        on_disk,
        is_local=False,
    )


def _is_result(name: str, read: Callable[[], bytes]) -> bool:
    """Tell whether survey.json or compare.json is one of ours, not of another program."""
    try:
        content = json.loads(read())
    except (OSError, InputError, ValueError):
        return False
    ours = {"survey.json": ("model_sha256", "totals"), "compare.json": ("pairs", "not_registered")}[name]
    return isinstance(content, dict) and all(key in content for key in ours)


def _identity(known: os.stat_result) -> tuple[int, int]:
    return known.st_dev, known.st_ino


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(HEAD_BYTES)


def _broken(path: Path, error: OSError) -> str:
    if path.is_symlink() and isinstance(error, FileNotFoundError):
        return f"a link to {os.readlink(path)}, which does not exist; copy the file itself"  # noqa: PTH115
    return f"cannot be read ({error.strerror}); fix its permissions or links"
