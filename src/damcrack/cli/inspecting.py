"""The commands around inspections; what they do is loaded when they run."""

from pathlib import Path
from typing import Any

import click

from damcrack.cli.options import OPTIONAL_PARAMS, OUT, PATH, SETTINGS, out_option
from damcrack.files import InputError
from damcrack.stage_table import INPUT_HELP

DEMO_SEED, DEMO_INDEX, DEMO_SIZE_HW = 99, 11, (1200, 1600)  # the detector learned from seeds 7 and 8
DEMO_GSD_MM_PER_PX = 0.5
OPEN = click.option("--open", "open_page", is_flag=True, help="Open the report in the browser at the end.")
DECISIONS = click.option("--decisions", type=PATH, help="File of decisions; default: SURVEY/decisions.json.")
FORMATS = ("jpeg", "dxf", "gpkg", "csv", "geojson", "coco")


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option(
    "--model",
    default="shipped",
    show_default=True,
    help=f"{INPUT_HELP['detector'].rstrip('.')}; `shipped`: the detector that comes with the package.",
)
@click.option(
    "--out",
    default="survey",
    show_default=True,
    help="Folder to write: new, empty, or an earlier output of this command; or s3://bucket/prefix.",
)
@OPEN
@click.option(
    "--part",
    metavar="NUMBER/OF",
    help="Look only at this part of the photos, say 2/4; without it, write tables and page of all parts.",
)
@click.option("--gsd", "gsd_mm_per_px", type=float, help="Millimetres per pixel on the wall, for all photos.")
@click.option("--gsd-csv", type=PATH, help="Table photo,gsd_mm_per_px; overrides --gsd.")
@click.option(
    "--distance",
    "distance_m",
    type=float,
    help="Metres from camera to wall; the focal length comes from EXIF.",
)
@click.option("--overlap", type=float, help="Share of a block's side that neighbours have in common.")
@click.option("--tiles", type=PATH, help="Case study: output of `tile` for the PHOTOS stage's.")
@OPTIONAL_PARAMS
@SETTINGS
def inspect(
    photos: tuple[str, ...],
    model: str,
    out: str,
    open_page: bool,
    part: str | None,
    gsd_csv: Path | None,
    tiles: Path | None,
    params_path: Path | None,
    settings: tuple[str, ...],
    **named: float | None,
) -> Any:
    """Look for cracks in photos; write maps, tables and a report for the engineer.

    PHOTOS are files, folders, patterns, videos and s3:// prefixes. Needs neither params.yaml nor torch. Called
    again with the same --out it resumes, and looks only at what is new or changed; photos that are gone from their
    folder leave the survey. Another folder with the same --out adds to the survey, as long as model and values are
    the same.
    """
    from damcrack.imagery.bucket_survey import inspect_into_bucket
    from damcrack.inspection.inspect import inspect_photos
    from damcrack.inspection.scale import read_scale_csv
    from damcrack.inspection.sources import Part
    from damcrack.params import parse_changes, read_params, stage_config
    from damcrack.progress import Watcher
    from damcrack.registry.model_names import model_folder
    from damcrack.stage_runner import execute
    from damcrack.stage_table import STAGES
    from damcrack.storage.source import open_source

    if open_page and (part or out.startswith("s3://")):
        raise InputError("--open needs a page on this disk; leave out --part, and name a folder as --out")
    changes = {name: value for name, value in named.items() if value is not None} | parse_changes(settings)
    params = read_params(params_path) if params_path else {"inspect": {}}
    config = stage_config(params, "inspect", None, changes)
    given, folder = model_folder(model), Path(out).expanduser()
    wanted = None if part is None else Part.read(part)
    if tiles is not None:
        if len(photos) != 1 or wanted:
            raise InputError(
                f"--tiles: got {len(photos)} PHOTOS, expected one: the output folder of `photos`; and no --part"
            )
        inputs = {"photos": Path(photos[0]), "tiles": tiles, "model": given}
        return execute(STAGES["inspect"], config, folder, None, inputs)
    more = (read_scale_csv(gsd_csv) if gsd_csv else None, wanted)
    if out.startswith("s3://"):
        return inspect_into_bucket(photos, given, out, config, Watcher(), *more)
    summary = inspect_photos(photos, given, folder, config, open_source, Watcher(), *more)
    if open_page:
        _open_in_browser(folder / "report.html")
    return summary


