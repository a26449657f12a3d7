"""The catalogue: what became of each object that arrived, in numbered batches.

A batch is one file. It is written when everything that it lists is in the store, and never changed.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from damcrack.data.snapshot import COLUMNS as SNAPSHOT_COLUMNS
from damcrack.files import InputError, check_output_file, in_order, in_use, read_csv, sha256_bytes, write_csv
from damcrack.storage.source import Store


@dataclass(frozen=True)
class Entry:
    """An object that arrived: a photo, or the mask of the photo `photo_sha256`.

    `name` is what it was called where it arrived; it is shown and compared, never used as a path. `file` holds its
    content in the store. `reason` says why it is in quarantine, `doubt` why a photo teaches nothing without a label: it
    is dark, blurred or the like. A second entry of the same content is a copy.
    """

    name: str
    etag: str
    sha256: str
    photo_sha256: str
    file: str
    size_bytes: int
    reason: str
    doubt: str = ""

    @property
    def content(self) -> tuple[str, str]:
        """What a copy has in common with it; one mask of two photos is two contents."""
        return self.sha256, self.photo_sha256

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the object as it was listed."""
        return self.name, self.etag, self.photo_sha256


COLUMNS = tuple(field.name for field in fields(Entry))


@dataclass
class Catalogue:
    """Entries by batch; batches are numbered from 1."""

    batches: list[list[Entry]]

    @property
    def number(self) -> int:
        """Number of the newest batch; 0 if there is none."""
        return len(self.batches)

    def until(self, number: int) -> "Catalogue":
        """The first batches.

        Raises:
            InputError: there are not that many.
        """
        if number > self.number:
            raise InputError(f"catalogue {number}: there is no such batch, the newest is {self.number}")
        return Catalogue(self.batches[:number])

    def entries(self) -> Iterator[Entry]:
        """All entries in the order in which they were taken in."""
        return (entry for batch in self.batches for entry in batch)

    def contents(self) -> dict[tuple[str, str], tuple[int, Entry]]:
        """The first entry of each content, with the number of its batch."""
        found: dict[tuple[str, str], tuple[int, Entry]] = {}
        for number, batch in enumerate(self.batches, 1):
            for entry in batch:
                found.setdefault(entry.content, (number, entry))
        return found

    def photos(self) -> list[tuple[int, Entry]]:
        """All photos that can be used, each once, with the number of its batch."""
        first = self.contents().values()
        return [(number, entry) for number, entry in first if not entry.reason and not entry.photo_sha256]

    def labels(self) -> dict[str, Entry]:
        """The newest mask of each photo, by the photo's hash."""
        return {
            entry.photo_sha256: entry for entry in self.entries() if entry.photo_sha256 and not entry.reason
        }

    def num_new_labels(self, since: int) -> int:
        """Number of photos whose label is new or another one than in batch `since`."""
        before = {photo: mask.sha256 for photo, mask in self.until(since).labels().items()}
        return sum(before.get(photo) != mask.sha256 for photo, mask in self.labels().items())

    def teaching(self) -> list[tuple[int, Entry]]:
        """The photos to train on: those with a label, and those without one that can be judged."""
        labels = self.labels()
        return [
            (number, entry) for number, entry in self.photos() if not entry.doubt or entry.sha256 in labels
        ]

    def num_new_photos(self, since: int) -> int:
        """Number of photos to train on that came after batch `since`."""
        return sum(number > since for number, _ in self.teaching())

    def quarantined(self) -> list[Entry]:
        """What is in quarantine, each content once; not what was replaced under its name since."""
        newest = {entry.name: entry for entry in self.entries()}
        return list({entry.content: entry for entry in newest.values() if entry.reason}.values())

    def append(self, store: Store, batch: Sequence[Entry]) -> None:
        """Write the next batch.

        Raises:
            InputError: another run wrote a batch of that number with other entries.
        """
        name = f"catalogue/{self.number + 1:08d}.csv"
        if not store.create(name, _csv(batch)):
            raise InputError(f"{name} was written by another run at the same time; run again")
        self.batches.append(list(batch))


