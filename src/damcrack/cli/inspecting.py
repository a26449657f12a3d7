"""The commands around inspections: values and models from wherever the user has them, then the stage functions."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from damcrack.files import InputError
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.review import take_back
from damcrack.inspection.scale import read_scale_csv
from damcrack.params import parse_changes, read_params, stage_config
from damcrack.progress import Watcher
from damcrack.registry.places import model_folder
from damcrack.stage_runner import execute, show
from damcrack.stage_table import STAGES
from damcrack.storage.source import open_source


def inspect(
    photos: Sequence[str],
    model: str,
    out: Path,
    params_path: Path | None,
    settings: Sequence[str],
    named: Mapping[str, Any],
    gsd_csv: Path | None,
    tiles: Path | None,
) -> None:
    """Inspect photos, or run the case study where `tiles` say which photos are held out.

    Raises:
        InputError: a value, the model or the photos cannot be used.
    """
    params = read_params(params_path) if params_path else {"inspect": asdict(InspectConfig())}
    config = stage_config(params, "inspect", None, {**named, **parse_changes(settings)})
    given = model_folder(model)
    if tiles is not None:
        if len(photos) != 1:
            raise InputError(
                f"--tiles: got {len(photos)} PHOTOS, expected one: the output folder of `photos`"
            )
        execute(
            STAGES["inspect"], config, out, None, {"photos": Path(photos[0]), "tiles": tiles, "model": given}
        )
        return
    started, by_photo = time.monotonic(), read_scale_csv(gsd_csv) if gsd_csv else None
    summary = inspect_photos(photos, given, out, config, open_source, Watcher(), by_photo)
    show("inspect", summary, time.monotonic() - started)


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
