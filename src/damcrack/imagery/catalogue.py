"""The catalogue: everything taken in, in batches. Catalogue n holds all of catalogue n - 1 and batch n.

Making a batch is creating the next number: of two runs that try, one makes it and the other sees it. So every
entry of the ledger is in exactly one batch.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from damcrack.data.snapshot import COLUMNS as SNAPSHOT_COLUMNS
from damcrack.files import InputError, in_order, read_csv, write_csv
from damcrack.imagery.ledger import Item, Ledger, numbers
from damcrack.storage.store import Store

MOST_IN_BATCH = 100  # what is inspected in one go; after a crash no more than this is done again
COLUMNS = ("batch", *(field.name for field in fields(Item)))
_NUMBERS = {field.name for field in fields(Item) if field.type is int}


@dataclass(frozen=True)
class Catalogue:
    """`rows` are (batch, item) in the order in which they were listed; number 0 is empty."""

    number: int
    rows: tuple[tuple[int, Item], ...] = ()

    def ids(self) -> set[str]:
        """Keys of all listed items."""
        return {item.id for _, item in self.rows}

    def photos(self, batch: int | None = None) -> list[Item]:
        """Accepted photos, of one batch or all."""
        return [
            item
            for number, item in self.rows
            if item.verdict == "accepted" and not item.mask_sha256 and batch in (None, number)
        ]

    def labels(self, after_batch: int = 0) -> dict[str, Item]:
        """Photo's sha256 -> its latest accepted label, of those that came after a batch."""
        return {
            item.sha256: item
            for number, item in self.rows
            if item.verdict == "accepted" and item.mask_sha256 and number > after_batch
        }

    def quarantined(self) -> list[Item]:
        """Everything set aside, with its reason."""
        return [item for _, item in self.rows if item.verdict == "quarantined"]


def latest(store: Store) -> Catalogue:
    """Read the newest catalogue, also where listings lag behind."""
    number = max(numbers(store.listed("catalogue/")), default=0)
    newest = Catalogue(0) if number == 0 else read_catalogue(store, number)
    while store.age_s(_name(newest.number + 1)) is not None:
        newest = read_catalogue(store, newest.number + 1)
    return newest


def read_catalogue(store: Store, number: int) -> Catalogue:
    """Read one catalogue.

    Raises:
        InputError: there is none of that number, or it is not one of ours.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(store.read(_name(number)).decode())))
        return Catalogue(number, tuple((int(row["batch"]), _item(row)) for row in rows))
    except FileNotFoundError as error:
        raise InputError(
            f"{_name(number)}: there is no such catalogue in the store; see its folder"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{_name(number)} is no catalogue ({error}); restore its version") from error


def extend(store: Store, ledger: Ledger, entries: Iterable[str]) -> Catalogue:
    """List every entry that is in no batch yet; returns the newest catalogue, which holds them all."""
    wanted = set(entries)
    while True:
        known = latest(store)
        missing = sorted(wanted - known.ids())[:MOST_IN_BATCH]
        if not missing:
            return known
        number = known.number + 1
        new = tuple((number, item) for item in in_order(ledger.item, missing))
        store.create(_name(number), _csv((*known.rows, *new)))


def write_snapshot(out: Path, source: str, catalogue: Catalogue) -> dict[str, object]:
    """Put what the catalogue holds into a snapshot of the stage `photos`, as its source of that name.

    A photo with a label comes from beside its newest mask. Rows of other sources stay.

    Raises:
        InputError: no photo was taken in, or `out` is not a snapshot.
    """
    labels, rows = catalogue.labels(), list[dict[str, Any]]()
    for photo in catalogue.photos():
        label = labels.get(photo.sha256)
        rows.append(_row(source, (label or photo).file, photo.size_bytes, photo.sha256))
        if label:
            rows.append(_row(source, label.mask_file, label.mask_size_bytes, label.mask_sha256))
    if not rows:
        raise InputError(
            "no photo was taken in yet, a snapshot would be empty; run `damcrack imagery take-in`"
        )
    others = [row for row in _existing(out) if row["source"] != source]
    rows = sorted([*others, *rows], key=lambda row: (str(row["source"]), str(row["name"])))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(out, SNAPSHOT_COLUMNS, rows)
    return {"photos": len(catalogue.photos()), "with label": len(labels), "written": out}


def _existing(out: Path) -> list[dict[str, str]]:
    rows = read_csv(out) if out.is_file() else []
    if any(tuple(row) != SNAPSHOT_COLUMNS for row in rows):
        raise InputError(f"{out} has other columns than a snapshot, {', '.join(SNAPSHOT_COLUMNS)}; remove it")
    return rows


def _row(source: str, file: str, size_bytes: int, sha256: str) -> dict[str, Any]:
    name = file.removeprefix("accepted/")
    return {"source": source, "name": name, "size_bytes": size_bytes, "sha256": sha256}


def _name(number: int) -> str:
    return f"catalogue/{number:08d}.csv"


def _item(row: dict[str, str]) -> Item:
    values: dict[str, Any] = {name: row[name] for name in COLUMNS[1:]}
    return Item(**values | {name: int(row[name]) for name in _NUMBERS})


def _csv(rows: Iterable[tuple[int, Item]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"batch": batch, **asdict(item)} for batch, item in rows)
    return text.getvalue().encode()
