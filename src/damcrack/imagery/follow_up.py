"""What follows from new photos: each batch is inspected once, and enough new labels start a training."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from damcrack.files import InputError
from damcrack.imagery.catalogue import Catalogue
from damcrack.imagery.config import ImageryConfig
from damcrack.imagery.ledger import Item, Ledger, json_bytes, numbers
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.detector import OnnxDetector
from damcrack.inspection.inspect import survey
from damcrack.inspection.scale import Scale
from damcrack.inspection.sources import Listed
from damcrack.run import Run
from damcrack.storage.store import Store


def not_inspected(store: Store, catalogue: Catalogue) -> list[int]:
    """Numbers of batches with photos but without a report."""
    done = set(numbers(store.listed("inspected/")))
    return [
        batch for batch in range(1, catalogue.number + 1) if batch not in done and catalogue.photos(batch)
    ]


def inspect_batches(
    store: Store,
    ledger: Ledger,
    catalogue: Catalogue,
    champion: Callable[[], Path],
    config: tuple[ImageryConfig, InspectConfig],
    run: Run,
) -> dict[str, object]:
    """Inspect every batch that has no report and that no other run is at; `champion` is asked only if there is one.

    Reports go to results/BATCH-ATTEMPT/, and inspected/BATCH.json names the one that counts.

    Raises:
        InputError: no champion, or photos of a batch have vanished from the store (after all other batches).
    """
    imagery, values = config
    inspected, left, failures = list[str](), 0, list[str]()
    for batch in not_inspected(store, catalogue):
        claim = ledger.claim(f"inspection-{batch:08d}", imagery.inspection_lease_minutes * 60, again=True)
        if claim is None:
            left += 1
            continue
        place = f"results/{batch:08d}-{claim.attempt}"
        try:
            with ledger.released_on_error(claim):
                detector = OnnxDetector.load(champion())
                report = _inspect(store, catalogue.photos(batch), detector, values, place, run)
        except InputError as error:
            failures.append(f"batch {batch}: {error}")
            continue
        store.create(f"inspected/{batch:08d}.json", json_bytes({"results": place, **report}))
        inspected.append(f"{place}/report.html")
    if failures:
        raise InputError(f"{len(failures)} batches were not inspected; {failures[0]}")
    return {"batches inspected": len(inspected), "at by other runs": left, "reports": ", ".join(inspected)}


def _inspect(
    store: Store, photos: list[Item], detector: OnnxDetector, values: InspectConfig, place: str, run: Run
) -> dict[str, object]:
    listed = [
        Listed(shown_name(photo), lambda photo=photo: store.read(photo.file))  # type: ignore[misc]
        for photo in photos
    ]
    scale = Scale(values.gsd_mm_per_px, values.distance_m)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "survey"
        _, totals = survey(sorted(listed, key=lambda one: one.name), detector, scale, out, values, run, place)
        if totals["num_set_aside"]:
            raise InputError(
                f"{totals['num_set_aside']} of its {len(photos)} photos cannot be read from the store any more; "
                "restore their versions and run again"
            )
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            store.create(f"{place}/{path.relative_to(out).as_posix()}", path.read_bytes())
    return {"model_sha256": detector.sha256, "photos": [photo.sha256 for photo in photos], "totals": totals}


def shown_name(photo: Item) -> str:
    """How a report calls a photo: where it came from, in letters that are harmless everywhere, and its hash."""
    path = PurePosixPath(photo.name)
    plain = [
        re.sub(r"[^A-Za-z0-9_-]", "-", part)[:60] for part in (*path.parts[:-1], path.stem) if part != "/"
    ]
    return "/".join(plain[-4:]) + f"-{photo.sha256[:8]}{PurePosixPath(photo.file).suffix}"


def last_trained(store: Store) -> int:
    """Number of the catalogue that the graph was last trained on; 0 if never."""
    return max(numbers(store.listed("trained/")), default=0)


def training_is_due(store: Store, ledger: Ledger, catalogue: Catalogue, config: ImageryConfig) -> bool:
    """Claim the next training if enough photos were labelled since the last; True for one caller only.

    The claim is tied to the last training that was finished, so that batches that come while one runs start no
    second one.
    """
    trained = last_trained(store)
    if len(catalogue.labels(trained)) < config.train_after_labels:
        return False
    lease_s = config.training_lease_hours * 3600
    return ledger.claim(f"training-after-{trained:08d}", lease_s, again=True) is not None


def note_trained(store: Store, number: int) -> None:
    """Note that the graph and the gate have run on what catalogue `number` lists."""
    store.create(f"trained/{number:08d}.json", json_bytes({"catalogue": number}))
