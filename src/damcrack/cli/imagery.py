"""The commands for new imagery; what they do is loaded when they run."""

from pathlib import Path
from typing import Any

import click

from damcrack.cli.options import OPTIONAL_PARAMS, PATH, SETTINGS, Sections

CONFIG = click.option(
    "--config",
    type=PATH,
    default=Path("imagery.yaml"),
    show_default=True,
    help="Where photos arrive and where they are taken in.",
)


@click.group(cls=Sections)
def imagery() -> None:
    """New photos: taken in once each, inspected, and trained on when enough have come.

    Run one at a time (a schedule). After a kill, run again: what was not finished is repeated.
    """


@imagery.command("take-in")
@CONFIG
@SETTINGS
@click.option("--outcome", type=PATH, help="Write what is to be done next as json.")
def take_in(config: Path, settings: tuple[str, ...], outcome: Path | None) -> Any:
    """Take in every photo and mask that arrived and is not known yet, bad ones into quarantine with a reason.

    Photos are known by their content: repeats, renames and copies change nothing. A/masks/STEM.png is the mask of
    A/STEM.jpg; it may come later. Nothing is removed from where it arrived.
    """
    from damcrack.imagery import calls

    return calls.take_in(config, settings, outcome=outcome)


@imagery.command()
@CONFIG
@click.option("--model", required=True, help="models:/NAME@ALIAS of the registry, or a folder of `export`.")
@OPTIONAL_PARAMS
@SETTINGS
def inspect(config: Path, model: str, params_path: Path | None, settings: tuple[str, ...]) -> Any:
    """Inspect every batch of new photos that has no report; reports go to STORE/results/BATCH-HASH/report.html.

    --set takes the values of `damcrack inspect`, for example --set gsd_mm_per_px=0.8
    """
    from damcrack.imagery import calls

    return calls.inspect(config, model, params_path, settings)


@imagery.command()
@CONFIG
@click.option(
    "--out",
    type=PATH,
    default=Path("snapshots/photos.csv"),
    show_default=True,
    help="Snapshot to write; rows of other sources stay.",
)
@click.option("--number", type=click.IntRange(1), help="Last batch to write; default: the newest.")
def snapshot(config: Path, out: Path, number: int | None) -> Any:
    """Write what was taken in into the snapshot that the stage `photos` depends on."""
    from damcrack.imagery import calls

    return calls.write_snapshot(config, out, number)


@imagery.command()
@CONFIG
@click.argument("number", type=click.IntRange(1))
def trained(config: Path, number: int) -> None:
    """Note that the graph was trained on batches 1 to NUMBER: labels count from there to the next training."""
    from damcrack.imagery import calls

    calls.note_trained(config, number)


@imagery.command()
@CONFIG
def status(config: Path) -> Any:
    """Show what was taken in, what waits, and what is in quarantine and why."""
    from damcrack.imagery import calls

    return calls.status(config)
