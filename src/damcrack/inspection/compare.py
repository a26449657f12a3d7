"""Two surveys of one wall: what is new, grown and vanished.

OUT/compare.html    one page: pairs with old and new photo laid over each other, changes marked
OUT/changes.csv     one row per crack of the new survey, and per vanished one
OUT/pairs.csv       one row per pair of photos: how well they could be laid over each other
OUT/compare.json    totals

Works on the folders that `damcrack inspect` wrote; the photos themselves are not needed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.cracks.findings import Findings, read_picture
from damcrack.cracks.photo import Rules
from damcrack.files import InputError, check_output, new_directory, write_json
from damcrack.inspection.align import Registration, register_photos, scale_at
from damcrack.inspection.changes import Change, Limits, Side, changes
from damcrack.inspection.compare_page import write_compare_page
from damcrack.inspection.finished import FinishedSurvey
from damcrack.inspection.overlay import lay_over
from damcrack.inspection.spreadsheet import (
    match_name,
    name_key,
    names_by_key,
    read_user_table,
    write_table,
)
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
PAIR_COLUMNS = (
    "old",
    "new",
    "matches",
    "error_px",
    "problem",
    "old_gsd_mm_per_px",
    "new_gsd_mm_per_px",
    "scale_problem",
)
STATUSES = ("new", "grown", "vanished", "unchanged", "unclear")
# How far the sizes of a pixel may differ from what the photos themselves show, laid over each other.
SCALE_TOLERANCE = 0.1


@dataclass(frozen=True)
class Pair:
    """Folders of the two photos, by the name of the new one."""

    name: str
    old_name: str
    old: Path
    new: Path


def compare(old: Path, new: Path, out: Path, pairs: Path | None, run: Run) -> dict[str, object]:
    """Compare surveys of the same wall photo by photo, paired by name or by a table old,new.

    Raises:
        InputError: one of them is no survey, they used different models or rules, or no photo has a partner.
    """
    check_output(out, KIND)
    surveys = FinishedSurvey.read(old), FinishedSurvey.read(new)
    _refuse_unlike(*surveys)
    photos = surveys[0].folders, surveys[1].folders
    matched = _pairs(*photos, _read_pairs(pairs, *photos) if pairs else None)
    rows, pair_rows, drawn = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    with new_directory(out, KIND) as folder:
        for pair in run.track(matched, "comparing photos", len(matched)):
            registration, found = _compare_pair(pair)
            gsd, scale_problem = _scale(Findings.read(pair.old), Findings.read(pair.new), registration)
            pair_rows.append(_pair_row(pair, registration) | {"scale_problem": scale_problem})
            rows += [_change_row(pair, change, gsd) for change in found]
            drawn.append(_drawn(pair, registration, found) | {"scale_problem": scale_problem})
        write_table(folder / "changes.csv", CHANGE_COLUMNS, rows)
        write_table(folder / "pairs.csv", PAIR_COLUMNS, pair_rows)
        alone = {
            "only_old": sorted(photos[0].keys() - {pair.old_name for pair in matched}),
            "only_new": sorted(photos[1].keys() - {pair.name for pair in matched}),
        }
        counts = Counter(row["status"] for row in rows)
        totals = {status: counts[status] for status in STATUSES}
        failed = sum(bool(row["problem"]) for row in pair_rows)
        write_json(
            folder / "compare.json",
            {
                "pairs": len(matched),
                "not_registered": failed,
                "scale_problems": sum(bool(row["scale_problem"]) for row in pair_rows),
                **totals,
                **alone,
            },
        )
        write_compare_page(
            folder / "compare.html", f"{old.name} and {new.name}", drawn, rows, totals, failed, alone
        )
    return {
        "pairs": f"{len(matched)}, of which {failed} could not be laid over each other",
        "cracks": ", ".join(f"{count} {status}" for status, count in totals.items()),
        "page": out / "compare.html",
    }


def _refuse_unlike(old: FinishedSurvey, new: FinishedSurvey) -> None:
    """What another network or another rule does not find is no change of the wall."""
    used = [
        {"model": one.model_sha256[:12]} | {field.name: one.values.get(field.name) for field in fields(Rules)}
        for one in (old, new)
    ]
    for name, value in used[0].items():
        if used[1][name] != value:
            raise InputError(
                f"{old.root} was inspected with {name} {value}, {new.root} with {used[1][name]}; expected the same, "
                "because each finds other cracks; inspect one of them again with the other's model and values"
            )


def _read_pairs(path: Path, old: Mapping[str, Path], new: Mapping[str, Path]) -> list[tuple[str, str]]:
    known_old, known_new = names_by_key(old), names_by_key(new)
    pairs = [
        (match_name(row["old"], known_old, f"{path}: old"), match_name(row["new"], known_new, f"{path}: new"))
        for row in read_user_table(path, ("old", "new"))
    ]
    twice = [name for name, number in Counter(name for _, name in dict.fromkeys(pairs)).items() if number > 1]
    if twice or not pairs:
        problem = f"{twice[0]} has several old photos, expected one" if twice else "no row with a pair"
        raise InputError(f"{path}: {problem}; fix the table")
    return list(dict.fromkeys(pairs))


def _pairs(
    old: Mapping[str, Path], new: Mapping[str, Path], named: Sequence[tuple[str, str]] | None
) -> list[Pair]:
    if named is None:
        named = _same_names(old, new)
    if not named:
        raise InputError(
            f"no photo of one survey has its name in the other (for example {min(old)} and {min(new)}); "
            "give --pairs with a table old,new"
        )
    return [Pair(other, one, old[one], new[other]) for one, other in named]


def _same_names(old: Mapping[str, Path], new: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Pairs of one name, in whatever case and Unicode form it came off the disks."""
    by_key = names_by_key(old)
    alike = {name: by_key.get(name_key(name), []) for name in new}
    return [
        (name if name in old else found[0], name)
        for name, found in sorted(alike.items())
        if name in old or len(found) == 1
    ]


