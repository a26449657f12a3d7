"""The report to sign: what a person accepted in a survey, what was rejected, and what nobody has decided yet.

OUT/report.html, OUT/photos/    the page and the photos with accepted findings, drawn on in the page alone
OUT/report.pdf                  the same page, printed; if a browser is there
OUT/decisions.json              the decisions that it rests on, with those that were carried over
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from damcrack import __version__
from damcrack.cracks.findings import Findings, Verdict, preview, read_picture, survey_folders
from damcrack.files import (
    InputError,
    new_directory,
    read_json,
    sha256_bytes,
    temporary_folder,
    write_bytes,
    write_json,
)
from damcrack.inspection.carry import carried_over
from damcrack.inspection.decisions import (
    FILE,
    Decision,
    Finding,
    as_json,
    asked,
    by_photo,
    matched,
    read_decisions,
    status,
)
from damcrack.inspection.overview import Stop, camera_map, strip
from damcrack.inspection.printing import check_place, find_browser, print_page
from damcrack.inspection.report import Lengths, environment, measure
from damcrack.run import Run

PICTURE_PX, PICTURE_QUALITY = 3000, 90  # 300 dots per inch over the width of a page


@dataclass(frozen=True)
class TitleBlock:
    """What stands above the report; what is empty is left as a line to fill in by hand."""

    structure: str = ""
    client: str = ""
    date: str = ""
    inspector: str = ""
    camera: str = ""
    scale: str = ""


@dataclass
class Sheet:
    """One photo with accepted findings: its file beside the page, numbered findings as shapes and texts."""

    findings: Findings
    file: str
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Judged:
    """All findings of a survey by what was decided on them; `lost` are decisions that fit no finding."""

    sheets: list[Sheet] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    lost: list[Decision] = field(default_factory=list)
    used: list[Decision] = field(default_factory=list)
    num_carried: int = 0
    stops: list[Stop] = field(default_factory=list)


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
    browser = find_browser()
    folders = survey_folders(survey)
    decided = _decisions(survey, decisions, previous, folders, run)
    judged = judge(folders, decided)
    if out.suffix.casefold() == ".pdf":
        if browser is None:
            raise InputError(
                f"no browser to print {out} with; install Chromium, Chrome or Edge, or give --out a folder"
            )
        check_place(out)
        with temporary_folder() as folder:
            _write(folder, survey, folders, judged, block)
            print_page(folder / "report.html", out, browser)
        return _summary(judged, out)
    with new_directory(out, "report") as folder:
        _write(folder, survey, folders, judged, block)
        if browser:
            print_page(folder / "report.html", folder / "report.pdf", browser)
        else:
            run.say("no browser is here to print report.pdf; open report.html in one and print it")
    return _summary(judged, out / "report.html")


def _decisions(
    survey: Path, given: Path | None, previous: Path | None, folders: Sequence[Path], run: Run
) -> list[Decision]:
    path = given or survey / FILE
    decided = read_decisions(path) if given or path.is_file() or not previous else []
    hashes = {Findings.read(folder).sha256 for folder in folders}
    if decided and not any(one.sha256 in hashes for one in decided):
        raise InputError(
            f"{path} decides on photos that {survey} does not have; give the decisions on this survey"
        )
    if previous:
        own = {(one.sha256, one.box_xyxy) for one in decided if one.status != "undecided"}
        decided += [
            one for one in carried_over(previous, folders, run) if (one.sha256, one.box_xyxy) not in own
        ]
    return decided


def judge(folders: Sequence[Path], decisions: Sequence[Decision]) -> Judged:
    """Sort all findings of a survey by the decisions on them; accepted ones are numbered through."""
    judged, waiting, number = Judged(used=list(decisions)), by_photo(decisions), 0
    for folder in folders:
        findings = Findings.read(folder)
        found, _ = asked(findings)
        on_each, lost = matched(found, waiting.pop(findings.sha256, []))
        judged.lost += [one for one in lost if one.status != "undecided"]
        sheet = Sheet(findings, f"photos/{folder.name}.jpg")
        for finding, one in zip(found, on_each, strict=True):
            judged.num_carried += bool(one and one.carried)
            if one is None or status(one) == "undecided":
                judged.undecided.append(findings.photo)
            elif one.status == "rejected":
                judged.rejected.append(_row(findings, finding, one))
            else:
                number += 1
                sheet.rows.append({"number": number, **_row(findings, finding, one)})
        if sheet.rows:
            judged.sheets.append(sheet)
        judged.stops.append(_stop(len(judged.stops), sheet, findings.photo in judged.undecided[-1:]))
    judged.lost += [one for rest in waiting.values() for one in rest if one.status != "undecided"]
    return judged


def _stop(number: int, sheet: Sheet, is_open: bool) -> Stop:
    """The photo on the map, by what was decided."""
    length = sum(row["length_px"] * (row["gsd"] or 1.0) for row in sheet.rows)
    state: Verdict = "crack" if sheet.rows else "unsure" if is_open else "no crack"
    return Stop(number, sheet.findings.photo, state, sheet.findings.lon_lat, length)


def _row(findings: Findings, finding: Finding, decision: Decision) -> dict[str, Any]:
    gsd = findings.gsd_mm_per_px
    factor, unit = (gsd, "mm") if gsd else (1.0, "px")
    crack = finding.crack
    return {
        "photo": findings.photo,
        "kind": "line" if crack else "block",
        "box": finding.box_xyxy,
        "tag": _tag(finding),
        "lines": [" ".join(f"{x},{y}" for x, y in line.tolist()) for line in finding.lines],
        "length": measure(crack.length_px * factor, unit) if crack else "",
        "width": measure(crack.width_px * factor, unit) if crack else "",
        "widest": measure(crack.width_max_px * factor, unit) if crack else "",
        "length_px": crack.length_px if crack else 0.0,
        "widest_px": crack.width_max_px if crack else 0.0,
        "gsd": gsd,
        "decision": decision,
    }


def _tag(finding: Finding) -> list[int]:
    """Where the number of a finding stands: in the middle of its longest line, or in the block's corner."""
    if not finding.lines:
        return list(finding.box_xyxy[:2])
    lengths = [float(np.hypot(*np.diff(line, axis=0).T).sum()) for line in finding.lines]
    longest = finding.lines[int(np.argmax(lengths))]
    place: list[int] = longest[len(longest) // 2].tolist()
    return place


def totals_by_class(judged: Judged) -> list[dict[str, Any]]:
    """One line per class: how many were accepted, by severity, how long together and how wide at most."""
    rows = [row for sheet in judged.sheets for row in sheet.rows]
    totals = []
    for label in dict.fromkeys(row["decision"].label for row in rows):
        of_class = [row for row in rows if row["decision"].label == label]
        lengths = Lengths()
        for row in of_class:
            if row["kind"] == "line":
                lengths.add(row["length_px"], row["gsd"])
        widest = [
            max((row for row in of_class if bool(row["gsd"]) == in_mm), key=_width, default=None)
            for in_mm in (True, False)
        ]
        totals.append(
            {
                "label": label,
                "num": len(of_class),
                "severities": Counter(row["decision"].severity or "not set" for row in of_class),
                "length": str(lengths),
                "widest": " and ".join(row["widest"] for row in widest if row and row["widest"]),
            }
        )
    return sorted(totals, key=lambda one: (one["label"] != "crack", -one["num"], one["label"]))


def _width(row: dict[str, Any]) -> float:
    return float(row["widest_px"] * (row["gsd"] or 1.0))


def _write(out: Path, survey: Path, folders: Sequence[Path], judged: Judged, block: TitleBlock) -> None:
    about = read_json(survey / "survey.json", "run `damcrack inspect` again")
    used = as_json(judged.used)
    write_json(out / FILE, used)
    (out / "photos").mkdir(exist_ok=True)
    for sheet in judged.sheets:
        _write_picture(survey / "photos" / Path(sheet.file).stem / "detail.jpg", out / sheet.file)
    page = (
        environment()
        .get_template("signed.html.j2")
        .render(
            title=about["title"],
            block=asdict(block) | {"scale": block.scale or _scale(folders)},
            software=f"damcrack {__version__}",
            model=f"{about['model']['name']}, sha256 {about['model_sha256']}",
            decisions_sha256=sha256_bytes((out / FILE).read_bytes()),
            num_photos=len(folders),
            set_aside=_set_aside(survey),
            judged=judged,
            camera_map=camera_map(judged.stops),
            strip=strip(judged.stops),
            legend={"crack": "accepted findings", "unsure": "not decided", "no-crack": "none"},
            undecided=Counter(judged.undecided),
            totals=totals_by_class(judged),
            num_accepted=sum(len(sheet.rows) for sheet in judged.sheets),
            people=sorted({one.who for one in judged.used if one.who}),
        )
    )
    write_bytes(out / "report.html", page.encode())


def _set_aside(survey: Path) -> list[dict[str, str]]:
    text = (survey / "set-aside.csv").read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


def _write_picture(source: Path, out: Path) -> None:
    rgb = preview(read_picture(source), PICTURE_PX)
    write_bytes(out, bytes(simplejpeg.encode_jpeg(rgb.copy(), PICTURE_QUALITY, "RGB", "420")))


def _scale(folders: Sequence[Path]) -> str:
    """The ground sampling distances of all photos in words."""
    gsds = [Findings.read(folder).gsd_mm_per_px for folder in folders]
    known = sorted({round(gsd, 3) for gsd in gsds if gsd})
    if not known:
        return "unknown: measures are in pixels"
    parts = [
        " to ".join(f"{gsd:g}" for gsd in (known if len(known) < 3 else (known[0], known[-1])))
        + " mm per pixel"
    ]
    missing = sum(gsd is None for gsd in gsds)
    return ", ".join(parts + [f"unknown for {missing} of {len(gsds)} photos"] * bool(missing))


def _summary(judged: Judged, page: Path) -> dict[str, object]:
    accepted = sum(len(sheet.rows) for sheet in judged.sheets)
    summary: dict[str, object] = {
        "findings": f"{accepted} accepted, {len(judged.rejected)} rejected, {len(judged.undecided)} not decided"
    }
    if judged.num_carried:
        summary["carried over"] = f"{judged.num_carried}, to be confirmed in the page of the survey"
    if judged.lost:
        summary["without a finding"] = f"{len(judged.lost)} decisions, listed in the report"
    return summary | {"report": page}
