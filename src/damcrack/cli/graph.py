"""The stages of the graph as commands, and the commands around them; what they do is loaded when they run."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from damcrack.cli.options import OUT, PARAMS, PATH, SETTINGS, Sections
from damcrack.files import read_json
from damcrack.stage_table import INPUT_HELP, STAGES, Stage


def stage_command(stage: Stage) -> click.Command:
    """The command of a stage: its inputs, its item, and what all stages have."""

    @OUT
    @PARAMS
    @SETTINGS
    def run_stage(
        params_path: Path,
        out: Path,
        settings: tuple[str, ...],
        item: str | None = None,
        **inputs: Path | None,
    ) -> dict[str, object]:
        from damcrack.params import parse_changes, read_params, stage_config
        from damcrack.stage_runner import execute

        config = stage_config(read_params(params_path), stage.name, item, parse_changes(settings))
        return execute(stage, config, out, item, inputs)

    options = [
        click.Option([f"--{name}"], type=PATH, required=not optional, help=INPUT_HELP[name])
        for name, optional in stage.options.items()
    ]
    if stage.has_items:
        options.append(click.Option(["--item"], required=True, help="Which item of its section."))
    return click.command(stage.name, help=stage.help, params=options)(run_stage)


@click.command()
@click.argument("file", type=PATH, default=Path("params.yaml"))
def check(file: Path) -> None:
    """Check every value of a params file (default: params.yaml) against the schemas of the stages.

    In a folder with a dvc.yaml also that its graph can be made of the values: that each network, teacher and experiment
    which is named there is trained by some stage. This needs DVC.
    """
    from damcrack.params import check_params, read_params

    configs = check_params(read_params(file), list(STAGES))
    if Path("dvc.yaml").is_file() and find_spec("dvc"):
        from damcrack.kubeflow.graph import check_graph, derive

        nodes = derive(Path.cwd(), file.read_text(encoding="utf-8"))
        for unused in check_graph(nodes, configs, Path.cwd()):
            click.echo(f"dvc.yaml: no stage runs {unused}; is it in the right group of {file}?", err=True)
        click.echo(f"dvc.yaml: {len(nodes)} stages can be made of them")
    click.echo(f"{file}: {len(configs)} configs are valid: {', '.join(configs)}")


@click.command()
@click.argument("stage", type=click.Choice(["photos", "miniimagenet"]))
@PARAMS
def snapshot(stage: str, params_path: Path) -> Any:
    """List the files of a stage's sources with their hashes, so that new files become a changed input.

    Writes snapshots/STAGE.csv, which the stage takes in exactly. Needed for folders and s3:// prefixes, each
    time that they have changed.
    """
    from damcrack.data.snapshot import snapshot as write
    from damcrack.params import read_params, stage_config
    from damcrack.progress import Watcher
    from damcrack.storage.source import open_source

    config = stage_config(read_params(params_path), stage, None)
    sources = config.sources if stage == "photos" else {stage: config.source}
    return write(sources, Path("snapshots") / f"{stage}.csv", open_source, Watcher())


@click.command()
def summary() -> None:
    """Show what the last run of the graph made and where to look."""
    from rich.table import Table

    from damcrack.progress import plain_console

    results, fix = Path("results"), "run the graph to its end: `make repro`"
    metrics = read_json(results / "evaluate/metrics.json", fix)
    registered = read_json(results / "register/register.json", fix)
    chosen = metrics["evaluation_set"]
    title = f"crack classifiers on {chosen['num_tiles']} tiles of the {chosen['split']} split"
    table = Table(title=title, title_justify="left")
    for column in ("experiment", "accuracy", "recall", "AUROC"):
        table.add_column(column, justify="left" if column == "experiment" else "right")
    rows = metrics["experiments"] | {f"{name} (baseline)": row for name, row in metrics["baselines"].items()}
    for name, row in sorted(rows.items(), key=lambda pair: -pair[1]["accuracy"]):
        auroc = "-" if row.get("auroc") is None else f"{row['auroc']:.4f}"
        table.add_row(name, f"{row['accuracy']:.2%}", f"{row['recall']:.2%}", auroc)
    console = plain_console()
    console.print(table)
    console.print(f"registered   {registered['model_name']}, weights {registered['weights_sha256'][:12]}")
    console.print(f"page         {results / 'evaluate/results.html'}")
    console.print("runs         make ui (without a clone: damcrack ui)")


@click.group(cls=Sections)
def track() -> None:
    """Runs that have not reached the tracking server yet."""


@track.command()
def send() -> None:
    """Send all runs that wait on disk; nothing is sent twice."""
    from damcrack.tracking.send import send_later

    click.echo(send_later())


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 5000, or a free one if it is taken.")
def ui(port: int | None) -> None:
    """Send the runs that wait, and show MLflow's pages on all of them until Ctrl-C."""
    from damcrack.tracking.ui import serve

    serve(port, click.echo)


@click.command("tiles-to-folders")
@click.option("--tiles", type=PATH, required=True, help="Output folder of `tile`.")
@OUT
def tiles_to_folders(tiles: Path, out: Path) -> None:
    """Unpack tiles into two folders per split, as the paper keeps them: SPLIT/crack, SPLIT/no-crack."""
    from damcrack.data.imageset import tiles_to_folders as unpack
    from damcrack.progress import Watcher

    unpack(tiles, out, Watcher())


STAGE_COMMANDS = [stage_command(one) for one in STAGES.values() if one.name != "inspect"]
COMMANDS = (check, snapshot, summary, tiles_to_folders, track, ui)
