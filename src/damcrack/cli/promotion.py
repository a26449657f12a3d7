"""The commands around promotion: freeze an evaluation set, let a version compete, go back, tell the history."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from damcrack.files import InputError
from damcrack.params import flatten, parse_changes, read_params, stage_config
from damcrack.progress import Watcher
from damcrack.registry.frozen import FrozenSet, fetch_set, open_set
from damcrack.registry.frozen import freeze as freeze_tiles
from damcrack.registry.places import resolve
from damcrack.registry.register import EVALUATION_SET, FORMAT, RegisterConfig, keep_record
from damcrack.registry.registry import DECISION_TAG, MlflowRegistry, answering
from damcrack.registry.settle import (
    BROUGHT_BACK,
    CHALLENGER,
    PROMOTED,
    WITHDRAWN,
    Gate,
    roll_back,
    withdrawn,
)
from damcrack.stage_runner import show
from damcrack.storage.source import open_source
from damcrack.tracking.recorded import start_run

OF_THE_GRAPH = Path("results/register") / EVALUATION_SET


def freeze(photos: Path, tiles: Path, out: Path) -> None:
    """Write the test tiles as an evaluation set."""
    started = time.monotonic()
    show("freeze", freeze_tiles(photos, tiles, out, Watcher()), time.monotonic() - started)


def promote(
    target: str, evaluation_set: str | None, sha256: str | None, params_path: Path, settings: Sequence[str]
) -> None:
    """Let a version compete with the champion, as the stage `register` does.

    Raises:
        InputError: a value, the version, the champion or the evaluation set cannot be used; nothing was moved.
    """
    started = time.monotonic()
    given = {"evaluation_set": evaluation_set, "evaluation_sha256": sha256}
    changed = {name: value for name, value in given.items() if value is not None}
    config: RegisterConfig = stage_config(
        read_params(params_path), "register", None, {**changed, **parse_changes(settings)}
    )
    registry = MlflowRegistry("damcrack promote")
    model_name, version = resolve(registry, target, config.model_name)
    with start_run("promote", None, flatten(config), {}) as run:
        frozen = _evaluation_set(config, run.scratch)
        run.dataset("evaluation set", frozen.digest, config.evaluation_set or str(OF_THE_GRAPH), "test")
        gate = Gate(model_name, config, frozen, registry, run)
        name = f"{model_name} version {version}"
        contest = gate.contest(name, registry.fetch(model_name, version))
        verdict, record = gate.settle(version, contest)
        keep_record(record, run)
    summary = {"model": name, "judged on": f"evaluation set {frozen.digest[:12]}"} | _numbers(record)
    decision = {"decision": f"{verdict.decision}: {verdict.reason}"}
    show("promote", summary | decision, time.monotonic() - started)


def _evaluation_set(config: RegisterConfig, scratch: Path) -> FrozenSet:
    if config.evaluation_set is not None:
        return fetch_set(config.evaluation_set, config.evaluation_sha256, open_source, scratch)
    if not OF_THE_GRAPH.is_dir():
        raise InputError(
            f"no evaluation set: {OF_THE_GRAPH} is not there; run the graph, or give --evaluation-set (a folder or s3://)"
        )
    return open_set(OF_THE_GRAPH, config.evaluation_sha256)


def _numbers(record: Mapping[str, Any]) -> dict[str, object]:
    if not record:
        return {}
    told: dict[str, object] = {}
    for name in ("challenger", "champion"):
        marks = record.get(name)
        if marks:
            told[name] = (
                f"accuracy {_share(marks['accuracy'])}, recall {_share(marks['recall'])}, wide cracks "
                f"{_share(marks['wide_recall'])}, ECE {_share(marks['ece'])}, {marks['ms_per_tile']:.2f} ms a tile"
            )
    for check in record["checks"]:
        mark = "ok  " if check["passed"] else "FAIL"
        told[f"{mark} {check['name']}"] = f"{_share(check['found'])}, asked {check['asked']}"
    return told


def _share(value: float | None) -> str:
    return "unknown" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def registered(folder: Path) -> None:
    """End with exit status 1 and the reason if the stage `register` has something to do again."""
    path = folder / "register.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; run the stage `register`, or `dvc repro`")
    made = json.loads(path.read_text())
    if made.get("format") != FORMAT:
        raise InputError(f"{path} was written by another version of damcrack; run the stage `register`")
    reason = why_again(made, MlflowRegistry("damcrack registered"))
    if reason:
        raise InputError(f"`damcrack register` has to run: {reason}")
    print(f"{path}: the registry agrees; registering again would change nothing")


def why_again(made: Mapping[str, Any], registry: MlflowRegistry) -> str | None:
    """Why `register`, which wrote `made`, would not leave the registry as it is; None if it would.

    Raises:
        InputError: the registry does not answer, or its champion was deleted.
    """
    name = made["model_name"]
    with answering("say what it holds"):
        found = registry.holding(name, made["weights_sha256"], made["onnx_sha256"])
        if found is None:
            return f"no version of {name} holds these files"
        version = str(found.version)
        if registry.aliased(name, CHALLENGER) != version:
            return f"alias {CHALLENGER} of {name} points elsewhere than to version {version}"
        champion = registry.reign(name).version
        if champion == version or withdrawn(registry.moves(name), version):
            return None
        decided: dict[str, Any] = json.loads(found.tags.get(DECISION_TAG, "{}"))
    same_set = decided.get("evaluation_set", {}).get("sha256") == made["evaluation_set"]["sha256"]
    if same_set and decided.get("policy") == made["policy"] and decided["champion_before"] == champion:
        return None
    return f"version {version} was not yet compared with champion {champion} on this set by this policy"


def rollback(model_name: str, reason: str, to: str | None) -> None:
    """Make the champion before the present one champion again."""
    started = time.monotonic()
    registry = MlflowRegistry("damcrack rollback")
    with start_run("rollback", None, {"model_name": model_name}, {}) as run:
        record = roll_back(model_name, reason, to, registry)
        keep_record(record, run)
    summary = {
        "champion": f"{model_name} version {record['version']}",
        "before": f"version {record['champion_before']}",
        "reason": reason,
    }
    show("rollback", dict(summary), time.monotonic() - started)


def history(model_name: str, as_json: bool) -> None:
    """Print every decision about a model, oldest first; the moves of the champion are numbered."""
    registry = MlflowRegistry("damcrack history")
    rows = list(decisions(registry, model_name))
    if as_json:
        print(json.dumps([record | {"move": number} for number, record in rows], indent=2))
        return
    if not rows:
        raise InputError(f"nothing was ever decided about {model_name}; see its name in the registry")
    table = Table(title=f"decisions about {model_name}", title_justify="left")
    for column in ("move", "when, UTC", "version", "decision", "before"):
        table.add_column(column, no_wrap=True)
    table.add_column("by and why", overflow="fold")
    for number, record in rows:
        by = record.get("by", {})
        table.add_row(
            str(number or ""),
            str(record.get("at", ""))[:16].replace("T", " "),
            str(record.get("version", "")),
            str(record["decision"]),
            str(record.get("champion_before") or "none"),
            f"{by.get('user', '?')}, {by.get('command', '?')}: {record.get('reason', '')}",
        )
    Console().print(table)


def decisions(registry: MlflowRegistry, model_name: str) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Moves of the champion with their numbers, and decisions that moved nothing with None, in order of time."""
    found = [
        (
            move.number,
            {
                "version": move.version,
                "champion_before": move.before,
                "decision": move.how,
                "reason": move.reason,
            }
            | {name: move.record[name] for name in ("at", "by") if name in move.record},
        )
        for move in registry.moves(model_name)
    ]
    rows: list[tuple[int | None, dict[str, Any]]] = list(found)
    with answering("tell its history"):
        for version in registry.client.search_model_versions(f"name = '{model_name}'"):
            texts = [text for key, text in version.tags.items() if key.startswith(f"{DECISION_TAG}.")]
            records = [json.loads(text) for text in texts]
            rows += [
                (None, one) for one in records if one["decision"] not in (PROMOTED, BROUGHT_BACK, WITHDRAWN)
            ]
    yield from sorted(rows, key=lambda row: str(row[1].get("at", "")))