def read_catalogue(store: Store) -> Catalogue:
    """Read all batches.

    Raises:
        InputError: one is missing or is not one of ours.
    """
    listed = (one.name for one in store.listed("catalogue/"))
    names = [name for name in listed if re.fullmatch(r"catalogue/\d{8}\.csv", name)]
    for number, name in enumerate(names, 1):
        if name != f"catalogue/{number:08d}.csv":
            raise InputError(f"catalogue/{number:08d}.csv has vanished from the store; restore it")
    return Catalogue(list(in_order(lambda name: _entries(name, store.read(name)), names)))


def stored_photo(store: Store, photo: Entry) -> bytes:
    """The bytes of a photo that was taken in.

    Raises:
        InputError: they are not what was taken in any more.
    """
    try:
        content = store.read(photo.file)
    except FileNotFoundError:
        content = b""
    if sha256_bytes(content) != photo.sha256:
        raise InputError(f"{photo.file} has vanished from the store or changed; restore its version")
    return content


def _entries(name: str, content: bytes) -> list[Entry]:
    try:
        header, *rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        if tuple(header) != COLUMNS:
            raise ValueError(f"columns {', '.join(header)}, expected {', '.join(COLUMNS)}")
        values: list[dict[str, Any]] = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        return [Entry(**one | {"size_bytes": int(one["size_bytes"])}) for one in values]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{name} is not a catalogue ({error}); restore its version") from error


def _csv(batch: Sequence[Entry]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in batch)
    return text.getvalue().encode()


def last_trained(store: Store) -> int:
    """Number of the newest batch that the graph was trained on; 0 if never."""
    found = (re.fullmatch(r"trained/(\d{8})\.json", one.name) for one in store.listed("trained/"))
    return max((int(match[1]) for match in found if match), default=0)


def write_snapshot(out: Path, source: str, catalogue: Catalogue) -> dict[str, object]:
    """Put what the catalogue holds into a snapshot of the stage `photos`, as its source of that name.

    A labelled photo is read from next to its newest mask. Rows of other sources stay.

    Raises:
        InputError: no photo to train on was taken in, or `out` is not a snapshot.
    """
    photos, labels = catalogue.teaching(), catalogue.labels()
    if not photos:
        raise InputError(
            f"{len(catalogue.photos())} photos were taken in, none to train on, a snapshot would be empty; "
            "run `damcrack imagery take-in` when photos have come"
        )
    rows: list[dict[str, Any]] = []
    for _, photo in photos:
        file, label = photo.file, labels.get(photo.sha256)
        if label:
            rows.append(_row(source, label.file, label))
            file = str(PurePosixPath(label.file).parents[1] / PurePosixPath(photo.file).name)
        rows.append(_row(source, file, photo))
    out.parent.mkdir(parents=True, exist_ok=True)
    with in_use(out.with_name(f".{out.name}.lock"), out):
        rows += [row for row in _existing(out) if row["source"] != source]
        write_csv(out, SNAPSHOT_COLUMNS, sorted(rows, key=lambda row: (row["source"], row["name"])))
    return {"photos": len(photos), "labelled": len(labels), "written": out}


def _existing(out: Path) -> list[dict[str, str]]:
    check_output_file(out, "snapshot", ",".join(SNAPSHOT_COLUMNS))
    rows = read_csv(out) if out.is_file() else []
    if any(tuple(row) != SNAPSHOT_COLUMNS for row in rows):
        raise InputError(f"{out} has other columns than a snapshot, {', '.join(SNAPSHOT_COLUMNS)}; remove it")
    return rows


def _row(source: str, file: str, entry: Entry) -> dict[str, Any]:
    name = file.removeprefix("accepted/")
    return {"source": source, "name": name, "size_bytes": entry.size_bytes, "sha256": entry.sha256}
