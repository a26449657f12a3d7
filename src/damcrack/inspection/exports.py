"""What a survey found, as files for other programs.

In the survey itself, with all traced lines: see inspection.tables and inspection.coco. By `damcrack export-survey`,
with the lines that an engineer accepted:
OUT/jpeg/NAME-HASH.jpg    a photo with its cracks and their widths, see inspection.drawings
OUT/dxf/NAME-HASH.dxf     its drawing for CAD
OUT/survey.gpkg           photos and cracks for GIS
OUT/cracks.csv, cracks.geojson, cracks.coco.json    as in the survey
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from damcrack.cracks.findings import Findings, read_picture
from damcrack.files import new_directory, write_bytes
from damcrack.inspection.coco import coco
from damcrack.inspection.decisions import FILE, Decision, by_photo, decisions_on, status
from damcrack.inspection.drawings import annotated, write_dxf
from damcrack.inspection.matching import asked, matched, traced
from damcrack.inspection.places import Unusable
from damcrack.inspection.spreadsheet import write_table
from damcrack.inspection.survey_folder import FinishedSurvey
from damcrack.inspection.tables import (
    DECIDED_COLUMNS,
    Add,
    crack_rows,
    geojson,
    geopackage,
    table,
    tables,
    together,
)
from damcrack.run import Run


def survey_files(root: Path, set_aside: Sequence[Unusable], join_px: int) -> AbstractContextManager[Add]:
    """Write tables, GeoJSON and COCO under `root`; pieces of a mask at most `join_px` apart are one crack."""
    rows = ({"file": one.name, "reason": one.reason} for one in set_aside)
    write_table(root / "set-aside.csv", ("file", "reason"), rows)
    coco_file = coco(root / "cracks.coco.json", join_px)
    return together([*tables(root), geojson(root / "cracks.geojson"), coco_file])


def export_survey(
    survey: Path,
    formats: Sequence[str],
    out: Path,
    run: Run,
    decisions: Path | None = None,
    undecided: bool = False,
) -> dict[str, object]:
    """Write the accepted lines of a survey in other formats; all traced ones where nobody has decided anything.

    `decisions` is decisions.json beside the survey if it is not given. With `undecided`, lines without a decision are
    written too; rejected ones never.

    Raises:
        InputError: it is no finished survey, a picture in it is damaged, or the decisions are on other photos.
    """
    finished = FinishedSurvey.read(survey)
    is_decided = decisions is not None or (survey / FILE).is_file()
    decided = by_photo(decisions_on(finished, decisions)) if is_decided else {}
    counts, join_px = Counter[str](), finished.about["values"]["join_px"]
    with (
        new_directory(out, "exports") as root,
        together([WRITERS[name](root, join_px) for name in dict.fromkeys(formats)]) as add,
    ):
        for folder in run.track(finished.folders.values(), "exporting photos", len(finished.folders)):
            findings = Findings.read(folder)
            if is_decided:
                findings = _chosen(findings, decided.get(findings.sha256, ()), undecided, counts)
            add(folder, findings)
    return {"lines": _summary(is_decided, undecided, counts), "out": out}


def _chosen(
    findings: Findings, decisions: Sequence[Decision], undecided: bool, counts: Counter[str]
) -> Findings:
    """The photo with those of its lines that are exported; their numbers stay."""
    on_page = asked(findings)[0]
    numbers = {one.crack.number for one in on_page if one.crack}
    found = [*traced(findings), *(one for one in on_page if one.kind == "block")]
    cracks = []
    for finding, decision in matched(found, decisions)[0]:
        said = status(decision)
        is_faint = said == "undecided" and finding.crack and finding.crack.number not in numbers
        counts["faint" if is_faint else f"{said} {finding.kind}"] += 1
        if finding.crack and decision and said == "accepted":
            about = {"class": decision.label, "severity": decision.severity, "note": decision.note}
            cracks.append(replace(finding.crack, decided=about))
        elif finding.crack and said == "undecided" and undecided:
            cracks.append(finding.crack)
    return replace(findings, cracks=cracks)


def _summary(is_decided: bool, undecided: bool, counts: Counter[str]) -> str:
    if not is_decided:
        return "all that were traced: nobody has decided on them yet"
    parts = [
        f"{counts['accepted crack']} accepted",
        f"{counts['rejected crack']} rejected and left out",
        f"{counts['undecided crack']} not decided and {counts['faint']} fainter ones "
        + ("are in it too" if undecided else "left out (--undecided)"),
    ]
    if counts["accepted block"]:
        parts.append(f"{counts['accepted block']} accepted blocks have no line, see the report")
    return "; ".join(parts)


@contextmanager
def _each(root: Path, suffix: str, write: Callable[[Path, Path, Findings], None]) -> Iterator[Add]:
    root.mkdir()
    yield lambda folder, findings: write(root / f"{folder.name}{suffix}", folder, findings)


def _write_jpeg(path: Path, folder: Path, findings: Findings) -> None:
    write_bytes(path, annotated(read_picture(folder / "detail.jpg"), findings))


# By format: the folder of all exports, and `join_px` of the survey.
WRITERS: dict[str, Callable[[Path, int], AbstractContextManager[Add]]] = {
    "jpeg": lambda root, _: _each(root / "jpeg", ".jpg", _write_jpeg),
    "dxf": lambda root, _: _each(root / "dxf", ".dxf", lambda path, _, findings: write_dxf(path, findings)),
    "gpkg": lambda root, _: geopackage(root / "survey.gpkg"),
    "csv": lambda root, _: table(root / "cracks.csv", DECIDED_COLUMNS, lambda _, of: crack_rows(of)),
    "geojson": lambda root, _: geojson(root / "cracks.geojson"),
    "coco": lambda root, join_px: coco(root / "cracks.coco.json", join_px),
}
