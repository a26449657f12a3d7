"""The commands around inspections: values and models from wherever the user has them, then the stage functions."""

import time
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from damcrack.files import InputError, check_output, writable, write_bytes
from damcrack.imagery.bucket_survey import inspect_into_bucket
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.review import take_back
from damcrack.inspection.scale import read_scale_csv
from damcrack.inspection.sources import Part
from damcrack.inspection.survey_folder import KIND
from damcrack.params import parse_changes, read_params, stage_config
from damcrack.progress import Watcher
from damcrack.registry.places import model_folder
from damcrack.stage_runner import execute, show
from damcrack.stage_table import STAGES
from damcrack.storage.source import open_source

DEMO_SEED, DEMO_INDEX, DEMO_SIZE_HW = 99, 14, (1200, 1600)  # the detector learned from seed 7
DEMO_GSD_MM_PER_PX = 0.5


def inspect(
    photos: Sequence[str],
    model: str,
    out: str,
    params_path: Path | None,
    settings: Sequence[str],
    named: Mapping[str, Any],
    gsd_csv: Path | None,
    tiles: Path | None,
    part_text: str | None,
) -> None:
    """Inspect photos, all or a part, or run the case study where `tiles` say which photos are held out.

    Raises:
        InputError: a value, the model or the photos cannot be used.
    """
    params = read_params(params_path) if params_path else {"inspect": asdict(InspectConfig())}
    config = stage_config(params, "inspect", None, {**named, **parse_changes(settings)})
    part = Part.read(part_text) if part_text is not None else None
    given, folder = model_folder(model), Path(out).expanduser()
    if tiles is not None:
        if len(photos) != 1 or part is not None:
            raise InputError(
                f"--tiles: got {len(photos)} PHOTOS, expected one: the output folder of `photos`; and no --part"
            )
        execute(
            STAGES["inspect"],
            config,
            folder,
            None,
            {"photos": Path(photos[0]), "tiles": tiles, "model": given},
        )
        return
    started, by_photo = time.monotonic(), read_scale_csv(gsd_csv) if gsd_csv else None
    if out.startswith("s3://"):
        summary = inspect_into_bucket(photos, given, out, config, Watcher(), by_photo, part)
    else:
        summary = inspect_photos(photos, given, folder, config, open_source, Watcher(), by_photo, part)
    show("inspect", summary, time.monotonic() - started)


def demo(out: Path) -> None:
    """Render a photo beside `out` and inspect it.

    Raises:
        InputError: a file that is not this photo has its name, or it cannot be written.
    """
    from damcrack.sample.concrete import encode_photo, render_photo

    place = check_output(out, KIND)
    photo = place.with_name(f"{place.name}.jpg")
    encoded = encode_photo(render_photo(DEMO_SEED, DEMO_INDEX, DEMO_SIZE_HW).rgb, DEMO_INDEX)
    if photo.exists() and photo.read_bytes() != encoded:
        raise InputError(f"{photo} is another photo than the demo's; move it, or choose another --out")
    with writable(out):
        photo.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(photo, encoded)
    inspect(
        [str(photo)], "shipped", str(out), None, (), {"gsd_mm_per_px": DEMO_GSD_MM_PER_PX}, None, None, None
    )


def open_in_browser(page: Path) -> None:
    """Open a page that lies on disk.

    Raises:
        InputError: there is no browser.
    """
    if not webbrowser.open(page.resolve().as_uri()):
        raise InputError(f"--open: no browser was found; open {page} in one, or name it in BROWSER")


def review(survey: Path, out: Path, decisions: Path | None) -> None:
    """Take decided findings back in as labelled tiles."""
    started = time.monotonic()
    show("review", take_back(survey, out, decisions), time.monotonic() - started)


def report(
    survey: Path, out: Path, decisions: Path | None, previous: Path | None, title_block: Mapping[str, str]
) -> None:
    """Write the report to sign."""
    from damcrack.inspection.signed import TitleBlock
    from damcrack.inspection.signed import report as write_report

    started = time.monotonic()
    summary = write_report(survey, out, TitleBlock(**title_block), Watcher(), decisions, previous)
    show("report", summary, time.monotonic() - started)


def compare(old: Path, new: Path, out: Path, pairs: Path | None) -> None:
    """Compare two surveys."""
    from damcrack.inspection.compare import compare as compare_surveys

    started = time.monotonic()
    show("compare", compare_surveys(old, new, out, pairs, Watcher()), time.monotonic() - started)


def export_survey(
    survey: Path, formats: Sequence[str], out: Path, decisions: Path | None, undecided: bool
) -> None:
    """Write a survey in formats of other programs."""
    from damcrack.inspection.exports import export_survey as export

    started = time.monotonic()
    show(
        "export-survey",
        export(survey, formats, out, Watcher(), decisions, undecided),
        time.monotonic() - started,
    )


def import_coco(annotations: Path, places: Sequence[str], out: Path) -> None:
    """Take corrected annotations in as a source of photos with masks."""
    from damcrack.inspection.corrected import take_annotations

    started = time.monotonic()
    summary = take_annotations(annotations, places, out, open_source, Watcher())
    show("import-coco", summary, time.monotonic() - started)
