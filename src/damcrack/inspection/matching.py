"""The findings of a photo that a person decides on, and which decision fits which: by place, across surveys too."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from damcrack.cracks.findings import Block, Findings
from damcrack.cracks.measure import Crack, Line
from damcrack.inspection.align import Homography, moved, register_photos
from damcrack.inspection.decisions import Box, Decision, Kind, by_photo, decisions_on
from damcrack.inspection.survey_folder import FinishedSurvey
from damcrack.run import Run

MIN_CONFIDENCE = 0.5  # of a line by itself
# Of a photo, the most confident blocks first; the page says how many more there are.
MIN_BLOCK_PROB, ASKED_BLOCKS = 0.9, 3
STEP_PX = 4.0
NEAR_PX = 8.0  # two lines so close show one crack
SAME_SHARE = 0.5  # of the shorter line that must lie on the other one
UNMOVED_IOU = 0.9  # from here on the geometry is that which was decided on

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """A traced crack, or a block that may hold one and has no traced line; `crack` has the measures.

    `evidence` is the chance that it is a crack, in photos with and without cracks.
    """

    kind: Kind
    box_xyxy: Box
    lines: tuple[Line, ...]
    evidence: float
    crack: Crack | None = None


def traced(findings: Findings) -> list[Finding]:
    """All traced lines of a photo as findings."""
    chances = (1 / (1 + math.exp(-crack.evidence)) for crack in findings.cracks)
    return [
        Finding("crack", crack.box_xyxy, crack.lines, chance, crack)
        for crack, chance in zip(findings.cracks, chances, strict=True)
    ]


def asked(findings: Findings) -> tuple[list[Finding], int]:
    """Findings of one photo for a person to decide on, most evidence first, and how many fainter ones there are.

    A line is asked about if half of the clean photos of this size show none like it; in a photo that is called cracked,
    also if it is more likely a crack than not. Blocks come after them, without a line and close to certain.
    """
    has_crack = findings.verdict == "crack"
    lines = traced(findings)
    found = [
        one
        for one in sorted(lines, key=rank)
        if one.crack and (one.crack.confidence >= MIN_CONFIDENCE or (has_crack and one.evidence >= 0.5))
    ]
    blocks = [block for block in findings.blocks if block.crack_prob >= MIN_BLOCK_PROB]
    untraced = _without_line(blocks, findings.cracks) if lines else blocks
    untraced.sort(key=lambda block: -block.crack_prob)
    alone = [Finding("block", block.box_xyxy, (), block.crack_prob) for block in untraced[:ASKED_BLOCKS]]
    return found + alone, len(lines) - len(found) + len(untraced) - len(alone)


def rank(finding: Finding) -> tuple[bool, float]:
    """Sort key: most evidence first."""
    return finding.kind == "block", -finding.evidence


def _without_line(blocks: Sequence[Block], cracks: Sequence[Crack]) -> list[Block]:
    """Blocks in which no crack is traced, nor so close that it reaches into them with its width."""
    along = [points(crack.lines) for crack in cracks]
    reach = np.concatenate(
        [np.full(len(p), NEAR_PX + c.width_max_px) for p, c in zip(along, cracks, strict=True)]
    )
    xy = np.concatenate(along)
    low, high = xy + reach[:, None], xy - reach[:, None]
    return [
        block
        for block in blocks
        if not ((low >= block.box_xyxy[:2]) & (high < block.box_xyxy[2:])).all(axis=1).any()
    ]


def matched(
    findings: Sequence[Finding], decisions: Sequence[Decision]
) -> tuple[list[tuple[Finding, Decision | None]], list[Decision]]:
    """The findings of a photo, each with the decision on it, and the decisions of the photo that fit none.

    Where the geometry has changed since, the decision is carried: to be confirmed.
    """
    found, used = list[tuple[Finding, Decision | None]](), set[int]()
    for finding in findings:
        shares = {number: overlap(finding, one) for number, one in enumerate(decisions)}
        fitting = [number for number, share in shares.items() if share >= SAME_SHARE]
        best = max(fitting, key=lambda number: (shares[number], decisions[number].when), default=None)
        found.append((finding, None if best is None else _on(finding, decisions[best])))
        used.update(fitting)
    return found, [one for number, one in enumerate(decisions) if number not in used]


def _on(finding: Finding, decision: Decision) -> Decision:
    if finding.kind == decision.kind and iou(finding.box_xyxy, decision.box_xyxy) >= UNMOVED_IOU:
        return decision
    return carried(decision, finding)


def carried(decision: Decision, finding: Finding) -> Decision:
    """The decision as one on a similar finding, to be confirmed."""
    return replace(decision, kind=finding.kind, box_xyxy=finding.box_xyxy, lines=finding.lines, carried=True)


def overlap(one: Finding | Decision, other: Finding | Decision) -> float:
    """How far two findings are the same place, in [0, 1]; exactly the same geometry is 2."""
    if one.kind == other.kind and one.box_xyxy == other.box_xyxy:
        return 2.0
    if not _touch(one.box_xyxy, other.box_xyxy):
        return 0.0
    if one.kind == other.kind == "block":
        return iou(one.box_xyxy, other.box_xyxy)
    if "block" in (one.kind, other.kind):
        crack, block = (one, other) if one.kind == "crack" else (other, one)
        along = points(crack.lines)
        return float(inside(along, block.box_xyxy).mean()) if len(along) else 0.0
    short, long = sorted((points(one.lines), points(other.lines)), key=len)
    if not len(short):
        return 0.0
    parts = np.array_split(short, -(-len(short) // 256))
    near = [np.linalg.norm(part[:, None] - long[None], axis=2).min(axis=1) <= NEAR_PX for part in parts]
    return float(np.concatenate(near).mean())


def points(lines: Sequence[Line]) -> Points:
    """Points (P, 2) every few pixels along lines, in no order."""
    starts = np.concatenate([np.empty((0, 2)), *(line[:-1] for line in lines)])
    steps = np.concatenate([np.empty((0, 2)), *(line[1:] for line in lines)]) - starts
    num = np.maximum(1, np.rint(np.hypot(steps[:, 0], steps[:, 1]) / STEP_PX)).astype(int)
    part = (np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)) / np.repeat(num, num)
    along = np.repeat(starts, num, axis=0) + part[:, None] * np.repeat(steps, num, axis=0)
    return np.concatenate([along, *(line[-1:] for line in lines)])


def inside(along: Points, box: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Which points (P, 2) lie in a box, (P,)."""
    return np.asarray(((along >= box[:2]) & (along < box[2:])).all(axis=1), np.bool_)