def _compare_pair(pair: Pair) -> tuple[Registration, list[Change]]:
    findings = Findings.read(pair.old), Findings.read(pair.new)
    registration = register_photos((pair.old, pair.new), findings)
    if registration.reason:
        unclear = [
            Change("unclear", number, crack.length_px, 0.0, crack.width_px, None)
            for number, crack in enumerate(findings[1].cracks)
        ]
        return registration, unclear
    sides = [_side(one, folder) for one, folder in zip(findings, (pair.old, pair.new), strict=True)]
    return registration, changes(sides[0], sides[1], registration.old_to_new, registration.error_px, Limits())


def _side(findings: Findings, folder: Path) -> Side:
    size_hw = findings.height_px, findings.width_px
    possible = np.zeros(size_hw, np.uint8)
    if (folder / "possible.png").is_file():
        possible = (read_picture(folder / "possible.png", cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)
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
    old, new = Findings.read(pair.old), Findings.read(pair.new)
    return {
        "old": pair.old_name,
        "new": pair.name,
        "matches": registration.num_matches,
        "error_px": "" if np.isnan(registration.error_px) else round(registration.error_px, 2),
        "problem": registration.reason,
        "old_gsd_mm_per_px": "" if old.gsd_mm_per_px is None else old.gsd_mm_per_px,
        "new_gsd_mm_per_px": "" if new.gsd_mm_per_px is None else new.gsd_mm_per_px,
    }


def _scale(old: Findings, new: Findings, registration: Registration) -> tuple[float | None, str]:
    """Millimetres per pixel for the changes of a pair, and what is wrong with the scales; empty if nothing is.

    Changes are measured in pixels of the new photo, with the old one brought to its size: only the new one's scale
    counts for them, but the old one's must agree with it.
    """
    if old.gsd_mm_per_px is None and new.gsd_mm_per_px is not None:
        return new.gsd_mm_per_px, "the old photo has no scale: millimetres go by the new one's alone"
    if new.gsd_mm_per_px is None and old.gsd_mm_per_px is not None:
        return None, "the new photo has no scale: no millimetres"
    if old.gsd_mm_per_px is None or new.gsd_mm_per_px is None or registration.reason:
        return new.gsd_mm_per_px, ""
    middle = np.array([[old.width_px / 2, old.height_px / 2]])
    shown = float(scale_at(registration.old_to_new, middle)[0])
    said = old.gsd_mm_per_px / new.gsd_mm_per_px
    if max(shown, said) <= (1 + SCALE_TOLERANCE) * min(shown, said):
        return new.gsd_mm_per_px, ""
    return None, (
        f"laid over each other, a pixel of the old photo is {shown:.2f} of the new one, "
        f"by their scales {said:.2f}: no millimetres, one scale is wrong"
    )


def _change_row(pair: Pair, change: Change, gsd: float | None) -> dict[str, Any]:
    pixels = {
        "length": change.length_px,
        "length_change": change.length_change_px,
        "width": change.width_px,
        "width_change": change.width_change_px,
    }
    photo = pair.old_name if change.status == "vanished" else pair.name
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
