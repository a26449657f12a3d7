"""The file of decisions: SURVEY/decisions.json, written by the page.

A decision holds its finding's geometry and its photo's SHA-256, so it fits the same finding of any later survey:
numbers change with the model, places do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from damcrack.cracks.measure import Line
from damcrack.files import InputError, read_json
from damcrack.inspection.survey_folder import FinishedSurvey

FILE, FORMAT, VERSION = "decisions.json", "damcrack decisions", 1
STATUSES = ("accepted", "rejected", "undecided")
CLASSES = ("crack", "joint", "edge", "stain", "other")
SEVERITIES = ("", "minor", "moderate", "severe")
MAX_BYTES, MAX_TEXT, MAX_PX = 64 * 2**20, 4000, 10**6

Kind = Literal["crack", "block"]
Box = tuple[int, int, int, int]


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


def decisions_on(survey: FinishedSurvey, given: Path | None) -> list[Decision]:
    """The decisions on a survey: `given`, or the file beside it.

    Raises:
        InputError: they cannot be read, or none of them is on a photo of the survey.
    """
    path = given or survey.root / FILE
    decided = read_decisions(path)
    if decided and not any(one.sha256 in survey.hashes for one in decided):
        raise InputError(
            f"{path} decides on photos that {survey.root} does not have; give the decisions on this survey"
        )
    return decided


def by_photo(decisions: Sequence[Decision]) -> dict[str, list[Decision]]:
    """Decisions by the SHA-256 of their photo."""
    found: dict[str, list[Decision]] = {}
    for one in decisions:
        found.setdefault(one.sha256, []).append(one)
    return found


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
        values = read_json(path, "save it again from the page")
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; give the file that the page saved"
        ) from error
    if values.get("format") != FORMAT or not isinstance(values.get("decisions"), list):
        raise InputError(f"{path} is not a file of decisions; give the decisions.json that the page saved")
    if values.get("version") != VERSION:
        raise InputError(
            f"{path} has version {values.get('version')!r}, expected {VERSION}; use the damcrack that wrote it"
        )
    found = list[Decision]()
    for number, one in enumerate(values["decisions"], 1):
        try:
            found.append(_decision(one))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}: decision {number}: {error}; expected what the page saves; save it again"
            ) from error
    _refuse_contradictions(path, found)
    return found


def _decision(values: Any) -> Decision:
    if not isinstance(values, dict) or not values.keys() >= {"kind", "box_px", "status"}:
        raise ValueError("it has no kind, box_px or status")
    texts = {name: _text(name, values.get(name, "")) for name in ("photo", "sha256", "note", "who", "when")}
    return Decision(
        kind=cast(Kind, _one_of("kind", values["kind"], ("crack", "block"))),
        box_xyxy=cast(Box, _pixels("box_px", values["box_px"], 4)),
        lines=_lines(values.get("lines_px", [])),
        status=_one_of("status", values["status"], STATUSES),
        label=_one_of("class", values.get("class", "crack"), CLASSES),
        severity=_one_of("severity", values.get("severity", ""), SEVERITIES),
        carried=values.get("carried") is True,
        **texts,
    )


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{name} is not a text of at most {MAX_TEXT} characters")
    return value.encode(errors="replace").decode()  # half an emoji cannot be written


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


def _lines(values: Any) -> tuple[Line, ...]:
    if not isinstance(values, list) or not all(isinstance(line, list) for line in values):
        raise ValueError("lines_px is not a list of lines")
    points = ([_pixels("lines_px", point, 2) for point in line] for line in values)
    return tuple(np.array(line, np.int64).reshape(-1, 2) for line in points)


def _refuse_contradictions(path: Path, decisions: Sequence[Decision]) -> None:
    known: dict[tuple[str, str, Box], str] = {}
    for one in decisions:
        place = one.sha256, one.kind, one.box_xyxy
        said = f"accepted as {one.label}" if one.status == "accepted" else one.status
        if known.setdefault(place, said) != said:
            raise InputError(
                f"{path}: the {one.kind} at {one.box_xyxy} of {one.photo} lies in both: "
                f"{known[place]} and {said}; remove one of the two decisions"
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
