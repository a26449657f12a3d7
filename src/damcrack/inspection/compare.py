"""Two surveys of one wall: what is new, grown and vanished.

OUT/compare.html    one page: pairs with old and new photo laid over each other, changes marked
OUT/changes.csv     one row per crack of the new survey, and per vanished one
OUT/pairs.csv       one row per pair of photos: how well they could be laid over each other
OUT/compare.json    totals

Works on the folders that `damcrack inspect` wrote; the photos themselves are not needed.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.files import InputError, check_output, new_directory, write_csv, write_json
from damcrack.inspection.align import Registration, register
from damcrack.inspection.changes import Change, Limits, Side, changes
from damcrack.inspection.compare_page import write_compare_page
from damcrack.inspection.findings import Findings, Pixels, read_image, survey_folders
from damcrack.inspection.overlay import lay_over
from damcrack.run import Run

CHANGE_COLUMNS = (
    "photo",
    "status",
    "crack",
    "length_px",
    "length_change_px",
    "width_px",
    "width_change_px",
    "length_mm",
    "length_change_mm",
    "width_mm",
    "width_change_mm",
)
KIND = "comparison"
PAIR_COLUMNS = ("old", "new", "matches", "error_px", "problem")
STATUSES = ("new", "grown", "vanished", "unchanged", "unclear")


@dataclass(frozen=True)
class Pair:
    """Folders of the two photos, by the name of the new one."""

    name: str
    old: Path
    new: Path


def compare(old: Path, new: Path, out: Path, pairs: Path | None, run: Run) -> dict[str, object]:
    """Compare surveys of the same wall photo by photo, paired by name or by a table old,new.

    Raises:
        InputError: one of them is no survey, they used different models, or no photo has a partner.
    """
    check_output(out, KIND)
    surveys = _photos_of(old), _photos_of(new)
    matched = _pairs(*surveys, _read_pairs(pairs) if pairs else None)
    rows, pair_rows, drawn = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    with new_directory(out, KIND) as folder:
        for pair in run.track(matched, "comparing photos", len(matched)):
            registration, found = _compare_pair(pair)
            pair_rows.append(_pair_row(pair, registration))
            new_findings = Findings.read(pair.new)
            rows += [_change_row(pair, change, new_findings.gsd_mm_per_px) for change in found]
            drawn.append(_drawn(pair, registration, found))
        write_csv(folder / "changes.csv", CHANGE_COLUMNS, rows)
        write_csv(folder / "pairs.csv", PAIR_COLUMNS, pair_rows)
        alone = {
            "only_old": sorted(surveys[0].keys() - {Findings.read(pair.old).photo for pair in matched}),
            "only_new": sorted(surveys[1].keys() - {pair.name for pair in matched}),
        }
        counts = Counter(row["status"] for row in rows)
        totals = {status: counts[status] for status in STATUSES}
        failed = sum(bool(row["problem"]) for row in pair_rows)
        write_json(
            folder / "compare.json", {"pairs": len(matched), "not_registered": failed, **totals, **alone}
        )
        write_compare_page(
            folder / "compare.html", f"{old.name} and {new.name}", drawn, rows, totals, failed, alone
        )
    return {
        "pairs": f"{len(matched)}, of which {failed} could not be laid over each other",
        "cracks": ", ".join(f"{count} {status}" for status, count in totals.items()),
        "page": out / "compare.html",
    }


def _photos_of(survey: Path) -> dict[str, Path]:
    return {Findings.read(folder).photo: folder for folder in survey_folders(survey)}


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        return [(row["old"], row["new"]) for row in rows]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: no table with the columns old,new ({error}); fix it") from error


def _pairs(
    old: Mapping[str, Path], new: Mapping[str, Path], named: Sequence[tuple[str, str]] | None
) -> list[Pair]:
    wanted = named if named is not None else [(name, name) for name in sorted(old.keys() & new.keys())]
    for one, other in wanted:
        for name, known in ((one, old), (other, new)):
            if name not in known:
                raise InputError(
                    f"the table of pairs names {name}, which its survey does not have; fix the table"
                )
    if not wanted:
        raise InputError(
            f"no photo of one survey has its name in the other (for example {min(old)} and {min(new)}); "
            "give --pairs with a table old,new"
        )
    return [Pair(other, old[one], new[other]) for one, other in wanted]


def _compare_pair(pair: Pair) -> tuple[Registration, list[Change]]:
    findings = Findings.read(pair.old), Findings.read(pair.new)
    small = [_grey(folder) for folder in (pair.old, pair.new)]
    scales = [one.width_px / grey.shape[1] for one, grey in zip(findings, small, strict=True)]
    registration = register(small[0], small[1], scales[0], scales[1])
    if registration.reason:
        unclear = [
            Change("unclear", number, crack.length_px, 0.0, crack.width_px, None)
            for number, crack in enumerate(findings[1].cracks)
        ]
        return registration, unclear
    sides = [_side(one, folder) for one, folder in zip(findings, (pair.old, pair.new), strict=True)]
    return registration, changes(sides[0], sides[1], registration.old_to_new, registration.error_px, Limits())


def _grey(folder: Path) -> Pixels:
    return read_image(folder / "preview.jpg", cv2.IMREAD_GRAYSCALE)


def _side(findings: Findings, folder: Path) -> Side:
    size_hw = findings.height_px, findings.width_px
    possible = np.zeros(size_hw, np.uint8)
    if (folder / "possible.png").is_file():
        possible = (read_image(folder / "possible.png", cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)
    doubt = np.zeros(size_hw, np.bool_)
    low, high = findings.uncertain
    for x0, y0, x1, y1, prob in findings.blocks:
        doubt[y0:y1, x0:x1] |= low <= prob < high and prob < findings.threshold
    cracks = findings.cracks
    return Side(
        [crack.length_px for crack in cracks],
        [crack.samples for crack in cracks],
        possible,
        doubt,
    )


def _pair_row(pair: Pair, registration: Registration) -> dict[str, Any]:
    return {
        "old": Findings.read(pair.old).photo,
        "new": pair.name,
        "matches": registration.num_matches,
        "error_px": "" if np.isnan(registration.error_px) else round(registration.error_px, 2),
        "problem": registration.reason,
    }


def _change_row(pair: Pair, change: Change, gsd: float | None) -> dict[str, Any]:
    pixels = {
        "length": change.length_px,
        "length_change": change.length_change_px,
        "width": change.width_px,
        "width_change": change.width_change_px,
    }
    photo = Findings.read(pair.old).photo if change.status == "vanished" else pair.name
    row: dict[str, Any] = {
        "photo": pair.name,
        "status": change.status,
        "crack": f"{photo}#{change.crack + 1}",
    }
    for name, value in pixels.items():
        row[f"{name}_px"] = "" if value is None else round(value, 2)
        row[f"{name}_mm"] = "" if value is None or gsd is None else round(value * gsd, 3)
    return row


def _drawn(pair: Pair, registration: Registration, found: Sequence[Change]) -> dict[str, Any]:
    return {
        "photo": pair.name,
        "problem": registration.reason,
        "counts": Counter(change.status for change in found),
        "images": lay_over(pair.old, pair.new, registration, found),
    }
