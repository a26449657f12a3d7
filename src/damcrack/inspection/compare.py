"""Two surveys of one wall: what is new, grown and vanished.

OUT/compare.html    one page: pairs with old and new photo laid over each other, changes marked
OUT/changes.csv     one row per crack of the new survey, and per vanished one
OUT/pairs.csv       one row per pair of photos: how well they could be laid over each other
OUT/compare.json    totals

Works on the folders that `damcrack inspect` wrote; the photos themselves are not needed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.cracks.findings import Findings, crack_name, read_picture
from damcrack.cracks.photo import Rules
from damcrack.files import InputError, check_output, new_directory, write_json
from damcrack.inspection.align import Registration, register_photos, scale_at
from damcrack.inspection.changes import Change, Side, changes
from damcrack.inspection.compare_page import lay_over, write_compare_page
from damcrack.inspection.decisions import FILE, Decision, by_photo, decisions_on, status
from damcrack.inspection.matching import matched, traced
from damcrack.inspection.spreadsheet import (
    match_name,
    name_key,
    names_by_key,
    read_user_table,
    write_table,
)
from damcrack.inspection.survey_folder import FinishedSurvey
from damcrack.run import Run

KIND = "comparison"
MEASURES = ("length", "length_change", "width", "width_change")
CHANGE_COLUMNS = (
    "photo",
    "status",
    "crack",
    *(f"{name}_{unit}" for unit in ("px", "mm") for name in MEASURES),
)
STATUSES = ("new", "grown", "vanished", "unchanged", "unclear", "rejected")
# How far the sizes of a pixel may differ from what the photos themselves show, laid over each other.
SCALE_TOLERANCE = 0.1


@dataclass(frozen=True)
class Pair:
    """Names of the two photos and their folders, old and new."""

    old_name: str
    name: str
    folders: tuple[Path, Path]

    @cached_property
    def findings(self) -> tuple[Findings, Findings]:
        """What was found on both."""
        return Findings.read(self.folders[0]), Findings.read(self.folders[1])


def compare(old: Path, new: Path, out: Path, pairs: Path | None, run: Run) -> dict[str, object]:
    """Compare surveys of the same wall photo by photo, paired by name or by a table old,new.

    What the decisions beside a survey call no crack is rejected, whatever became of it.

    Raises:
        InputError: one of them is no survey, they used different models or rules, no photo has a partner, or decisions
            cannot be read.
    """
    check_output(out, KIND)
    surveys = FinishedSurvey.read(old), FinishedSurvey.read(new)
    _refuse_unlike(*surveys)
    photos = surveys[0].folders, surveys[1].folders
    decided = [by_photo(decisions_on(one, None)) if (one.root / FILE).is_file() else {} for one in surveys]
    named = _read_pairs(pairs, *photos) if pairs else _same_names(*photos)
    rows, pair_rows, drawn = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    with new_directory(out, KIND) as folder:
        for old_name, name in run.track(named, "comparing photos", len(named)):
            pair = Pair(old_name, name, (photos[0][old_name], photos[1][name]))
            registration = register_photos(pair.folders, pair.findings)
            found = _without_rejected(_changes(pair, registration), pair, decided)
            gsd, scale_problem = _scale(*pair.findings, registration)
            pair_rows.append(_pair_row(pair, registration, scale_problem))
            rows += [_change_row(pair, change, gsd) for change in found]
            drawn.append(
                {
                    **pair_rows[-1],
                    "counts": Counter(change.status for change in found),
                    "images": lay_over(pair.folders, pair.findings, registration, found),
                }
            )
        write_table(folder / "changes.csv", CHANGE_COLUMNS, rows)
        write_table(folder / "pairs.csv", tuple(pair_rows[0]), pair_rows)
        totals = {status: sum(row["status"] == status for row in rows) for status in STATUSES}
        about = {
            "pairs": len(named),
            "not_registered": sum(bool(row["problem"]) for row in pair_rows),
            "scale_problems": sum(bool(row["scale_problem"]) for row in pair_rows),
            **totals,
            "only_old": sorted(photos[0].keys() - {old_name for old_name, _ in named}),
            "only_new": sorted(photos[1].keys() - {name for _, name in named}),
        }
        write_json(folder / "compare.json", about)
        write_compare_page(folder / "compare.html", f"{old.name} and {new.name}", drawn, rows, about)
    return {
        "pairs": f"{len(named)}, of which {about['not_registered']} could not be laid over each other",
        "cracks": ", ".join(f"{count} {status}" for status, count in totals.items()),
        "page": out / "compare.html",
    }


def _refuse_unlike(old: FinishedSurvey, new: FinishedSurvey) -> None:
    """What another network or another rule does not find is no change of the wall."""
    used, other = ({**one.about["values"], "model": one.about["model_sha256"][:12]} for one in (old, new))
    for name in ("model", *(field.name for field in fields(Rules))):
        if used.get(name) != other.get(name):
            raise InputError(
                f"{old.root} was inspected with {name} {used.get(name)}, {new.root} with {other.get(name)}; expected "
                "the same, because each finds other cracks; inspect one of them again with the other's model and values"
            )


def _read_pairs(path: Path, old: Mapping[str, Path], new: Mapping[str, Path]) -> list[tuple[str, str]]:
    known_old, known_new = names_by_key(old), names_by_key(new)
    named = (
        (match_name(row["old"], known_old, f"{path}: old"), match_name(row["new"], known_new, f"{path}: new"))
        for row in read_user_table(path, ("old", "new"))
    )
    pairs = list(dict.fromkeys(named))
    twice = [name for name, number in Counter(name for _, name in pairs).items() if number > 1]
    if twice or not pairs:
        problem = f"{twice[0]} has several old photos, expected one" if twice else "no row with a pair"
        raise InputError(f"{path}: {problem}; fix the table")
    return pairs


def _same_names(old: Mapping[str, Path], new: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Pairs of one name, in whatever case and Unicode form it came off the disks."""
    by_key = names_by_key(old)
    alike = {name: by_key.get(name_key(name), []) for name in new}
    pairs = [
        (name if name in old else found[0], name)
        for name, found in sorted(alike.items())
        if name in old or len(found) == 1
    ]
    if not pairs:
        raise InputError(
            f"no photo of one survey has its name in the other (for example {min(old)} and {min(new)}); "
            "give --pairs with a table old,new"
        )
    return pairs


