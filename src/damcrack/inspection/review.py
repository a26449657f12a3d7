"""Decisions as labels: blocks that hold accepted or rejected findings become a source of ready tiles.

OUT/Positive/, OUT/Negative/    blocks with a crack, and blocks that only look as if
OUT/groups.csv                  blocks of one photo form one group, so that they stay on one side of a split
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from damcrack.cracks.findings import Findings, read_picture
from damcrack.data.layouts import GROUPS_FILE
from damcrack.data.photo import encode_jpeg
from damcrack.files import InputError, new_directory, write_bytes, write_csv
from damcrack.inspection.decisions import FILE, Box, Decision, by_photo, decisions_on
from damcrack.inspection.matching import STEP_PX, Finding, asked, inside, iou, matched, points
from damcrack.inspection.survey import DETAIL_PX
from damcrack.inspection.survey_folder import FinishedSurvey

LABELS = {"crack": "Positive", "no crack": "Negative"}
QUALITY = 95
MIN_LINE_SHARE = 0.25  # of a block's side that a line must cross to label the block
SAME_BLOCK_IOU = 0.5


def take_back(root: Path, out: Path, decisions: Path | None = None) -> dict[str, object]:
    """Make a source of ready tiles from the decisions on a survey.

    Accepted cracks label the blocks that they cross "crack"; findings that were rejected, or accepted as a joint, an
    edge, a stain, label theirs "no crack", unless an undecided finding lies there too. What was carried over counts
    once it is confirmed.

    Raises:
        InputError: no survey, no decisions, none of its photos, or a block that is judged both ways.
    """
    survey = FinishedSurvey.read(root)
    decided = by_photo([one for one in decisions_on(survey, decisions) if not one.carried])
    groups, num, too_large = list[dict[str, str]](), dict.fromkeys(LABELS, 0), list[str]()
    with new_directory(out, "labelled-blocks") as folder:
        for label in LABELS.values():
            (folder / label).mkdir()
        for photo in survey.folders.values():
            findings = Findings.read(photo)
            labels = block_labels(findings, decided.pop(findings.sha256, []))
            if not labels:
                continue
            if max(findings.width_px, findings.height_px) > DETAIL_PX:
                too_large.append(findings.photo)
                continue
            for name, label, encoded in _tiles(photo, findings, labels):
                write_bytes(folder / LABELS[label] / name, encoded)
                groups.append({"file": f"{LABELS[label]}/{name}", "group": findings.sha256[:12]})
                num[label] += 1
        if not groups:
            raise InputError(
                f"{decisions or root / FILE} decides nothing in photos of {root}; decide in its report.html and save"
            )
        write_csv(folder / GROUPS_FILE, ("file", "group"), groups)
    summary: dict[str, object] = {"taken": f"{num['crack']} crack, {num['no crack']} no-crack blocks"}
    if decided:
        summary["left out"] = f"decisions on {len(decided)} photos that this survey does not have"
    if too_large:
        summary["too large"] = (
            f"{', '.join(too_large)}: above {DETAIL_PX} px the survey has no picture of full size; cut such photos up"
        )
    return summary | {
        "train on them": f"add `review: {out}` to photos.sources in params.yaml, then `damcrack snapshot photos`"
    }


def _tiles(folder: Path, findings: Findings, labels: Mapping[Box, str]) -> Iterator[tuple[str, str, bytes]]:
    """File name, label and JPEG of each labelled block of one photo."""
    rgb = read_picture(folder / "detail.jpg")
    for (x0, y0, x1, y1), label in labels.items():
        pixels = np.ascontiguousarray(rgb[y0:y1, x0:x1])
        if pixels.shape[:2] == (y1 - y0, x1 - x0):
            name = f"{findings.sha256[:12]}-{x0:05d}-{y0:05d}.jpg"
            yield name, label, encode_jpeg(pixels, QUALITY, full_colour=True)


def block_labels(findings: Findings, decisions: Sequence[Decision]) -> dict[Box, str]:
    """Label "crack" or "no crack" of each block of one photo that the decisions say something about.

    Raises:
        InputError: a block was itself judged to hold no crack, and an accepted crack crosses it.
    """
    judged = [one for one in decisions if one.status != "undecided"]
    pairs, _ = matched(asked(findings)[0], judged)
    undecided = [finding for finding, one in pairs if one is None]
    cracks = [_Place(one) for one in judged if one.is_accepted_crack]
    others = [_Place(one) for one in judged if not one.is_accepted_crack]
    maybe = [*cracks, *map(_Place, undecided)]
    own = [one.box_xyxy for one in judged if one.kind == "block"]
    blocks = dict.fromkeys([*(block.box_xyxy for block in findings.blocks), *own])
    labels: dict[Box, str] = {}
    for block in blocks:
        if any(one.labels(block) for one in cracks):
            labels[block] = "crack"
            _refuse_both(findings.photo, block, others)
        elif any(one.labels(block) for one in others) and not any(one.touches(block) for one in maybe):
            labels[block] = "no crack"
    return labels


class _Place:
    """Where a finding lies among the blocks."""

    def __init__(self, one: Finding | Decision) -> None:
        self.one, self._along = one, points(one.lines)

    def labels(self, block: Box) -> bool:
        """Tell whether the label of the finding is that of the block."""
        if self.one.kind == "block":
            return self.one.box_xyxy == block
        return self._length_in(block) >= MIN_LINE_SHARE * (block[2] - block[0])

    def touches(self, block: Box) -> bool:
        """Tell whether the finding may show in the block at all."""
        if self.one.kind == "block":
            return iou(self.one.box_xyxy, block) > 0
        return self._length_in(block) > 0

    def _length_in(self, block: Box) -> float:
        return STEP_PX * int(inside(self._along, block).sum())


def _refuse_both(photo: str, block: Box, others: Sequence[_Place]) -> None:
    for other in others:
        if other.one.kind == "block" and iou(other.one.box_xyxy, block) >= SAME_BLOCK_IOU:
            raise InputError(
                f"the block at {block} of {photo} lies in both: a crack was accepted there, and the block was "
                "marked as having none; change one of the two decisions in report.html and save"
            )
