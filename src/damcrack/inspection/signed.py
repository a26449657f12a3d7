"""The report to sign: what a person accepted in a survey, what was rejected, and what nobody has decided yet.

OUT/report.html, OUT/photos/    the page and the photos with accepted findings, drawn on in the page alone
OUT/report.pdf                  the same page, printed; if a browser is there
OUT/decisions.json              the decisions that it rests on, with those that were carried over
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from damcrack import __version__
from damcrack.cracks.findings import Findings, encode_picture, preview, read_picture
from damcrack.files import (
    InputError,
    new_directory,
    read_csv,
    sha256_bytes,
    temporary_folder,
    write_bytes,
    write_json,
)
from damcrack.inspection.decisions import FILE, Decision, as_json, by_photo, decisions_on, status
from damcrack.inspection.matching import SAME_SHARE, Finding, asked, carried_over, matched, overlap
from damcrack.inspection.overview import Stop, overview
from damcrack.inspection.printing import check_place, find_browser, print_page
from damcrack.inspection.report import Lengths, environment, in_words
from damcrack.inspection.survey_folder import FinishedSurvey
from damcrack.run import Run

PICTURE_PX, PICTURE_QUALITY = 3000, 90  # 300 dots per inch over the width of a page
LEGEND = {"crack": "accepted findings", "unsure": "not decided", "no-crack": "none"}


@dataclass(frozen=True)
class TitleBlock:
    """What stands above the report; what is empty is left as a line to fill in by hand."""

    structure: str = ""
    client: str = ""
    date: str = ""
    inspector: str = ""
    camera: str = ""
    scale: str = ""


@dataclass(frozen=True)
class Row:
    """A finding of a photo with what was decided on it; `number` counts those that were accepted."""

    photo: str
    gsd: float | None
    finding: Finding
    decision: Decision
    number: int = 0

    def words(self, measure: str) -> str:
        """Length or width in words; empty for a block."""
        crack = self.finding.crack
        return "" if crack is None else in_words(getattr(crack, f"{measure}_px"), self.gsd)

    @property
    def widest(self) -> float:
        """In millimetres where the photo has a scale, else in pixels."""
        return self.finding.crack.width_max_px * (self.gsd or 1.0) if self.finding.crack else 0.0

    @property
    def tag(self) -> list[int]:
        """Where the number of a finding stands: in the middle of its longest line, or in the block's corner."""
        lines = self.finding.lines
        if not lines:
            return list(self.finding.box_xyxy[:2])
        longest = max(lines, key=lambda line: float(np.hypot(*np.diff(line, axis=0).T).sum()))
        place: list[int] = longest[len(longest) // 2].tolist()
        return place


@dataclass
class Sheet:
    """One photo with accepted findings, and its file beside the page."""

    photo: str
    size_wh: tuple[int, int]
    file: str
    rows: list[Row] = field(default_factory=list)


@dataclass
class Judged:
    """All findings of a survey by what was decided on them; `lost` are decisions that fit no finding."""

    sheets: list[Sheet] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    undecided: Counter[str] = field(default_factory=Counter)
    lost: list[Decision] = field(default_factory=list)
    num_carried: int = 0
    stops: list[Stop] = field(default_factory=list)
    gsds: list[float | None] = field(default_factory=list)

    @property
    def accepted(self) -> list[Row]:
        """All accepted findings, in their order."""
        return [row for sheet in self.sheets for row in sheet.rows]


def report(
    survey: Path,
    out: Path,
    block: TitleBlock,
    run: Run,
    decisions: Path | None = None,
    previous: Path | None = None,
) -> dict[str, object]:
    """Write the report to sign of a survey into a folder, or as one PDF if `out` ends in .pdf.

    `decisions` is decisions.json beside the survey if it is not given; those of the survey `previous` fill what they
    leave open, to be confirmed.

    Raises:
        InputError: no finished survey, no or damaged decisions, none on its photos, no browser for a PDF.
    """
    browser, as_pdf = find_browser(), out.suffix.casefold() == ".pdf"
    finished = FinishedSurvey.read(survey)
    decided = _decisions(finished, decisions, previous, run)
    judged = judge(list(finished.folders.values()), decided)
    if as_pdf and browser is None:
        raise InputError(
            f"no browser to print {out} with; install Chromium, Chrome or Edge, or give --out a folder"
        )
    if as_pdf:
        check_place(out)
    with temporary_folder() if as_pdf else new_directory(out, "report") as folder:
        _write(folder, finished, judged, decided, block)
        if browser:
            print_page(folder / "report.html", out if as_pdf else folder / "report.pdf", browser)
        else:
            run.say("no browser is here to print report.pdf; open report.html in one and print it")
    return _summary(judged, out if as_pdf else out / "report.html")


def _decisions(survey: FinishedSurvey, given: Path | None, previous: Path | None, run: Run) -> list[Decision]:
    is_given = given or (survey.root / FILE).is_file() or not previous
    decided = decisions_on(survey, given) if is_given else []
    if previous:
        own = by_photo([one for one in decided if one.status != "undecided"])
        carried = carried_over(FinishedSurvey.read(previous), list(survey.folders.values()), run)
        decided += [
            one
            for one in carried
            if not any(overlap(one, other) >= SAME_SHARE for other in own.get(one.sha256, ()))
        ]
    return decided


def judge(folders: Sequence[Path], decisions: Sequence[Decision]) -> Judged:
    """Sort all findings of a survey by the decisions on them; accepted ones are numbered through."""
    judged, waiting, number = Judged(), by_photo(decisions), 0
    for folder in folders:
        findings = Findings.read(folder)
        found, _ = asked(findings)
        pairs, lost = matched(found, waiting.pop(findings.sha256, []))
        judged.lost += [one for one in lost if one.status != "undecided"]
        size_wh = findings.width_px, findings.height_px
        sheet = Sheet(findings.photo, size_wh, f"photos/{folder.name}.jpg")
        for finding, one in pairs:
            judged.num_carried += bool(one and one.carried)
            if one is None or status(one) == "undecided":
                judged.undecided[findings.photo] += 1
            elif one.status == "rejected":
                judged.rejected.append(Row(findings.photo, findings.gsd_mm_per_px, finding, one))
            else:
                number += 1
                sheet.rows.append(Row(findings.photo, findings.gsd_mm_per_px, finding, one, number))
        if sheet.rows:
            judged.sheets.append(sheet)
        judged.stops.append(_stop(findings, sheet, judged))
        judged.gsds.append(findings.gsd_mm_per_px)
    judged.lost += [one for rest in waiting.values() for one in rest if one.status != "undecided"]
    return judged


def _stop(findings: Findings, sheet: Sheet, judged: Judged) -> Stop:
    """The photo on the map, by what was decided."""
    cracks = [(row.finding.crack, row.gsd or 1.0) for row in sheet.rows]
    length = sum(crack.length_px * gsd for crack, gsd in cracks if crack)
    state = "crack" if sheet.rows else "unsure" if findings.photo in judged.undecided else "no crack"
    return Stop(len(judged.stops), findings.photo, state, findings.lon_lat, length)


def totals_by_class(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line per class: how many were accepted, by severity, how long together and how wide at most."""
    totals = []
    for label in dict.fromkeys(row.decision.label for row in rows):
        of_class = [row for row in rows if row.decision.label == label]
        lengths = Lengths()
        for row in of_class:
            if row.finding.crack:
                lengths.add(row.finding.crack.length_px, row.gsd)
        widest = [
            max((row for row in of_class if bool(row.gsd) == in_mm), key=lambda row: row.widest, default=None)
            for in_mm in (True, False)
        ]
        totals.append(
            {
                "label": label,
                "num": len(of_class),
                "severities": Counter(row.decision.severity or "not set" for row in of_class),
                "length": str(lengths),
                "widest": " and ".join(filter(None, (row.words("width_max") for row in widest if row))),
            }
        )
    return sorted(totals, key=lambda one: (one["label"] != "crack", -one["num"], one["label"]))


def _write(
    out: Path, survey: FinishedSurvey, judged: Judged, decided: Sequence[Decision], block: TitleBlock
) -> None:
    write_json(out / FILE, as_json(decided))
    (out / "photos").mkdir(exist_ok=True)
    for sheet in judged.sheets:
        picture = read_picture(survey.root / Path(sheet.file).with_suffix("") / "detail.jpg")
        write_bytes(out / sheet.file, encode_picture(preview(picture, PICTURE_PX), PICTURE_QUALITY))
    template = environment().get_template("signed.html.j2")
    page = template.render(
        title=survey.about["title"],
        block=asdict(block) | {"scale": block.scale or _scale(judged.gsds)},
        software=f"damcrack {__version__}",
        model=f"{survey.about['model']['name']}, sha256 {survey.about['model_sha256']}",
        decisions_sha256=sha256_bytes((out / FILE).read_bytes()),
        set_aside=read_csv(survey.root / "set-aside.csv"),
        judged=judged,
        totals=totals_by_class(judged.accepted),
        people=sorted({one.who for one in decided if one.who}),
        **overview(judged.stops, LEGEND, len({gsd is None for gsd in judged.gsds}) > 1),
    )
    # A title block from a terminal that is not UTF-8 may hold half a character.
    write_bytes(out / "report.html", page.encode(errors="backslashreplace"))


def _scale(gsds: Sequence[float | None]) -> str:
    """The ground sampling distances of all photos in words."""
    known = sorted({round(gsd, 3) for gsd in gsds if gsd})
    if not known:
        return "unknown: measures are in pixels"
    ends = known if len(known) < 3 else (known[0], known[-1])
    text = " to ".join(f"{gsd:g}" for gsd in ends) + " mm per pixel"
    missing = sum(gsd is None for gsd in gsds)
    return f"{text}, unknown for {missing} of {len(gsds)} photos" if missing else text


def _summary(judged: Judged, page: Path) -> dict[str, object]:
    num = len(judged.accepted), len(judged.rejected), judged.undecided.total()
    summary: dict[str, object] = {"findings": f"{num[0]} accepted, {num[1]} rejected, {num[2]} not decided"}
    if judged.num_carried:
        summary["carried over"] = f"{judged.num_carried}, to be confirmed in the page of the survey"
    if judged.lost:
        summary["without a finding"] = f"{len(judged.lost)} decisions, listed in the report"
    return summary | {"report": page}
