"""What the commands and Kubeflow's tasks call: take in, inspect, snapshot, note a training, status.

Each takes imagery.yaml and params.yaml as a file, or as the text that a task was given, and returns its summary.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from damcrack.files import InputError, check_output_file, sha256_bytes, temporary_folder, write_json
from damcrack.imagery import arrivals
from damcrack.imagery import catalogue as catalogues
from damcrack.imagery.catalogue import Catalogue, last_trained, read_catalogue
from damcrack.imagery.config import ImageryConfig
from damcrack.imagery.inspections import inspect_batches, not_inspected
from damcrack.params import parse_changes, read_params, stage_config, validate
from damcrack.progress import Watcher
from damcrack.registry.model_names import model_folder
from damcrack.storage.source import Store, open_source

CHECKOUT = Path(os.environ.get("DAMCRACK_CHECKOUT", "."))  # in an image, where the repository's files lie
Values = Path | str


def read_config(values: Values, settings: Iterable[str] = ()) -> ImageryConfig:
    """Read imagery.yaml; `settings` (NAME=VALUE) override it.

    Raises:
        InputError: a value is missing or not allowed.
    """
    config: ImageryConfig = validate(
        "imagery", {**read_params(values), **parse_changes(settings)}, ImageryConfig
    )
    return config


def _opened(values: Values) -> tuple[ImageryConfig, Store]:
    config = read_config(values)
    return config, open_source(config.store)


def take_in(
    values: Values, settings: Sequence[str] = (), outcome: Path | None = None, in_pipeline: bool = False
) -> dict[str, Any]:
    """Take in what arrived; returns, and writes to `outcome`, what is to be done next.

    `inspect`: a batch has no report; `train`: a training is due. In a pipeline an error would hold these up, so objects
    that failed are only named as long as there is anything to be done.

    Raises:
        InputError: an object failed; all others were taken in.
    """
    config = read_config(values, settings)
    if outcome is not None:
        check_output_file(outcome, "file of take-in", '{\n  "catalogue"')
        outcome.parent.mkdir(parents=True, exist_ok=True)
    incoming = open_source(config.incoming)
    if "://" not in config.store:
        try:
            Path(config.store).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"store {config.store}: {error.strerror}; fix the path in imagery.yaml or its permissions"
            ) from error
    store = open_source(config.store)
    done = arrivals.take_in(incoming, store, config, Watcher())
    counts = dict(sorted((+done.counts).items()))
    next_steps = {
        "catalogue": done.catalogue.number,
        "inspect": bool(not_inspected(store, done.catalogue)),
        "train": _is_due(done.catalogue, last_trained(store), config),
        **counts,
    }
    if outcome is not None:
        write_json(outcome, next_steps)
    if done.failures:
        failed = (
            f"{len(done.failures)} objects could not be read, all others were taken in "
            f"({', '.join(f'{name}: {number}' for name, number in counts.items())}); {done.failures[0]}; "
            "fix that and run again"
        )
        if not (in_pipeline and (next_steps["inspect"] or next_steps["train"])):
            raise InputError(failed)
        Watcher().say(failed)
    return next_steps


def _is_due(catalogue: Catalogue, trained: int, config: ImageryConfig) -> bool:
    """Whether enough labels or photos have come since the graph was trained on batch `trained`."""
    enough_photos = (
        config.train_after_photos is not None
        and catalogue.num_new_photos(trained) >= config.train_after_photos
    )
    return enough_photos or catalogue.num_new_labels(trained) >= config.train_after_labels


def inspect(
    values: Values, model: str, params: Values | None = None, settings: Sequence[str] = ()
) -> dict[str, object]:
    """Inspect every batch without a report; `settings` are values of the section `inspect`."""
    _, store = _opened(values)
    sections = read_params(params) if params else {"inspect": {}}
    config = stage_config(sections, "inspect", None, parse_changes(settings))
    reports = inspect_batches(store, read_catalogue(store), lambda: model_folder(model), config, Watcher())
    return {"batches inspected": len(reports), "reports": ", ".join(reports)}


def write_snapshot(values: Values, out: Path, number: int | None = None) -> dict[str, object]:
    """Write what was taken in, all or batches 1 to `number`, into the snapshot of the stage `photos`."""
    config, store = _opened(values)
    catalogue = read_catalogue(store)
    wanted = catalogue if number is None else catalogue.until(number)
    return catalogues.write_snapshot(out, config.source, wanted)


def keep_snapshot(values: Values, rest: Path = CHECKOUT) -> str:
    """Put a snapshot of what was taken in, and of the other sources' rows in `rest`, into the store.

    Returns its address, which begins with the newest batch's number: STORE/snapshots/NUMBER-HASH.csv
    """
    config, store = _opened(values)
    catalogue = read_catalogue(store)
    with temporary_folder() as folder:
        out = folder / "photos.csv"
        if (rest / "snapshots/photos.csv").is_file():
            shutil.copyfile(rest / "snapshots/photos.csv", out)
        catalogues.write_snapshot(out, config.source, catalogue)
        content = out.read_bytes()
    name = f"snapshots/{catalogue.number:08d}-{sha256_bytes(content)[:12]}.csv"
    store.create(name, content)
    return f"{config.store.rstrip('/')}/{name}"


def check_source(config: ImageryConfig, params: Mapping[str, Any]) -> None:
    """Check that the graph's values read what is taken in, and that photos without a label teach where they count.

    Raises:
        InputError: the section `photos` has no such source, or it lies elsewhere; or no experiment uses such photos.
    """
    wanted = f"{config.store.rstrip('/')}/accepted"
    got = ((params.get("photos") or {}).get("sources") or {}).get(config.source)
    if got != wanted:
        raise InputError(
            f"photos.sources.{config.source}: got {got!r}, expected {wanted!r}, where imagery.yaml takes photos in; "
            "fix params.yaml"
        )
    if config.train_after_photos is None:
        return
    experiment = params["export"]["experiment"]
    if not (
        params["tile"].get("unlabelled_tiles")
        and stage_config(params, "finetune", experiment, {}).unlabelled_share
    ):
        raise InputError(
            f"train_after_photos: {config.train_after_photos} photos without a label would teach {experiment} nothing; "
            "set tile.unlabelled_tiles, and its unlabelled_share under finetune, in params.yaml"
        )


def note_trained(values: Values, trained_on: str | int) -> None:
    """Note that the graph and the gate have run, so that labels count from there.

    `trained_on` is the number of the newest batch that was read, or the address of its snapshot.
    """
    _, store = _opened(values)
    number = int(str(trained_on).rsplit("/", 1)[-1].split("-")[0])
    read_catalogue(store).until(number)
    store.create(f"trained/{number:08d}.json", f'{{"catalogue": {number}}}\n'.encode())


def status(values: Values) -> dict[str, object]:
    """What was taken in, what waits, what is in quarantine; changes nothing."""
    config, store = _opened(values)
    catalogue, trained = read_catalogue(store), last_trained(store)
    photos, quarantined = len(catalogue.photos()), catalogue.quarantined()
    for entry in quarantined:
        Watcher().say(f"quarantined: {entry.name}: {entry.reason}")
    return {
        "batches": catalogue.number,
        "photos": photos,
        "labelled": len(catalogue.labels()),
        "without label and in doubt": photos - len(catalogue.teaching()),
        "batches without report": len(not_inspected(store, catalogue)),
        "labels since the last training": f"{catalogue.num_new_labels(trained)} of {config.train_after_labels}",
        "photos since the last training": f"{catalogue.num_new_photos(trained)} of {config.train_after_photos or '-'}",
        "quarantined": len(quarantined),
    }
