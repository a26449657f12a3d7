"""The commands about the champion: freeze an evaluation set, promote, roll back, history, lineage."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from damcrack.cli.options import OUT, PARAMS, PATH, SETTINGS

MODEL = "dam-crack-detector"
MODEL_NAME = click.option("--model-name", default=MODEL, show_default=True, help="Name in the registry.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
OF_THE_GRAPH = Path("results/register/evaluation-set")


@click.command()
@click.option("--photos", type=PATH, required=True, help="Output folder of `photos`.")
@click.option("--tiles", type=PATH, required=True, help="Output folder of `tile`, cut from these photos.")
@OUT
def freeze(photos: Path, tiles: Path, out: Path) -> Any:
    """Write the test tiles as an evaluation set that later models are compared on.

    Prints its digest: with `register.evaluation_sha256` set to it in params.yaml, and `register.evaluation_set` to the
    folder or its s3:// copy, every later decision uses this set and no other.
    """
    from damcrack.progress import Watcher
    from damcrack.registry.evaluation_set import freeze

    return freeze(photos, tiles, out, Watcher())


@click.command()
@click.argument("target", metavar="VERSION|NAME")
@click.option("--evaluation-set", help="Folder or s3:// prefix from `damcrack freeze`; default: the graph's.")
@click.option("--sha256", help="Digest that the evaluation set must have; an s3:// set needs it.")
@PARAMS
@SETTINGS
def promote(
    target: str, evaluation_set: str | None, sha256: str | None, params_path: Path, settings: tuple[str, ...]
) -> dict[str, object]:
    """Compare a registered version with the champion; make it champion if it is shown to be better.

    Both are loaded from the registry, their hashes checked, and scored on one evaluation set. The same gate as in the
    stage `register`; docs/promotion.md says how it decides.
    """
    from damcrack.files import InputError
    from damcrack.params import flatten, parse_changes, read_params, stage_config
    from damcrack.registry.champion import carry_out
    from damcrack.registry.evaluation_set import fetch_set
    from damcrack.registry.gate import Gate, ScoredModel
    from damcrack.registry.register import record_artifact
    from damcrack.registry.registry import MlflowRegistry
    from damcrack.storage.source import open_source
    from damcrack.tracking.recorded import start_run

    options = {"evaluation_set": evaluation_set, "evaluation_sha256": sha256}
    changes = {name: value for name, value in options.items() if value is not None} | parse_changes(settings)
    config = stage_config(read_params(params_path), "register", None, changes)
    place = config.evaluation_set or str(OF_THE_GRAPH)
    if config.evaluation_set is None and not OF_THE_GRAPH.is_dir():
        raise InputError(
            f"no evaluation set: {OF_THE_GRAPH} does not exist; run the graph, or set --evaluation-set (a folder or s3://)"
        )
    registry = MlflowRegistry("damcrack promote")
    model_name, version = registry.version_at(target, config.model_name)
    with start_run("promote", None, flatten(config), {}) as run:
        chosen = fetch_set(place, config.evaluation_sha256, open_source, run.scratch)
        run.dataset("evaluation set", chosen.digest, place, "test")
        gate, name = Gate(model_name, config, chosen, registry, run), f"{model_name} version {version}"
        challenger = ScoredModel.load(name, registry.fetch(model_name, version), chosen, run)
        decision, record = gate.decide(challenger, version)
        if record:
            carry_out(registry, record)
            record_artifact(record, run)
    summary: dict[str, object] = {
        "model": name,
        "evaluated on": f"evaluation set {chosen.digest[:12]}",
        **_scores(record),
    }
    summary["decision"] = f"{decision.outcome}: {decision.reason}"
    return summary


def _scores(record: Mapping[str, Any]) -> dict[str, str]:
    """Scores of both models and every check of a decision record, as lines of a summary."""
    roles = {role: record[role] for role in ("challenger", "champion") if record.get(role)}
    lines = {
        role: f"accuracy {_number(scores['accuracy'])}, recall {_number(scores['recall'])}, wide cracks "
        f"{_number(scores['wide_recall'])}, ECE {_number(scores['ece'])}"
        for role, scores in roles.items()
    }
    for check in record.get("checks", ()):
        name = f"{'ok  ' if check['passed'] else 'FAIL'} {check['name']}"
        lines[name] = f"{_number(check['found'])}, required {check['required']}"
    return lines


def _number(value: float | None) -> str:
    return "unknown" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


@click.command()
@click.argument("out", metavar="FOLDER", type=PATH, default=Path("results/register"))
def registered(out: Path) -> None:
    """Succeed if running `register`, which wrote FOLDER, again would change nothing in the registry.

    The registry holds the model under its hashes as challenger, and it is champion, or was compared by the same
    policy on the same evaluation set with the present champion. If not, the exit status is 1 and a line says why.
    """
    from damcrack.files import InputError
    from damcrack.registry.register import why_register_again
    from damcrack.registry.registry import MlflowRegistry

    reason = why_register_again(out, MlflowRegistry("damcrack registered"))
    if reason:
        raise InputError(f"`damcrack register` has to run: {reason}")
    click.echo(f"{out}: the registry agrees; registering again would change nothing")


@click.command()
@MODEL_NAME
@click.option("--reason", required=True, help="Why the champion is replaced; the history shows it.")
@click.option(
    "--to",
    type=click.IntRange(1),
    metavar="VERSION",
    help="Version to make champion; default: the champion before.",
)
def rollback(model_name: str, reason: str, to: int | None) -> dict[str, object]:
    """Go back to the champion before, or to a named version, once its files are checked."""
    from damcrack.registry.champion import roll_back
    from damcrack.registry.register import record_artifact
    from damcrack.registry.registry import MlflowRegistry
    from damcrack.tracking.recorded import start_run

    with start_run("rollback", None, {"model_name": model_name}, {}) as run:
        record = roll_back(model_name, reason, str(to) if to else None, MlflowRegistry("damcrack rollback"))
        record_artifact(record, run)
    return {
        "champion": f"{model_name} version {record['version']}",
        "before": f"version {record['champion_before'] or 'none'}",
        "reason": reason,
    }


@click.command()
@MODEL_NAME
@AS_JSON
def history(model_name: str, as_json: bool) -> None:
    """List every decision about a model, oldest first: by whom, why, and which version was champion after it."""
    from dataclasses import asdict

    from rich.table import Table

    from damcrack.files import InputError
    from damcrack.progress import plain_console
    from damcrack.registry.champion import CHAMPION, history
    from damcrack.registry.registry import MlflowRegistry

    registry = MlflowRegistry("damcrack history")
    steps = history(registry.records(model_name), registry.aliased(model_name, CHAMPION))
    if as_json:
        click.echo(json.dumps([asdict(step) for step in steps], indent=2))
        return
    if not steps:
        raise InputError(f"no decision about {model_name} is recorded; check its name in the registry")
    table = Table(title=f"decisions about {model_name}", title_justify="left")
    for column in ("when, UTC", "version", "decision", "champion"):
        table.add_column(column, no_wrap=True)
    table.add_column("by and why", overflow="fold")
    for step in steps:
        by = step.by or {}
        who = f"{by.get('user', '?')}, {by.get('command', '?')}: {step.reason}"
        when = step.at[:16].replace("T", " ")
        table.add_row(when, step.version or "none", step.decision, step.after or "none", who)
    plain_console().print(table)


@click.command()
@click.argument("target", metavar="VERSION|PHOTO")
@MODEL_NAME
@AS_JSON
def lineage(target: str, model_name: str, as_json: bool) -> None:
    """Show what a version was made from, or which models a photo trained.

    VERSION is a number, NAME/VERSION or NAME@ALIAS. PHOTO is a file or the sha256 of one.
    """
    import yaml

    from damcrack.registry.lineage import lineage
    from damcrack.registry.registry import MlflowRegistry

    found = lineage(MlflowRegistry("damcrack lineage"), target, model_name)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000), nl=False)


COMMANDS = (promote, rollback, history, lineage, freeze, registered)
