"""A model becomes a version of the MLflow registry: its files, their hashes, its card, and the runs behind it."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from damcrack.files import sha256_file
from damcrack.registry.onnx_model import save_model
from damcrack.registry.register import Entry
from damcrack.tracking.recorded import code_tags
from damcrack.tracking.store import RESTORED_FROM, Store, experiment_name

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion

    from damcrack.registry.registry import MlflowRegistry

EXTRA_FILES = ("weights.safetensors", "model.json", "parity.json")
PARENT_TAGS = ("damcrack.init_sha256", "damcrack.teacher_sha256")
FILES_TAG = "files"
LOCK_FILE = Path("dvc.lock")
LONGEST_DESCRIPTION = 4900  # MLflow's column takes 5,000 characters


def add(registry: "MlflowRegistry", entry: Entry) -> str:
    """Register the model, or refresh tags, description and card of the version with the same hashes.

    Returns its version. MLflow's errors pass.
    """
    runs = _makers(registry.store, entry)
    tags = {**entry.tags, **_lineage_tags(runs), **code_facts(), FILES_TAG: json.dumps(_hashes(entry))}
    known = registry.holding(entry.model_name, entry.weights_sha256, entry.onnx_sha256)
    if known is None:
        registry.ledger(entry.model_name)  # makes the registered model too
        return _create(registry.store, entry, tags, runs)
    registry.set_tags(entry.model_name, known.version, tags)
    registry.client.update_model_version(entry.model_name, known.version, _description(entry, runs))
    registry.client.log_model_artifacts(_model_id(known), str(entry.card), "card")
    return str(known.version)


def _create(store: Store, entry: Entry, tags: Mapping[str, str], runs: Sequence["MlflowRun"]) -> str:
    client = store.client
    run_id = runs[0].info.run_id if runs and _output(runs[0]) == entry.weights_sha256 else None
    experiment_id = store.experiment_id(experiment_name())
    model = client.create_logged_model(experiment_id, entry.model_name, run_id, tags=_short(tags))
    with tempfile.TemporaryDirectory() as folder:
        beside = [entry.export / name for name in EXTRA_FILES if (entry.export / name).is_file()]
        beside += [entry.metrics, entry.photos, *([LOCK_FILE] if LOCK_FILE.is_file() else [])]
        save_model(entry.export / "model.onnx", beside, Path(folder) / "model", model.model_id, run_id)
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        client.log_model_artifacts(model.model_id, str(entry.card), "card")
    client.finalize_logged_model(model.model_id, "READY")
    lock = {"dvc_lock_sha256": sha256_file(LOCK_FILE)} if LOCK_FILE.is_file() else {}
    # The version comes last and in one piece: what is broken off before it is never seen as a version.
    made = client.create_model_version(
        entry.model_name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        tags={**tags, **lock},
        description=_description(entry, runs),
        model_id=model.model_id,
    )
    return str(made.version)


def _makers(store: Store, entry: Entry) -> list["MlflowRun"]:
    """Runs whose outputs led to these weights, nearest first: fine-tuning, distillation, pretraining."""
    waiting, seen, runs = [entry.weights_sha256, *entry.parents], set[str](), []
    while waiting:
        sha256 = waiting.pop(0)
        if sha256 in seen:
            continue
        seen.add(sha256)
        run = _maker(store, sha256)
        if run is not None:
            runs.append(run)
            waiting += [run.data.tags[key] for key in PARENT_TAGS if run.data.tags.get(key)]
    return runs


def _maker(store: Store, sha256: str) -> "MlflowRun | None":
    experiment_id = store.experiment_id(experiment_name())
    made_it = f"tags.`damcrack.output` = '{sha256}' and attributes.status = 'FINISHED'"
    found = store.client.search_runs([experiment_id], made_it, order_by=["attributes.start_time DESC"])
    # A run restored from a cache shows the same output but did not compute it.
    return min(found, key=lambda run: RESTORED_FROM in run.data.tags, default=None)


def _hashes(entry: Entry) -> dict[str, str]:
    """The sha256 of each file that a version holds, by name."""
    files = [entry.export / name for name in ("model.onnx", *EXTRA_FILES)]
    return {path.name: sha256_file(path) for path in (*files, entry.metrics, entry.photos) if path.is_file()}


def _model_id(version: "ModelVersion") -> str:
    return str(version.source).removeprefix("models:/")


def _output(run: "MlflowRun") -> str:
    return str(run.data.tags.get("damcrack.output", ""))


def _short(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that a logged model takes too: the registry's may be longer."""
    return {key: value for key, value in tags.items() if len(value) <= 1000}


def _lineage_tags(runs: Sequence["MlflowRun"]) -> dict[str, str]:
    """One tag per stage of the line, for example run.distill = run ids."""
    by_stage: dict[str, list[str]] = {}
    for run in runs:
        by_stage.setdefault(run.data.tags.get("damcrack.stage", "unknown"), []).append(run.info.run_id)
    return {f"run.{stage}": ",".join(run_ids) for stage, run_ids in by_stage.items()}


def _description(entry: Entry, runs: Sequence["MlflowRun"]) -> str:
    """The card, as long as MLflow takes it, and the runs behind the model."""
    line = [f"- {run.info.run_name}, run {run.info.run_id}" for run in runs]
    made_by = "\n".join(["", "## Made by", "", *(line or ["- runs that this store does not know"])])[:1500]
    card = (entry.card / "card.md").read_text(encoding="utf-8")
    if len(card) + len(made_by) > LONGEST_DESCRIPTION:
        card = card[: LONGEST_DESCRIPTION - len(made_by) - 60].rpartition("\n")[0]
        card += "\n\nThe rest is in card/card.md of this version."
    return card + made_by


def code_facts() -> dict[str, str]:
    """Which code decides or registers."""
    tags = code_tags()
    names = {
        "code_version": "damcrack.code_version",
        "git_commit": "mlflow.source.git.commit",
        "git_dirty": "damcrack.git_dirty",
    }
    return {name: tags[tag] for name, tag in names.items() if tag in tags}