@click.command()
@out_option(default="demo", show_default=True)
@OPEN
def demo(out: Path, open_page: bool) -> Any:
    """Inspect a built-in photo: a rendered wall that the detector never saw.

    Writes the photo as OUT.jpg, takes its pixels as half a millimetre, and inspects it into OUT.
    """
    from damcrack.cracks.detector import SHIPPED
    from damcrack.files import check_output, writable, write_bytes
    from damcrack.inspection.config import InspectConfig
    from damcrack.inspection.inspect import inspect_photos
    from damcrack.inspection.survey_folder import KIND
    from damcrack.progress import Watcher
    from damcrack.sample.concrete import encode_photo, render_photo
    from damcrack.storage.source import open_source

    place = check_output(out, KIND)
    photo = place.with_name(f"{place.name}.jpg")
    encoded = encode_photo(render_photo(DEMO_SEED, DEMO_INDEX, DEMO_SIZE_HW).rgb, DEMO_INDEX)
    if photo.exists() and photo.read_bytes() != encoded:
        raise InputError(f"{photo} is another photo than the demo's; move it, or choose another --out")
    with writable(out):
        photo.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(photo, encoded)
    config = InspectConfig(gsd_mm_per_px=DEMO_GSD_MM_PER_PX)
    summary = inspect_photos([str(photo)], SHIPPED, out, config, open_source, Watcher())
    if open_page:
        _open_in_browser(out / "report.html")
    return summary


def _open_in_browser(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        raise InputError(f"--open: no browser was found; open {page} in one, or name it in BROWSER")


@click.command()
@click.argument("survey", type=PATH)
@OUT
@DECISIONS
def review(survey: Path, out: Path, decisions: Path | None) -> Any:
    """Turn the findings that you decided on into a source of labelled tiles for the next training."""
    from damcrack.inspection.review import take_back

    return take_back(survey, out, decisions)


@click.command()
@click.argument("survey", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder to write, or a file.pdf.")
@DECISIONS
@click.option("--previous", type=PATH, help="Older survey: take its decisions over.")
@click.option("--structure", default="", help="For the title block.")
@click.option("--client", default="", help="For the title block.")
@click.option("--date", default="", help="For the title block: when the photos were taken.")
@click.option("--inspector", default="", help="For the title block.")
@click.option("--camera", default="", help="For the title block.")
@click.option("--scale", default="", help="For the title block; default: what the survey knows.")
def report(survey: Path, out: Path, decisions: Path | None, previous: Path | None, **title_block: str) -> Any:
    """Write the report to sign: accepted findings, rejected ones in an annex, undecided ones counted.

    Decide in SURVEY/report.html, save, and put decisions.json into SURVEY. With --previous, decisions on the same
    cracks of an older survey are taken over; they count once you confirm them: load OUT/decisions.json in the page.
    """
    from damcrack.inspection.signed import TitleBlock
    from damcrack.inspection.signed import report as write_report
    from damcrack.progress import Watcher

    return write_report(survey, out, TitleBlock(**title_block), Watcher(), decisions, previous)


@click.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@OUT
@click.option("--pairs", type=PATH, help="Table old,new of photo names; default: same names.")
def compare(old: Path, new: Path, out: Path, pairs: Path | None) -> Any:
    """Compare two surveys of the same wall: new, grown and vanished cracks.

    OLD and NEW are folders that `damcrack inspect` wrote.
    """
    from damcrack.inspection.compare import compare as compare_surveys
    from damcrack.progress import Watcher

    return compare_surveys(old, new, out, pairs, Watcher())


@click.command("export-survey")
@click.argument("survey", type=PATH)
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    required=True,
    help="jpeg: each photo with its cracks; dxf: a drawing of each; gpkg: photos and cracks for GIS; csv, geojson, "
    "coco: the survey's own files, with decisions. May be repeated.",
)
@DECISIONS
@click.option("--undecided", is_flag=True, help="Write lines without a decision too; rejected ones never.")
@OUT
def export_survey(
    survey: Path, formats: tuple[str, ...], out: Path, decisions: Path | None, undecided: bool
) -> Any:
    """Write what was accepted in SURVEY as annotated photos, drawings for CAD, a GeoPackage and more.

    SURVEY is a folder that `damcrack inspect` wrote. As long as there are no decisions, all traced lines are written.
    """
    from damcrack.inspection.exports import export_survey as export
    from damcrack.progress import Watcher

    return export(survey, formats, out, Watcher(), decisions, undecided)


@click.command("import-coco")
@click.argument("annotations", type=PATH)
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@OUT
def import_coco(annotations: Path, photos: tuple[str, ...], out: Path) -> Any:
    """Turn cracks that you corrected in CVAT (exported as COCO 1.0) into a source of masks for the next training.

    A photo that the file lists without a crack counts as one without; other categories than `crack` are left alone.
    """
    from damcrack.inspection.corrected import take_annotations
    from damcrack.progress import Watcher
    from damcrack.storage.source import open_source

    return take_annotations(annotations, photos, out, open_source, Watcher())


COMMANDS = (inspect, demo, report, compare, review, export_survey, import_coco)
