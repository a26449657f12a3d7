"""Inspect each batch of new photos with the functions of `damcrack inspect`; its report lies in the store."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from damcrack.cracks.detector import OnnxDetector
from damcrack.files import InputError, read_csv, sha256_bytes, sha256_file, temporary_folder
from damcrack.imagery.catalogue import Catalogue, Entry, stored_photo
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import survey
from damcrack.inspection.places import Listed
from damcrack.inspection.scale import Scale
from damcrack.run import Run
from damcrack.storage.source import Store


def not_inspected(store: Store, catalogue: Catalogue) -> dict[int, list[Entry]]:
    """The photos of each batch that has no report, by number."""
    done = {one.name for one in store.listed("inspected/")}
    waiting: dict[int, list[Entry]] = {}
    for number, photo in catalogue.photos():
        if f"inspected/{number:08d}.json" not in done:
            waiting.setdefault(number, []).append(photo)
    return waiting


def inspect_batches(
    store: Store, catalogue: Catalogue, model: Callable[[], Path], config: InspectConfig, run: Run
) -> list[str]:
    """Inspect every batch that has no report; returns where the reports lie. `model` is asked only if there is one.

    Raises:
        InputError: no model, or photos of a batch cannot be inspected (after all other batches).
    """
    waiting, reports, failures = not_inspected(store, catalogue), list[str](), list[str]()
    detector = OnnxDetector.load(model()) if waiting else None
    for number, photos in waiting.items():
        assert detector
        try:
            place, totals = _inspect(store, number, photos, detector, config, run)
        except InputError as error:
            failures.append(f"batch {number}: {error}")
            continue
        hashes = [photo.sha256 for photo in photos]
        done = {"results": place, "model_sha256": detector.sha256, "photos": hashes, "totals": totals}
        store.create(f"inspected/{number:08d}.json", (json.dumps(done, indent=1) + "\n").encode())
        reports.append(f"{place}/report.html")
    if failures:
        raise InputError(f"{len(failures)} batches were not inspected; {failures[0]}")
    return reports


def _inspect(
    store: Store,
    number: int,
    photos: Sequence[Entry],
    detector: OnnxDetector,
    config: InspectConfig,
    run: Run,
) -> tuple[str, dict[str, object]]:
    """Put a report under a name made of its content, so that a half report of a killed run never mixes with it."""
    listed = [Listed(_shown_name(photo), lambda photo=photo: stored_photo(store, photo)) for photo in photos]  # type: ignore[misc]
    scale = Scale(config.gsd_mm_per_px, config.distance_m)
    listed.sort(key=lambda one: one.name)
    with temporary_folder() as out:
        _, totals = survey(listed, detector, scale, out, config, run, f"batch {number}")
        if totals["num_set_aside"]:
            first = read_csv(out / "set-aside.csv")[0]
            raise InputError(
                f"{totals['num_set_aside']} of its {len(photos)} photos could not be inspected; {first['file']}: "
                f"{first['reason']}; run again, restore their versions in the store, or raise max_megapixels of inspect"
            )
        files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
        digest = sha256_bytes(repr([(name, sha256_file(path)) for name, path in files.items()]).encode())
        place = f"results/{number:08d}-{digest[:12]}"
        for name, path in files.items():
            store.create(f"{place}/{name}", path.read_bytes())
    return place, totals


def _shown_name(photo: Entry) -> str:
    """The name of a photo in a report: where it came from, in letters that are harmless everywhere, and its hash."""
    stem = PurePosixPath(photo.name).with_suffix("").as_posix()
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[-100:].strip("-")
    return f"{plain}-{photo.sha256[:8]}{PurePosixPath(photo.file).suffix}"
