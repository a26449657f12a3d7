"""Taking new imagery in, inspecting it, and what it means for the graph: the calls behind the command."""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from damcrack.files import InputError, sha256_bytes, write_json
from damcrack.imagery import arrivals, catalogue, follow_up
from damcrack.imagery.config import ImageryConfig
from damcrack.imagery.ledger import Ledger
from damcrack.params import parse_changes, read_params, stage_config, validate
from damcrack.progress import Watcher
from damcrack.stage_runner import show
from damcrack.storage.source import open_store
from damcrack.storage.store import Store

CHECKOUT = Path(os.environ.get("DAMCRACK_CHECKOUT", "."))  # in an image, where the repository's files lie


@dataclass(frozen=True)
class Place:
    """The opened store with its ledger, and the values."""

    config: ImageryConfig
    store: Store
    ledger: Ledger


def as_file(text: str, name: str = "imagery.yaml") -> Path:
    """Write what a task was told to a file in a folder of its own: a process may run in somebody's checkout."""
    path = Path(tempfile.mkdtemp(prefix="damcrack-"), name)
    path.write_text(text)
    return path


def read_config(path: Path, settings: Iterable[str] = ()) -> ImageryConfig:
    """Read imagery.yaml, with `settings` (NAME=VALUE) winning over it.

    Raises:
        InputError: a value is missing or not allowed.
    """
    defaults = {
        one.name: one.default for one in fields(ImageryConfig) if one.name not in ("incoming", "store")
    }
    given = {**defaults, **read_params(path), **parse_changes(settings)}
    for name in ("incoming", "store"):
        if name not in given:
            raise InputError(f"{path}: {name} is missing; expected a folder or s3://bucket/prefix")
    config: ImageryConfig = validate(path.stem, given, ImageryConfig)
    return config


def open_place(path: Path, settings: Iterable[str] = (), run_id: str | None = None) -> Place:
    """Read imagery.yaml, with `settings` (NAME=VALUE) winning over it, and open the store.

    A `run_id` that stays when a run is tried again lets it go on with its own inspection or training at once.

    Raises:
        InputError: a value is missing or not allowed, or the store cannot be opened.
    """
    config = read_config(path, settings)
    if "://" not in config.store:
        Path(config.store).mkdir(parents=True, exist_ok=True)
    store = open_store(config.store)
    return Place(config, store, Ledger(store, run_id or uuid.uuid4().hex))


