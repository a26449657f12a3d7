"""Lineage both ways: from a version to everything it was made from, and from a photo to every model trained on it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from damcrack.files import InputError, read_csv, sha256_file
from damcrack.registry.champion import CHAMPION, history
from damcrack.registry.gate import TRAINED_ON
from damcrack.registry.registry import MlflowRegistry, answering, files_of, records_of
from damcrack.tracking.store import MAX_DIGEST, OUTPUT, STAGE

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

SHA256 = re.compile(r"[0-9a-f]{64}")
VERSION_TAGS = ["experiment", "weights_sha256", "git_commit", "git_dirty", "code_version"]
VERSION_TAGS += ["dvc_lock_sha256", "data_digest"]
RUN_TAGS = ("damcrack.output", "damcrack.graph_run", "mlflow.source.git.commit", "mlflow.user")
PARENT_TAGS = ("damcrack.init_sha256", "damcrack.teacher_sha256")

Row = dict[str, str]


def lineage(registry: MlflowRegistry, target: str, model_name: str) -> dict[str, Any]:
    """The lineage of a version, or of a photo (a file, or the sha256 of one).

    Raises:
        InputError: the registry does not know it, or the target is neither.
    """
    path = Path(target)
    if SHA256.fullmatch(target) or path.is_file():
        sha256 = target if SHA256.fullmatch(target) else sha256_file(path)
        return {"photo": target, "sha256": sha256, "trained": list(of_photo(registry, sha256))}
    if path.suffix:
        raise InputError(f"{target}: no such file; name a photo, its sha256, or a version")
    return of_version(registry, *registry.version_at(target, model_name))


def of_version(registry: MlflowRegistry, model_name: str, version: str) -> dict[str, Any]:
    """What a version was made from: hashes of files, code, data, the graph's lock, runs; and the decisions about it.

    Raises:
        InputError: no such version, or the registry does not answer.
    """
    found = registry.version(model_name, version)
    evaluated = [record["evaluation_set"] for record in records_of(found) if "evaluation_set" in record]
    steps = history(registry.records(model_name), registry.aliased(model_name, CHAMPION))
    with answering("list its runs"):
        aliases = registry.client.get_registered_model(model_name).aliases
        runs = [_described(run) for run in runs_behind(registry, found.tags.get("weights_sha256", ""))]
    return {
        "version": f"{model_name} version {version}",
        "aliases": sorted(alias for alias, number in aliases.items() if str(number) == version),
        **{name: found.tags.get(name) for name in VERSION_TAGS},
        "files": files_of(found),
        "evaluation_set_sha256": evaluated[-1]["sha256"] if evaluated else None,
        "decisions": [
            {"at": step.at, "decision": step.decision, "version": step.version, "reason": step.reason}
            for step in steps
            if version == step.version or step.before == version != step.after
        ],
        "runs": runs,
        "files_at": f"mlflow artifacts download --artifact-uri models:/{model_name}/{version}",
    }


def runs_behind(registry: MlflowRegistry, weights_sha256: str) -> Iterator["Run"]:
    """Runs whose outputs led to these weights, nearest first: fine-tuning, distillation, pretraining."""
    waiting, seen = [weights_sha256], set[str]()
    while waiting:
        sha256 = waiting.pop(0)
        run = None if sha256 in seen else registry.store.maker_of(sha256)
        seen.add(sha256)
        if run is not None:
            yield run
            waiting += [run.data.tags[key] for key in PARENT_TAGS if run.data.tags.get(key)]


def _described(run: "Run") -> dict[str, Any]:
    tags, inputs = run.data.tags, run.inputs.dataset_inputs if run.inputs else ()
    return {
        "run": run.info.run_name,
        "run_id": run.info.run_id,
        **{name.rpartition(".")[2]: tags[name] for name in RUN_TAGS if name in tags},
        **{name: value for name, value in tags.items() if "kubeflow" in name or "kfp" in name},
        # MLflow cuts the digest short in its own field.
        "data": {
            one.dataset.name: json.loads(one.dataset.profile or "{}").get("digest", one.dataset.digest)
            for one in inputs
        },
    }


def of_photo(registry: MlflowRegistry, sha256: str) -> Iterator[dict[str, Any]]:
    """Every model trained or selected on a photo's tiles: registered versions, and runs on the same tiles.

    Raises:
        InputError: the registry does not answer.
    """
    client, lists, by_tiles = registry.client, dict[str, list[Row]](), dict[str, dict[str, str]]()
    with answering("search its versions"):
        for version in client.search_model_versions():
            rows = [row for row in _trained_on(registry, version, lists) if row["sha256"] == sha256]
            if rows:
                used = ", ".join(f"{row['num_tiles']} for {row['split']}" for row in rows)
                tiles = {"photo": rows[0]["photo"], "tiles": used}
                by_tiles[version.tags.get("data_digest", "")] = tiles
                model = f"{version.name} version {version.version}"
                yield {"model": model, "weights_sha256": version.tags.get("weights_sha256"), **tiles}
        experiments = [one.experiment_id for one in client.search_experiments()]
        for digest, tiles in by_tiles.items():
            same = f"dataset.digest = '{digest[:MAX_DIGEST]}' and tags.`{STAGE}` = 'finetune'"
            for run in client.search_runs(experiments, same):
                model = f"run {run.info.run_name} ({run.info.run_id})"
                yield {"model": model, "weights_sha256": run.data.tags.get(OUTPUT), **tiles}


def _trained_on(registry: MlflowRegistry, version: "ModelVersion", lists: dict[str, list[Row]]) -> list[Row]:
    """The photos of a version; `lists` are those that were read already, by sha256."""
    sha256 = files_of(version).get(TRAINED_ON)
    if sha256 is None:
        return []
    if sha256 not in lists:
        lists[sha256] = read_csv(registry.fetch(version.name, str(version.version)) / TRAINED_ON)
    return lists[sha256]
