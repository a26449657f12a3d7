"""Tables for and from a spreadsheet: CSV that Excel opens rightly, and any CSV that it saves.

Photo names are compared as people read them: without regard to case, Unicode form, spaces around, and kinds of slashes.
"""

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from damcrack.data.names import escape_formula, unescape_formula
from damcrack.files import InputError, replacing

SEPARATORS = (";", "\t", ",")
Row = Mapping[str, Any]


@contextmanager
def open_table(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Row], Any]]:
    """Write a table row by row: with a byte order mark, so that Excel reads UTF-8, and no text that runs as a formula.

    `path` is there once all rows are.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8-sig", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        yield lambda row: writer.writerow({name: escape_formula(value) for name, value in row.items()})


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write all rows of a table as `open_table` does."""
    with open_table(path, columns) as write:
        for row in rows:
            write(row)


def read_user_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the given columns of a table with a header line, as stripped text; empty rows are left out.

    UTF-8, UTF-16 and Windows-1252; separated by semicolons, tabs or commas. The header's case and spaces do not matter.

    Raises:
        InputError: it cannot be read, lacks a column or has it twice, or a row has more cells than the header.
    """
    try:
        rows = _rows(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); fix the path") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); save it as CSV UTF-8") from error
    header = [_column(cell) for cell in rows[0]] if rows else []
    wrong = [name for name in columns if header.count(name) != 1]
    if wrong:
        raise InputError(
            f"{path}: {header.count(wrong[0])} columns are called {wrong[0]}, expected one; "
            f"the first line must be {','.join(columns)}"
        )
    for number, row in enumerate(rows[1:], 2):
        if any(cell.strip() for cell in row[len(header) :]):
            raise InputError(
                f"{path}: row {number} has {len(row)} cells, the header has {len(header)}; "
                "put numbers with a decimal comma in quotes, or separate cells by semicolons"
            )
    places = {name: header.index(name) for name in columns}
    return [
        {name: unescape_formula(row[at].strip()) if at < len(row) else "" for name, at in places.items()}
        for row in rows[1:]
    ]


def _rows(content: bytes) -> list[list[str]]:
    text = _decoded(content).lstrip("\r\n")
    first, _, rest = text.partition("\n")
    if first.strip().strip('"').casefold().startswith("sep="):  # Excel's own line
        text, first = rest, rest.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    return [row for row in rows if any(cell.strip() for cell in row)]


def _decoded(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _column(cell: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", cell.casefold()).strip("_")


def read_number(text: str) -> float | None:
    """A plain number with a decimal point or comma, or None."""
    plain = re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", text.strip(), re.IGNORECASE | re.ASCII)
    return float(text.replace(",", ".")) if plain else None


def name_key(name: str) -> str:
    """The same for all spellings of one name."""
    parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    return unicodedata.normalize("NFC", "/".join(parts).casefold())


def names_by_key(names: Collection[str]) -> dict[str, list[str]]:
    """All names of each key."""
    by_key: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_key[name_key(name)].append(name)
    return dict(by_key)


def match_name(written: str, known: Mapping[str, Sequence[str]], table: str) -> str:
    """The photo that a table means by `written`; a frame of a video goes by its video.

    Raises:
        InputError: none, or several that are not written so exactly.
    """
    names = known.get(name_key(written), [])
    if written in names:
        return written
    if len(names) == 1:
        return names[0]
    video, _, time = written.rpartition("@")
    videos = known.get(name_key(video), [])
    if not names and len(videos) == 1:
        return f"{videos[0]}@{time}"
    problem = f"which could be {' or '.join(sorted(names))}" if names else "which is not a photo here"
    raise InputError(f"{table} names {written!r}, {problem}; write the photo's path as in photos.csv")