def _changes(pair: Pair, registration: Registration) -> list[Change]:
    if registration.reason:
        return [
            Change("unclear", number, crack.length_px, 0.0, crack.width_px, None)
            for number, crack in enumerate(pair.findings[1].cracks)
        ]
    old, new = (_side(one, folder) for one, folder in zip(pair.findings, pair.folders, strict=True))
    return changes(old, new, registration.old_to_new, registration.error_px)


def _without_rejected(
    found: Sequence[Change], pair: Pair, decided: Sequence[Mapping[str, list[Decision]]]
) -> list[Change]:
    old, new = (
        _rejected(findings, by_hash.get(findings.sha256, ()))
        for findings, by_hash in zip(pair.findings, decided, strict=True)
    )
    return [
        replace(one, status="rejected") if one.crack in (old if one.status == "vanished" else new) else one
        for one in found
    ]


def _rejected(findings: Findings, decisions: Sequence[Decision]) -> set[int]:
    """Places in the list of cracks of what a person rejected, or called a joint or the like."""
    return {
        finding.crack.number - 1
        for finding, one in matched(traced(findings), decisions)[0]
        if finding.crack and one and status(one) != "undecided" and not one.is_accepted_crack
    }


def _side(findings: Findings, folder: Path) -> Side:
    size_hw = findings.height_px, findings.width_px
    possible = np.zeros(size_hw, np.uint8)
    if findings.cracks or (folder / "possible.png").is_file():
        possible = (read_picture(folder / "possible.png", cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)
    doubt = np.zeros(size_hw, np.bool_)
    low, high = findings.uncertain
    for x0, y0, x1, y1, prob in findings.blocks:
        doubt[y0:y1, x0:x1] |= low <= prob < high and prob < findings.threshold
    cracks = findings.cracks
    return Side([crack.length_px for crack in cracks], [crack.samples for crack in cracks], possible, doubt)


def _pair_row(pair: Pair, registration: Registration, scale_problem: str) -> dict[str, Any]:
    old, new = ("" if one.gsd_mm_per_px is None else one.gsd_mm_per_px for one in pair.findings)
    return {
        "old": pair.old_name,
        "new": pair.name,
        "matches": registration.num_matches,
        "error_px": "" if np.isnan(registration.error_px) else round(registration.error_px, 2),
        "problem": registration.reason,
        "old_gsd_mm_per_px": old,
        "new_gsd_mm_per_px": new,
        "scale_problem": scale_problem,
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
    photo = pair.old_name if change.status == "vanished" else pair.name
    crack = crack_name(photo, change.crack + 1)
    row: dict[str, Any] = {"photo": pair.name, "status": change.status, "crack": crack}
    for name in MEASURES:
        value = getattr(change, f"{name}_px")
        row[f"{name}_px"] = "" if value is None else round(value, 2)
        row[f"{name}_mm"] = "" if value is None or gsd is None else round(value * gsd, 3)
    return row
