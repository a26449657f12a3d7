"""Snapshots: what a folder or bucket held, as a sorted list of names and hashes.

Outside data enters the graph as this value. DVC sees a changed snapshot, so new photos never slip past the
cache unseen, and a stage refuses a source that no longer holds what its snapshot says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from damcrack.data.config import SAMPLE
from damcrack.data.names import escaped, is_hidden, is_image_name
from damcrack.files import InputError, in_order, in_use, read_csv, sha256_bytes, write_csv
from damcrack.run import Run

COLUMNS = ("source", "name", "size_bytes", "sha256")


class Source(Protocol):
    """Read-only files under one root."""

    def names(self) -> list[str]:
        """All file names, sorted, relative to the root, with forward slashes."""

    def links_out(self) -> list[str]:
        """Names of the links that lead out of the root, which are not followed."""

    def read(self, name: str) -> bytes:
        """Content of one file.

        Raises:
            FileNotFoundError: there is no such file (any more).
            InputError: the source cannot be reached or may not be read.
        """


OpenSource = Callable[[str], Source]
"""Open a folder or an `s3://bucket/prefix`; raises InputError where there is none."""


def snapshot(sources: Mapping[str, str], out: Path, open_source: OpenSource, run: Run) -> dict[str, object]:
    """Write one row per file of every source to `out`, sorted; the built-in sample has none.

    Files that no stage reads (hidden, or neither image nor CSV) are listed without size and hash.

    Raises:
        InputError: a source cannot be opened or read, is empty, or changed meanwhile.
    """
    rows: list[dict[str, Any]] = []
    for name, uri in sorted(sources.items()):
        if uri != SAMPLE:
            rows += _rows(name, uri, open_source(uri), run)
    out.parent.mkdir(parents=True, exist_ok=True)
    with in_use(out.with_name(f".{out.name}.lock"), out):
        write_csv(out, COLUMNS, rows)
    read = [int(row["size_bytes"]) for row in rows if row["sha256"]]
    return {
        "files": len(read),
        "bytes": sum(read),
        "other files, not read": len(rows) - len(read),
        "written": str(out),
    }


def _rows(source: str, uri: str, files: Source, run: Run) -> list[dict[str, Any]]:
    names = files.names()
    if links := files.links_out():
        run.say(
            f"{source}: links that lead out of {uri} are not followed: {len(links)}, {links[0]} first; "
            "copy what they lead to, or give its folder as a source"
        )
    if not names:
        raise InputError(f"{source}: no file in {uri}, expected images; check the path or prefix")

    def row(name: str) -> dict[str, Any]:
        listed: dict[str, Any] = {"source": source, "name": escaped(name), "size_bytes": "", "sha256": ""}
        if is_hidden(name) or not (is_image_name(name) or name.lower().endswith(".csv")):
            return listed
        try:
            content = files.read(name)
        except FileNotFoundError as error:
            raise InputError(f"{uri}: {name} vanished while it was read; run the snapshot again") from error
        return {**listed, "size_bytes": len(content), "sha256": sha256_bytes(content)}

    rows = list(run.track(in_order(row, names), f"reading {source}", len(names)))
    return sorted(rows, key=lambda listed: str(listed["name"]))


@dataclass(frozen=True)
class FixedSource:
    """One source exactly as its snapshot lists it; files that are never read have an empty hash."""

    name: str
    uri: str
    files: Source
    sha256_of: Mapping[str, str]
    stage: str

    def read(self, name: str) -> bytes:
        """Content of a listed file.

        Raises:
            InputError: the file is gone, or holds something else than when the snapshot was written.
        """
        try:
            content = self.files.read(name)
        except FileNotFoundError as error:
            raise InputError(self._changed(name, "is gone")) from error
        if sha256_bytes(content) != self.sha256_of[name]:
            raise InputError(self._changed(name, "has changed"))
        return content

    def _changed(self, name: str, how: str) -> str:
        return (
            f"{self.name}: {name} {how} in {self.uri} since the snapshot was written; "
            f"put it back or run `damcrack snapshot {self.stage}`"
        )


def open_fixed(
    path: Path, sources: Mapping[str, str], open_source: OpenSource, stage: str
) -> dict[str, FixedSource]:
    """Open every source but the sample, limited to its rows in the snapshot at `path`.

    Raises:
        InputError: the snapshot is missing, has other columns, or lists nothing for a source.
    """
    outside = {name: uri for name, uri in sorted(sources.items()) if uri != SAMPLE}
    if not outside:
        return {}
    listed = _read_snapshot(path, stage)
    missing = [name for name in outside if name not in listed]
    if missing:
        raise InputError(
            f"{path} lists no file of {', '.join(missing)}, expected what {outside[missing[0]]} holds; "
            f"run `damcrack snapshot {stage}`"
        )
    opened = {name: open_source(uri) for name, uri in outside.items()}
    for source in opened.values():
        source.names()  # a bucket compares what it reads with its listing
    return {name: FixedSource(name, outside[name], opened[name], listed[name], stage) for name in outside}


def _read_snapshot(path: Path, stage: str) -> dict[str, dict[str, str]]:
    try:
        rows = read_csv(path)
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a snapshot ({error}); run `damcrack snapshot {stage}`") from error
    listed: dict[str, dict[str, str]] = {}
    for row in rows:
        if set(row) != set(COLUMNS) or None in row.values():
            got = ", ".join(str(column) for column in row)
            raise InputError(
                f"{path}: columns {got}, expected {', '.join(COLUMNS)} in every row; "
                f"run `damcrack snapshot {stage}`"
            )
        listed.setdefault(row["source"], {})[row["name"]] = row["sha256"]
    return listed
