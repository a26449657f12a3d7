"""What a person decides on, and the file of decisions: SURVEY/decisions.json, written by the page.

A decision holds its finding's geometry and its photo's SHA-256, so it fits the same finding of any later survey:
numbers change with the model, places do not.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from damcrack.cracks.evidence import chance, evidence
from damcrack.cracks.findings import Block, Findings
from damcrack.cracks.measure import Crack, Line
from damcrack.files import InputError

FILE, FORMAT, VERSION = "decisions.json", "damcrack decisions", 1
STATUSES = ("accepted", "rejected", "undecided")
CLASSES = ("crack", "joint", "edge", "stain", "other")
SEVERITIES = ("", "minor", "moderate", "severe")
MAX_BYTES, MAX_TEXT, MAX_PX = 64 * 2**20, 4000, 10**6
MIN_CONFIDENCE = 0.5  # of a line by itself
MIN_BLOCK_PROB, ASKED_BLOCKS = (
    0.9,
    3,
)  # of a photo, the most confident first; the page says how many more there are
STEP_PX = 4.0
NEAR_PX = 8.0  # two lines so close show one crack
SAME_SHARE = 0.5  # of the shorter line that must lie on the other one
UNMOVED_IOU = 0.9  # from here on the geometry is that which was decided on

Kind = Literal["crack", "block"]
Box = tuple[int, int, int, int]
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


@dataclass(frozen=True)
class Decision:
    """What one person said of one finding. `carried`: taken over from a similar finding, to be confirmed."""

    photo: str
    sha256: str
    kind: Kind
    box_xyxy: Box
    lines: tuple[Line, ...]
    status: str
    label: str = "crack"
    severity: str = ""
    note: str = ""
    who: str = ""
    when: str = ""
    carried: bool = False

    @property
    def is_accepted_crack(self) -> bool:
        """Joints, edges and stains are accepted as what they are, and are no cracks."""
        return self.status == "accepted" and self.label == "crack"


def status(decision: Decision | None) -> str:
    """A carried decision is somebody's word on a similar finding: it counts once it is confirmed."""
    return "undecided" if decision is None or decision.carried else decision.status


def traced(findings: Findings) -> list[Finding]:
    """All traced lines of a photo as findings."""
    return [Finding("crack", one.box_xyxy, one.lines, chance(evidence(one)), one) for one in findings.cracks]


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


def read_decisions(path: Path) -> list[Decision]:
    """Read a file of decisions.

    Raises:
        InputError: it is damaged, of another version, too large, or decides one finding twice.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path} is larger than {MAX_BYTES >> 20} MB, more than any survey needs; save it again"
            )
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; give the file that the page saved"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a complete JSON file ({error}); save it again from the page"
        ) from error
    if (
        not isinstance(values, dict)
        or values.get("format") != FORMAT
        or not isinstance(values.get("decisions"), list)
    ):
        raise InputError(f"{path} is not a file of decisions; give the decisions.json that the page saved")
    if values.get("version") != VERSION:
        raise InputError(
            f"{path} has version {values.get('version')!r}, expected {VERSION}; use the damcrack that wrote it"
        )
    found = [_decision(path, number, one) for number, one in enumerate(values["decisions"], 1)]
    _refuse_contradictions(path, found)
    return found


def _decision(path: Path, number: int, values: Any) -> Decision:
    try:
        return _checked(values)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: decision {number}: {error}; expected what the page saves; save it again"
        ) from error


def _checked(values: Any) -> Decision:
    if not isinstance(values, dict) or not values.keys() >= {"kind", "box_px", "status"}:
        raise ValueError("it has no kind, box_px or status")
    texts = {name: _text(name, values.get(name, "")) for name in ("photo", "sha256", "note", "who", "when")}
    return Decision(
        kind=cast(Kind, _one_of("kind", values["kind"], ("crack", "block"))),
        box_xyxy=cast(Box, _pixels("box_px", values["box_px"], 4)),
        lines=tuple(
            np.array([_pixels("lines_px", point, 2) for point in line], np.int64).reshape(-1, 2)
            for line in values.get("lines_px", [])
        ),
        status=_one_of("status", values["status"], STATUSES),
        label=_one_of("class", values.get("class", "crack"), CLASSES),
        severity=_one_of("severity", values.get("severity", ""), SEVERITIES),
        carried=values.get("carried") is True,
        **texts,
    )


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{name} is not a text of at most {MAX_TEXT} characters")
    return value


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(
            f"{name} is {str(value)[:40]!r}, none of {', '.join(one or 'empty' for one in allowed)}"
        )
    return str(value)


def _pixels(name: str, values: Any, num: int) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) != num or not all(type(one) is int for one in values):
        raise ValueError(f"{name} is not {num} whole numbers")
    if not all(-MAX_PX <= one <= MAX_PX for one in values):
        raise ValueError(f"{name} lies beyond any photo")
    return tuple(values)


def _refuse_contradictions(path: Path, decisions: Sequence[Decision]) -> None:
    known: dict[tuple[str, str, Box], str] = {}
    for one in decisions:
        place = one.sha256, one.kind, one.box_xyxy
        if known.setdefault(place, one.status) != one.status:
            raise InputError(
                f"{path}: the {one.kind} at {one.box_xyxy} of {one.photo} lies in both: "
                f"{known[place]} and {one.status}; remove one of the two decisions"
            )


def as_json(decisions: Sequence[Decision]) -> dict[str, Any]:
    """The file's content."""
    return {"format": FORMAT, "version": VERSION, "decisions": [decision_as_json(one) for one in decisions]}


def decision_as_json(one: Decision) -> dict[str, Any]:
    """One decision as the page reads and writes it."""
    return {
        "photo": one.photo,
        "sha256": one.sha256,
        "kind": one.kind,
        "box_px": list(one.box_xyxy),
        "lines_px": [line.tolist() for line in one.lines],
        "status": one.status,
        "class": one.label,
        "severity": one.severity,
        "note": one.note,
        "who": one.who,
        "when": one.when,
        "carried": one.carried,
    }


def matched(
    findings: Sequence[Finding], decisions: Sequence[Decision]
) -> tuple[list[Decision | None], list[Decision]]:
    """For each finding of a photo the decision on it, and the decisions of the photo that fit none.

    Where the geometry has changed since, the decision is carried: to be confirmed.
    """
    found = list[Decision | None]()
    used = set[int]()
    for finding in findings:
        shares = [overlap(finding, one) for one in decisions]
        best = max(
            range(len(shares)), key=lambda number: (shares[number], decisions[number].when), default=None
        )
        if best is None or shares[best] < SAME_SHARE:
            found.append(None)
            continue
        used |= {number for number, share in enumerate(shares) if share >= SAME_SHARE}
        found.append(_on(finding, decisions[best]))
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
        return share_inside(crack.lines, block.box_xyxy)
    short, long = sorted((points(one.lines), points(other.lines)), key=len)
    return _share_near(short, long)


def _share_near(short: Points, long: Points) -> float:
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


def share_inside(lines: Sequence[Line], box: Sequence[float]) -> float:
    """Share of lines that lies in a box."""
    along = points(lines)
    if not len(along):
        return 0.0
    return float(((along >= box[:2]) & (along < box[2:])).all(axis=1).mean())


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


def by_photo(decisions: Sequence[Decision]) -> dict[str, list[Decision]]:
    """Decisions by the SHA-256 of their photo."""
    found: dict[str, list[Decision]] = {}
    for one in decisions:
        found.setdefault(one.sha256, []).append(one)
    return found
