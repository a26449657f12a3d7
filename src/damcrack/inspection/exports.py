"""What a survey found, as files for other programs.

In the survey itself: see inspection.tables, inspection.geojson and inspection.coco.
OUT/jpeg/NAME-HASH.jpg    a photo with its cracks and their widths, see inspection.annotated
OUT/dxf/NAME-HASH.dxf     its drawing for CAD, see inspection.drawing
OUT/survey.gpkg           photos and cracks for GIS, see inspection.geopackage
"""

from collections.abc import Sequence
from pathlib import Path

from damcrack.cracks.findings import Findings, read_picture
from damcrack.files import new_directory, write_bytes
from damcrack.inspection.annotated import annotated
from damcrack.inspection.coco import write_coco
from damcrack.inspection.drawing import write_dxf
from damcrack.inspection.finished import FinishedSurvey
from damcrack.inspection.geojson import write_geojson
from damcrack.inspection.geopackage import write_geopackage
from damcrack.inspection.places import Unusable
from damcrack.inspection.tables import write_tables
from damcrack.run import Run


def write_files(root: Path, folders: Sequence[Path], set_aside: Sequence[Unusable], join_px: int) -> None:
    """Write tables, GeoJSON and COCO under `root`; pieces of a mask at most `join_px` apart are one crack."""
    write_tables(root, folders, set_aside)
    write_geojson(root / "cracks.geojson", folders)
    write_coco(root / "cracks.coco.json", folders, join_px)


def export_survey(survey: Path, formats: Sequence[str], out: Path, run: Run) -> dict[str, object]:
    """Write a survey in other formats.

    Raises:
        InputError: it is no finished survey, or a picture in it is damaged.
    """
    folders = FinishedSurvey.read(survey).folders.values()
    summary: dict[str, object] = {}
    with new_directory(out, "exports") as folder:
        for name in (name for name in ("jpeg", "dxf") if name in formats):
            (folder / name).mkdir()
            for one in run.track(folders, f"writing {name}", len(folders)):
                if name == "dxf":
                    write_dxf(folder / name / f"{one.name}.dxf", Findings.read(one))
                else:
                    picture = annotated(read_picture(one / "detail.jpg"), Findings.read(one))
                    write_bytes(folder / name / f"{one.name}.jpg", picture)
            summary[name] = f"{len(folders)} files in {out / name}"
        if "gpkg" in formats:
            write_geopackage(folder / "survey.gpkg", folders)
            summary["gpkg"] = out / "survey.gpkg"
    return summary
