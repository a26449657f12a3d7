"""Decisions of an older survey, taken over to the same cracks of a new one: marked as carried, to be confirmed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from damcrack.cracks.findings import Findings, survey_folders
from damcrack.inspection.align import Homography, moved, register_photos
from damcrack.inspection.decisions import (
    FILE,
    Box,
    Decision,
    asked,
    by_photo,
    carried,
    matched,
    read_decisions,
)
from damcrack.run import Run


def carried_over(old: Path, new: Sequence[Path], run: Run) -> Iterator[Decision]:
    """Decisions on findings of the photos `new`, from OLD/decisions.json; photos are paired by content, then by name.

    Photos of other content are laid over each other as `damcrack compare` does; where that fails, nothing is carried.

    Raises:
        InputError: `old` is no survey, or has no decisions.
    """
    decided = by_photo([one for one in read_decisions(old / FILE) if one.status != "undecided"])
    before = [(folder, Findings.read(folder)) for folder in survey_folders(old)]
    by_content = {findings.sha256: folder for folder, findings in before}
    by_name = {findings.photo: folder for folder, findings in before}
    for folder in new:
        findings = Findings.read(folder)
        partner = by_content.get(findings.sha256) or by_name.get(findings.photo)
        if partner is None or not (known := decided.get(Findings.read(partner).sha256)):
            continue
        to_new = _old_to_new(partner, folder)
        if to_new is None:
            run.say(f"{findings.photo}: its decisions are not carried over: old and new photo do not fit")
            continue
        there = [_moved(one, to_new) for one in known]
        found, _ = asked(findings)
        for finding, one in zip(found, matched(found, there)[0], strict=True):
            if one:
                yield replace(carried(one, finding), photo=findings.photo, sha256=findings.sha256)


def _old_to_new(old: Path, new: Path) -> Homography | None:
    findings = Findings.read(old), Findings.read(new)
    if findings[0].sha256 == findings[1].sha256:
        return np.eye(3)
    registration = register_photos((old, new), findings)
    return None if registration.reason else registration.old_to_new


def _moved(one: Decision, to_new: Homography) -> Decision:
    x0, y0, x1, y1 = one.box_xyxy
    corners = moved(to_new, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64))
    box = (*np.floor(corners.min(axis=0)).astype(int), *np.ceil(corners.max(axis=0)).astype(int))
    lines = tuple(np.rint(moved(to_new, line.astype(np.float64))).astype(np.int64) for line in one.lines)
    return replace(one, box_xyxy=cast(Box, tuple(int(value) for value in box)), lines=lines)