def take_in(
    path: Path,
    settings: Sequence[str] = (),
    claim_training: bool = False,
    outcome: Path | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Take in what arrived; returns, and writes to `outcome`, what is to be done next.

    `inspect` tells that a batch has no report; `train` that a training is due, which is this caller's to start.

    Raises:
        InputError: an object failed; all others were taken in.
    """
    started, place = time.monotonic(), open_place(path, settings, run_id)
    incoming = open_store(place.config.incoming)
    found = arrivals.take_in(incoming, place.store, place.ledger, place.config, Watcher())
    listed = catalogue.extend(place.store, place.ledger, found.entries)
    waiting = follow_up.not_inspected(place.store, listed)
    due = claim_training and follow_up.training_is_due(place.store, place.ledger, listed, place.config)
    next_steps = {"catalogue": listed.number, "inspect": bool(waiting), "train": due, **dict(found.counts)}
    if outcome is not None:
        write_json(outcome, next_steps)
    totals = {"taken in so far": f"{len(listed.photos())} photos, {len(listed.labels())} labelled"}
    show("take-in", {**dict(sorted(found.counts.items())), **totals}, time.monotonic() - started)
    if found.failures:
        rest = "the rest was not tried" if found.gave_up else "all others were"
        raise InputError(
            f"{len(found.failures)} objects could not be taken in, {rest}; {found.failures[0]}; "
            "run again once that is mended"
        )
    return next_steps


def inspect(
    path: Path,
    model: str,
    params_path: Path | None = None,
    settings: Sequence[str] = (),
    run_id: str | None = None,
) -> dict[str, object]:
    """Inspect every batch without a report with the model; `settings` are values of the section `inspect`."""
    from damcrack.inspection.config import InspectConfig
    from damcrack.registry.places import model_folder

    started, place = time.monotonic(), open_place(path, run_id=run_id)
    params = read_params(params_path) if params_path else {"inspect": asdict(InspectConfig())}
    values = stage_config(params, "inspect", None, parse_changes(settings))
    listed = catalogue.latest(place.store)
    summary = follow_up.inspect_batches(
        place.store, place.ledger, listed, lambda: model_folder(model), (place.config, values), Watcher()
    )
    show("imagery inspect", summary, time.monotonic() - started)
    return summary


def write_snapshot(path: Path, out: Path, number: int | None = None) -> dict[str, object]:
    """Write what was taken in, now or up to catalogue `number`, into the snapshot of the stage `photos`."""
    started, place = time.monotonic(), open_place(path)
    listed = (
        catalogue.latest(place.store) if number is None else catalogue.read_catalogue(place.store, number)
    )
    summary = catalogue.write_snapshot(out, place.config.source, listed)
    show("imagery snapshot", summary, time.monotonic() - started)
    return summary


def keep_snapshot(path: Path, rest: Path = CHECKOUT) -> str:
    """Keep a snapshot of what was taken in, and of the other sources' rows in `rest`, in the store.

    Returns its address, which begins with the catalogue's number: STORE/snapshots/NUMBER-HASH.csv
    """
    place = open_place(path)
    listed = catalogue.latest(place.store)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "photos.csv"
        if (rest / "snapshots/photos.csv").is_file():
            shutil.copyfile(rest / "snapshots/photos.csv", out)
        catalogue.write_snapshot(out, place.config.source, listed)
        content = out.read_bytes()
    name = f"snapshots/{listed.number:08d}-{sha256_bytes(content)[:12]}.csv"
    place.store.create(name, content)
    return f"{place.config.store.rstrip('/')}/{name}"


def check_source(config: ImageryConfig, params: Mapping[str, Any]) -> None:
    """Check that the graph's values read what is taken in.

    Raises:
        InputError: the section `photos` has no such source, or it lies elsewhere.
    """
    wanted = f"{config.store.rstrip('/')}/accepted"
    got = ((params.get("photos") or {}).get("sources") or {}).get(config.source)
    if got != wanted:
        raise InputError(
            f"photos.sources.{config.source}: got {got!r}, expected {wanted!r}, where imagery.yaml takes photos in; "
            "mend params.yaml"
        )


def note_trained(path: Path, trained_on: str | int) -> None:
    """Note that the graph and the gate have run on a catalogue, so that labels count from there.

    `trained_on` is its number, or the address of its snapshot.
    """
    place = open_place(path)
    number = int(str(trained_on).rsplit("/", 1)[-1].split("-")[0])
    catalogue.read_catalogue(place.store, number)
    follow_up.note_trained(place.store, number)


def status(path: Path) -> dict[str, object]:
    """What was taken in, what waits, what was set aside; changes nothing."""
    started, place = time.monotonic(), open_place(path)
    listed = catalogue.latest(place.store)
    trained = follow_up.last_trained(place.store)
    new_labels = len(listed.labels(trained))
    summary: dict[str, object] = {
        "batches": listed.number,
        "photos": len(listed.photos()),
        "labelled": len(listed.labels()),
        "in no batch yet": len(place.ledger.ids() - listed.ids()),
        "batches without report": len(follow_up.not_inspected(place.store, listed)),
        "labels since the last training": f"{new_labels} of {place.config.train_after_labels}",
        "set aside": len(listed.quarantined()),
    }
    show("imagery", summary, time.monotonic() - started)
    for item in listed.quarantined():
        Watcher().say(f"set aside: {item.name}: {item.reason}")
    return summary
