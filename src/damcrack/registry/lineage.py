"""Lineage both ways: from a version to everything it was made from, and from a photo to every model it trained."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from damcrack.files import InputError, read_csv, sha256_file, write_bytes
from damcrack.registry.contest import TRAINED_ON
from damcrack.registry.places import resolve
from damcrack.registry.registration import FILES_TAG
from damcrack.registry.registry import DECISION_TAG, FETCHED, MlflowRegistry, answering
from damcrack.tracking.store import MAX_DIGEST

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion

SHA256 = re.compile(r"[0-9a-f]{64}")
FROM_RUN = ("damcrack.output", "damcrack.graph_run", "mlflow.source.git.commit", "mlflow.user")


def lineage(target: str, model_name: str, as_json: bool) -> None:
    """Print the lineage of a version, or of a photo.

    Raises:
        InputError: the registry does not know it, or the target is neither.
    """
    registry = MlflowRegistry("damcrack lineage")
    path = Path(target)
    if SHA256.fullmatch(target) or path.is_file():
        sha256 = target if SHA256.fullmatch(target) else sha256_file(path)
        found = {"photo": target, "sha256": sha256, "trained": list(of_photo(registry, sha256))}
        _print(found, as_json)
        return
    if path.suffix:
        raise InputError(f"{target}: no such file; give a photo, its sha256, or a version")
    name, version = resolve(registry, target, model_name)
    _print(of_version(registry, name, version), as_json)


def of_version(registry: MlflowRegistry, model_name: str, version: str) -> dict[str, Any]:
    """What a version was made from: hashes of files, code, data, the graph's lock, runs, and the last decision.

    Raises:
        InputError: no such version, or the registry does not answer.
    """
    with answering("tell the lineage"):
        found = registry.version(model_name, version)
        if found is None:
            raise InputError(f"{model_name} has no version {version}, or it was deleted; name another")
        tags = found.tags
        aliases = registry.client.get_registered_model(model_name).aliases
        decision = json.loads(tags.get(DECISION_TAG, "{}"))
        # A version that came back was judged earlier: its last comparison is told, whatever moved it since.
        judged = [json.loads(tags[name]).get("evaluation_set") for name in _decisions(tags)]
        return {
            "version": f"{model_name} version {version}",
            "aliases": sorted(alias for alias, number in aliases.items() if str(number) == version),
            "experiment": tags.get("experiment"),
            "weights_sha256": tags.get("weights_sha256"),
            "files": json.loads(tags.get(FILES_TAG, "{}")),
            "git_commit": tags.get("git_commit"),
            "git_dirty": tags.get("git_dirty"),
            "code_version": tags.get("code_version"),
            "dvc_lock_sha256": tags.get("dvc_lock_sha256"),
            "data_digest": tags.get("data_digest"),
            "evaluation_set_sha256": next((one.get("sha256") for one in judged if one), None),
            "decision": {name: decision.get(name) for name in ("decision", "reason", "at", "by")},
            "runs": [_run(registry, run_id) for run_id in _run_ids(tags)],
            "files_at": f"mlflow artifacts download --artifact-uri models:/{model_name}/{version}",
        }


def _decisions(tags: Mapping[str, str]) -> list[str]:
    """Names of the tags that hold decisions, newest first: the last one, then those kept under their time."""
    kept = [name for name in tags if name.startswith(f"{DECISION_TAG}.")]
    return [name for name in (DECISION_TAG, *sorted(kept, reverse=True)) if name in tags]


def _run_ids(tags: Mapping[str, str]) -> Iterator[str]:
    for stage in ("finetune", "distill", "pretrain", "unknown"):
        yield from filter(None, tags.get(f"run.{stage}", "").split(","))


def _run(registry: MlflowRegistry, run_id: str) -> dict[str, Any]:
    run = registry.client.get_run(run_id)
    tags = run.data.tags
    told = {name.rpartition(".")[2]: tags[name] for name in FROM_RUN if name in tags}
    told |= {name: value for name, value in tags.items() if "kubeflow" in name or "kfp" in name}
    data = {
        one.dataset.name: _digest(one.dataset) for one in (run.inputs.dataset_inputs if run.inputs else ())
    }
    return {"run": run.info.run_name, "run_id": run_id, **told, "data": data}


def _digest(dataset: Any) -> str:
    """The whole digest, which MLflow cuts short in its own field."""
    return str(json.loads(dataset.profile or "{}").get("digest", dataset.digest))


def of_photo(registry: MlflowRegistry, sha256: str) -> Iterator[dict[str, Any]]:
    """Every model that a photo's tiles trained or chose: registered versions, and runs on the same tiles.

    Raises:
        InputError: the registry does not answer.
    """
    with answering("tell the lineage"):
        digests: dict[str, list[dict[str, str]]] = {}
        for version in registry.client.search_model_versions():
            rows = [row for row in _trained_on(registry, version) if row["sha256"] == sha256]
            if not rows:
                continue
            digests[version.tags.get("data_digest", "")] = rows
            yield {
                "model": f"{version.name} version {version.version}",
                "weights_sha256": version.tags.get("weights_sha256"),
                "decision": json.loads(version.tags.get(DECISION_TAG, "{}")).get("decision"),
                **_as(rows),
            }
        for digest, rows in digests.items():
            yield from _runs_on(registry, digest, rows)


def _as(rows: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "photo": rows[0]["photo"],
        "tiles": ", ".join(f"{row['num_tiles']} for {row['split']}" for row in rows),
    }


def _runs_on(registry: MlflowRegistry, digest: str, rows: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
    experiments = [one.experiment_id for one in registry.client.search_experiments()]
    same = f"dataset.digest = '{digest[:MAX_DIGEST]}' and tags.`damcrack.stage` = 'finetune'"
    runs: list[MlflowRun] = list(registry.client.search_runs(experiments, same))
    for run in runs:
        yield {
            "model": f"run {run.info.run_name} ({run.info.run_id})",
            "weights_sha256": run.data.tags.get("damcrack.output"),
            "decision": "not a version by itself",
            **_as(rows),
        }


def _trained_on(registry: MlflowRegistry, version: "ModelVersion") -> list[dict[str, str]]:
    """The photos of a version, fetched once for all versions that were trained on the same."""
    sha256 = json.loads(version.tags.get(FILES_TAG, "{}")).get(TRAINED_ON)
    if sha256 is None:
        return []
    kept = FETCHED / f"photos-{sha256}.csv"
    if not kept.is_file() or sha256_file(kept) != sha256:
        folder = registry.fetch(version.name, str(version.version))  # checks it
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, (folder / TRAINED_ON).read_bytes())
    return read_csv(kept)


def _print(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    lists = {name: rows for name, rows in found.items() if name in ("runs", "trained")}
    _print_pairs(console, {name: value for name, value in found.items() if name not in lists}, indent=0)
    for rows in lists.values():
        for row in rows:
            console.print()
            _print_pairs(console, row, indent=2)
    if found.get("trained") == []:
        console.print("it trained no model that this registry knows")


def _print_pairs(console: Console, pairs: Mapping[str, Any], indent: int) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, indent))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name.replace("_", " "), _words(value))
    console.print(table)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_words(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
