"""A model becomes a version of the MLflow registry: its files, their hashes, its card, and the runs behind it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from damcrack.files import sha256_file, temporary_folder
from damcrack.registry.onnx_model import save_model
from damcrack.registry.register import Entry
from damcrack.tracking.recorded import code_tags
from damcrack.tracking.store import RESTORED_FROM, Store, experiment_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion

EXTRA_FILES = ("weights.safetensors", "model.json", "parity.json")
PARENT_TAGS = ("damcrack.init_sha256", "damcrack.teacher_sha256")
FILES_TAG = "files"
LOCK_FILE = Path("dvc.lock")
MAX_DESCRIPTION = 4900  # MLflow's column takes 5,000 characters


def add(store: Store, entry: Entry) -> str:
    """Register the model, or refresh tags, description and card of the version with the same hashes.

    Returns its version. MLflow's errors pass.
    """
    client, name = store.client, entry.model_name
    runs = _runs_behind(store, entry)
    tags = {**entry.tags, **_run_tags(runs), **code_facts(), FILES_TAG: json.dumps(_hashes(entry))}
    known = find_version(client, name, entry.weights_sha256, entry.onnx_sha256)
    if known is None:
        return _create(store, entry, tags, runs)
    for key, value in tags.items():
        client.set_model_version_tag(name, known.version, key, value)
    client.update_model_version(name, known.version, _description(entry, runs))
    client.log_model_artifacts(str(known.source).removeprefix("models:/"), str(entry.card), "card")
    return str(known.version)


def find_version(
    client: "MlflowClient", model_name: str, weights_sha256: str, onnx_sha256: str
) -> "ModelVersion | None":
    """The oldest version that holds a model with these hashes, None if there is none."""
    same = (
        f"name = '{model_name}' and tags.weights_sha256 = '{weights_sha256}' and "
        f"tags.onnx_sha256 = '{onnx_sha256}'"
    )
    return min(client.search_model_versions(same), key=lambda found: int(found.version), default=None)


def _create(store: Store, entry: Entry, tags: Mapping[str, str], runs: Sequence["MlflowRun"]) -> str:
    client = store.client
    if not client.search_registered_models(f"name = '{entry.model_name}'"):
        client.create_registered_model(entry.model_name, description="Crack or no crack on dam tiles.")
    run_id = runs[0].info.run_id if runs and _output(runs[0]) == entry.weights_sha256 else None
    experiment_id = store.experiment_id(experiment_name())
    model = client.create_logged_model(experiment_id, entry.model_name, run_id, tags=_short(tags))
    with temporary_folder() as folder:
        extra = [*_files(entry)[1:], *([LOCK_FILE] if LOCK_FILE.is_file() else [])]
        save_model(entry.export / "model.onnx", extra, folder / "model", model.model_id, run_id)
        client.log_model_artifacts(model.model_id, str(folder / "model"))
        client.log_model_artifacts(model.model_id, str(entry.card), "card")
    client.finalize_logged_model(model.model_id, "READY")
    lock = {"dvc_lock_sha256": sha256_file(LOCK_FILE)} if LOCK_FILE.is_file() else {}
    # The version comes last and in one request: an interrupted registration leaves no incomplete version.
    version = client.create_model_version(
        entry.model_name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        tags={**tags, **lock},
        description=_description(entry, runs),
        model_id=model.model_id,
    )
    return str(version.version)


def _runs_behind(store: Store, entry: Entry) -> list["MlflowRun"]:
    """Runs whose outputs led to these weights, nearest first: fine-tuning, distillation, pretraining."""
    waiting, seen, runs = [entry.weights_sha256, *entry.parents], set[str](), []
    while waiting:
        sha256 = waiting.pop(0)
        run = None if sha256 in seen else _maker(store, sha256)
        seen.add(sha256)
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


def _files(entry: Entry) -> list[Path]:
    """The files that a version holds, the ONNX file first."""
    exported = [entry.export / name for name in ("model.onnx", *EXTRA_FILES)]
    return [path for path in (*exported, entry.metrics, entry.photos) if path.is_file()]


def _hashes(entry: Entry) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in _files(entry)}


def _output(run: "MlflowRun") -> str:
    return str(run.data.tags.get("damcrack.output", ""))


def _short(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that are short enough for a logged model."""
    return {key: value for key, value in tags.items() if len(value) <= 1000}


def _run_tags(runs: Sequence["MlflowRun"]) -> dict[str, str]:
    """One tag per stage, for example run.distill = run ids."""
    by_stage: dict[str, list[str]] = {}
    for run in runs:
        by_stage.setdefault(run.data.tags.get("damcrack.stage", "unknown"), []).append(run.info.run_id)
    return {f"run.{stage}": ",".join(run_ids) for stage, run_ids in by_stage.items()}


def _description(entry: Entry, runs: Sequence["MlflowRun"]) -> str:
    """The card, cut to what MLflow takes, and the runs behind the model."""
    names = [f"- {run.info.run_name}, run {run.info.run_id}" for run in runs]
    made_by = "\n".join(["", "## Made by", "", *(names or ["- runs that this store does not know"])])[:1500]
    card = (entry.card / "card.md").read_text(encoding="utf-8")
    if len(card) + len(made_by) > MAX_DESCRIPTION:
        card = card[: MAX_DESCRIPTION - len(made_by) - 60].rpartition("\n")[0]
        card += "\n\nThe rest is in card/card.md of this version."
    return card + made_by


def code_facts() -> dict[str, str]:
    """The code that decides or registers."""
    tags = code_tags()
    names = {
        "code_version": "damcrack.code_version",
        "git_commit": "mlflow.source.git.commit",
        "git_dirty": "damcrack.git_dirty",
    }
    return {name: tags[tag] for name, tag in names.items() if tag in tags}