def iou(one: Sequence[int], other: Sequence[int]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / max(1, sum(areas) - shared)


def _touch(one: Sequence[int], other: Sequence[int]) -> bool:
    return bool(
        max(one[0], other[0]) <= min(one[2], other[2]) + NEAR_PX
        and max(one[1], other[1]) <= min(one[3], other[3]) + NEAR_PX
    )


def carried_over(old: FinishedSurvey, new: Sequence[Path], run: Run) -> Iterator[Decision]:
    """Decisions on findings of the photos `new`, from OLD/decisions.json; photos are paired by content, then by name.

    Photos of other content are laid over each other as `damcrack compare` does; where that fails, nothing is carried.

    Raises:
        InputError: `old` has no decisions.
    """
    decided = by_photo([one for one in decisions_on(old, None) if one.status != "undecided"])
    before = [(folder, Findings.read(folder)) for folder in old.folders.values()]
    partners = {known.photo: (folder, known) for folder, known in before}
    partners |= {known.sha256: (folder, known) for folder, known in before}
    for folder in new:
        findings = Findings.read(folder)
        old_folder, known = partners.get(findings.sha256) or partners.get(findings.photo) or (None, None)
        if old_folder is None or known is None or known.sha256 not in decided:
            continue
        to_new = _old_to_new((old_folder, folder), (known, findings))
        if to_new is None:
            run.say(f"{findings.photo}: its decisions are not carried over: old and new photo do not fit")
            continue
        there = [_moved(one, to_new) for one in decided[known.sha256]]
        found, _ = asked(findings)
        for finding, one in matched(found, there)[0]:
            if one:
                yield replace(carried(one, finding), photo=findings.photo, sha256=findings.sha256)


def _old_to_new(folders: Sequence[Path], findings: Sequence[Findings]) -> Homography | None:
    if findings[0].sha256 == findings[1].sha256:
        return np.eye(3)
    registration = register_photos(folders, findings)
    return None if registration.reason else registration.old_to_new


def _moved(one: Decision, to_new: Homography) -> Decision:
    x0, y0, x1, y1 = one.box_xyxy
    corners = moved(to_new, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64))
    low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    lines = tuple(np.rint(moved(to_new, line.astype(np.float64))).astype(np.int64) for line in one.lines)
    return replace(one, box_xyxy=cast(Box, (*low.tolist(), *high.tolist())), lines=lines)
