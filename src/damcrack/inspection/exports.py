"""What a survey found, as files for other programs.

In the survey itself: see inspection.tables, inspection.geojson and inspection.coco.
OUT/jpeg/NAME-HASH.jpg    a photo with its cracks and their widths, see inspection.annotated
OUT/dxf/NAME-HASH.dxf     its drawing for CAD, see inspection.drawing
OUT/survey.gpkg           photos and cracks for GIS, see inspection.geopackage
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from damcrack.data.snapshot import Source
from damcrack.files import InputError, PhotoError, new_directory, sha256_bytes, write_bytes
from damcrack.inspection.annotated import annotated
from damcrack.inspection.coco import write_coco
from damcrack.inspection.drawing import write_dxf
from damcrack.inspection.findings import Findings
from damcrack.inspection.finished import FinishedSurvey
from damcrack.inspection.geojson import write_geojson
from damcrack.inspection.geopackage import write_geopackage
from damcrack.inspection.sources import Photo, Unusable, list_photos, opened
from damcrack.inspection.tables import write_tables
from damcrack.run import Run

FORMATS = ("jpeg", "dxf", "gpkg")


def write_files(root: Path, folders: Sequence[Path], set_aside: Sequence[Unusable], join_px: int) -> None:
    """Write tables, GeoJSON and COCO under `root`; pieces of a mask at most `join_px` apart are one crack."""
    write_tables(root, folders, set_aside)
    write_geojson(root / "cracks.geojson", folders)
    write_coco(root / "cracks.coco.json", folders, join_px)


def export_survey(
    survey: Path,
    formats: Sequence[str],
    places: Sequence[str],
    out: Path,
    open_source: Callable[[str], Source],
    run: Run,
) -> dict[str, object]:
    """Write the survey in other formats; `places` are where its photos lie, for `jpeg`.

    Raises:
        InputError: no finished survey, no places though pictures are wanted, or none of its photos there.
    """
    finished = FinishedSurvey.read(survey)
    if "jpeg" in formats and not places:
        raise InputError("--format jpeg draws on the photos; say where they lie with --photos")
    summary: dict[str, object] = {}
    with new_directory(out) as folder:
        if "dxf" in formats:
            (folder / "dxf").mkdir()
            for one in run.track(finished.folders.values(), "drawing", len(finished.folders)):
                write_dxf(folder / "dxf" / f"{one.name}.dxf", Findings.read(one))
            summary["drawings"] = f"{len(finished.folders)}, in {out / 'dxf'}"
        if "gpkg" in formats:
            write_geopackage(folder / "survey.gpkg", finished.folders.values())
            summary["geopackage"] = out / "survey.gpkg"
        if "jpeg" in formats:
            (folder / "jpeg").mkdir()
            num, missing = _write_pictures(folder / "jpeg", finished, places, open_source, run)
            summary["pictures"] = f"{num}, in {out / 'jpeg'}"
            if missing:
                summary["without picture"] = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
    return summary


def _write_pictures(
    folder: Path,
    survey: FinishedSurvey,
    places: Sequence[str],
    open_source: Callable[[str], Source],
    run: Run,
) -> tuple[int, list[str]]:
    """Draw on each photo of the survey that is found again, by its content; returns how many, and the others' names."""
    known = {Findings.read(one).sha256: name for name, one in survey.folders.items()}
    missing = set(survey.folders)
    for photo in run.track(_photos(places, open_source, survey.values), "annotating photos", len(known)):
        name = known.get(sha256_bytes(photo.encoded))
        if name is None or name not in missing:
            continue
        try:
            max_pixels = int(survey.values["max_megapixels"]) * 10**6
            picture = annotated(photo.encoded, Findings.read(survey.folders[name]), max_pixels)
        except PhotoError as error:
            run.say(f"no picture of {name}: {error}")
            continue
        write_bytes(folder / f"{survey.folders[name].name}.jpg", picture)
        missing.discard(name)
    if len(missing) == len(survey.folders):
        raise InputError(f"none of the survey's photos is in {', '.join(places)}; expected the same files")
    return len(survey.folders) - len(missing), sorted(missing)


def _photos(
    places: Sequence[str], open_source: Callable[[str], Source], values: Mapping[str, Any]
) -> Iterator[Photo]:
    listed = list_photos(places, open_source)
    return (one for one in opened(listed, values["video_every_s"]) if isinstance(one, Photo))
