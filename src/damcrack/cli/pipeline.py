"""`damcrack pipeline`: the graph on a cluster; and `damcrack task`, one stage of it as a container runs it."""

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from damcrack.files import InputError

CRON_FIELD = re.compile(r"[0-9A-Za-z*/,?LW#-]+")
NAMED_DIGEST = "@sha256:"


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


PATH = click.Path(path_type=Path)
PARAMS = click.option("--params", "params_path", type=PATH, default=Path("params.yaml"), show_default=True)
REMOTE = click.option("--remote", required=True, help="DVC remote that all tasks share: s3://bucket/prefix.")
SNAPSHOT = click.option(
    "--snapshot",
    "snapshots",
    multiple=True,
    metavar="STAGE=FILE",
    help="Snapshot of a stage's source: a file, or its s3:// address. Default: those of the image.",
)
SETTING = _options(
    PARAMS,
    REMOTE,
    click.option("--cpu-image", required=True, help="Image without torch, by digest: NAME@sha256:..."),
    click.option("--train-image", required=True, help="Image with torch, by digest."),
    click.option("--revision", help="Revision of the code in the images; default: that of this checkout."),
    SNAPSHOT,
    click.option(
        "--imagery",
        type=PATH,
        help="imagery.yaml: the pipeline that takes in new photos and trains when enough are labelled.",
    ),
)
CLUSTER = _options(
    click.option("--host", help="Kubeflow Pipelines' address; default: KF_PIPELINES_ENDPOINT."),
    click.option("--experiment", default="damcrack", show_default=True),
    click.option("--namespace", help="For a multi-user Kubeflow."),
)


@click.group()
def pipeline() -> None:
    """Run the graph of dvc.yaml on Kubeflow Pipelines.

    \b
    damcrack pipeline compile --remote s3://dam/dvc --cpu-image ... --train-image ... --out training.yaml
    damcrack pipeline submit  --remote s3://dam/dvc --cpu-image ... --train-image ...
    damcrack pipeline schedule --cron "0 0 3 * * 1" --name weekly --remote ...
    damcrack pipeline schedule --cron "0 */15 * * * *" --name arrivals --imagery imagery.yaml --remote ...
    damcrack pipeline status
    """  # noqa: D301  # click wants the character itself


@pipeline.command("compile")
@SETTING
@click.option("--out", type=PATH, default=Path("training.yaml"), show_default=True, help="File to write.")
def compile_(out: Path, **given: Any) -> None:
    """Write the pipeline of these values as YAML; the same input gives the same bytes."""
    _compile(out, **given)
    click.echo(f"{out}: {out.stat().st_size} bytes")


@pipeline.command()
@SETTING
@CLUSTER
@click.option("--name", default="training", show_default=True, help="Name of the run.")
def submit(name: str, host: str | None, experiment: str, namespace: str | None, **given: Any) -> None:
    """Check the values, compile and start one run."""
    package = _compiled(given)
    cluster = _pipelines("cluster").Cluster(host, experiment, namespace)
    click.echo(f"run {cluster.submit(package, name, {})} of {name!r} was started")


@pipeline.command()
@SETTING
@CLUSTER
@click.option("--name", default="training", show_default=True, help="Name of the schedule.")
@click.option("--cron", required=True, help='Six fields, seconds first: "0 0 3 * * 1" is Mondays at 3.')
@click.option(
    "--wait", type=float, default=3600, show_default=True, help="Seconds to wait for a run of the old one."
)
def schedule(
    name: str, cron: str, wait: float, host: str | None, experiment: str, namespace: str | None, **given: Any
) -> None:
    """Run it again and again, in place of the schedule of the same name; a run that goes on is not killed."""
    check_cron(cron)
    package = _compiled(given)
    cluster = _pipelines("cluster").Cluster(host, experiment, namespace)
    # A training takes hours, and photos that arrive meanwhile are not to wait for it: their ledger allows two runs.
    at_once = 2 if given["imagery"] else 1
    made = cluster.schedule(package, name, cron, at_once, wait)
    click.echo(f"schedule {made}: {name!r} at {cron!r}")


@pipeline.command()
@CLUSTER
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True)
def status(host: str | None, experiment: str, namespace: str | None, limit: int) -> None:
    """Show the schedules and the latest runs, with the tasks that failed."""
    cluster = _pipelines("cluster").Cluster(host, experiment, namespace)
    for name, cron, mode in cluster.schedules():
        click.echo(f"schedule  {name}  {cron}  {mode}")
    for run in cluster.status(limit):
        failed = f"  failed: {', '.join(run.failed)}" if run.failed else ""
        click.echo(f"run       {run.name}  {run.state}  {run.created}  {run.run_id}{failed}")


@click.command()
@click.argument("stage")
@PARAMS
@REMOTE
@SNAPSHOT
@click.option("--part", "parts", type=PATH, multiple=True, help="Lock part of a parent, as --out wrote it.")
@click.option("--out", type=PATH, required=True, help="File for this stage's lock part.")
def task(
    stage: str, params_path: Path, remote: str, snapshots: tuple[str, ...], parts: tuple[Path, ...], out: Path
) -> None:
    """Run one STAGE as a task of a pipeline does: restored from the remote if any machine has run it.

    Works in a workspace of its own; what it makes goes to the remote. `damcrack task photos --remote DIR --out
    photos.part`, then `damcrack task tile --remote DIR --part photos.part --out tile.part`.
    """
    from damcrack.kubeflow.task import Task, run_task

    texts = [part.read_text().strip() for part in parts]
    done = run_task(Task(stage, texts, _text(params_path), remote, _snapshots(snapshots)))
    out.write_text(done.lock_part + "\n")


def check_cron(cron: str) -> None:
    """Refuse what is not six fields: Kubeflow would take five in silence and fire at other times.

    Raises:
        InputError: the number of fields is wrong, or one holds what no cron line has.
    """
    fields = cron.split()
    if len(fields) != 6:
        hint = f'; did you mean "0 {cron}"?' if len(fields) == 5 else ""
        raise InputError(
            f"--cron {cron!r}: got {len(fields)} fields, expected 6: second minute hour day month weekday{hint}"
        )
    for field, name in zip(fields, ("second", "minute", "hour", "day", "month", "weekday"), strict=True):
        if not CRON_FIELD.fullmatch(field):
            raise InputError(f"--cron {cron!r}: {field!r} is no {name}; expected for example * or */5 or 1-5")


def _compiled(given: dict[str, Any]) -> Path:
    """A checked, compiled package in the working folder's scratch."""
    for image in (given["cpu_image"], given["train_image"]):
        if NAMED_DIGEST not in image:
            raise InputError(
                f"image {image!r}: expected NAME{NAMED_DIGEST}...; a tag can come to mean another image, and "
                "Kubeflow's cache would serve the old one's results"
            )
    out = Path(".damcrack/pipelines/compiled.yaml")
    out.parent.mkdir(parents=True, exist_ok=True)
    _compile(out, **given)
    return out


def _compile(out: Path, imagery: Path | None, **given: Any) -> None:
    setting = _setting(**given)
    if imagery is None:
        _pipelines("training").compile_training(setting, out)
        return
    from damcrack.imagery.calls import check_source, read_config
    from damcrack.params import read_params

    check_source(read_config(imagery), read_params(given["params_path"]))
    _pipelines("new_imagery").compile_new_imagery(setting, imagery.read_text(), out)


def _setting(
    params_path: Path,
    remote: str,
    cpu_image: str,
    train_image: str,
    revision: str | None,
    snapshots: tuple[str, ...],
) -> Any:
    from damcrack.params import check_params, read_params
    from damcrack.stage_table import STAGES

    check_params(read_params(params_path), list(STAGES))
    if not remote.startswith("s3://") and not Path(remote).is_absolute():
        raise InputError(f"--remote {remote!r}: expected s3://bucket/prefix")
    return _pipelines("training").Setting(
        checkout=Path.cwd(),
        params=_text(params_path),
        remote=remote,
        images={"cpu": cpu_image, "train": train_image},
        revision=revision or _revision(),
        snapshots=_snapshots(snapshots),
    )


def _text(params_path: Path) -> str:
    if not params_path.is_file():
        raise InputError(f"{params_path} is missing; run from the repository, or name it with --params")
    return params_path.read_text()


def _snapshots(given: tuple[str, ...]) -> dict[str, str]:
    snapshots = {}
    for setting in given:
        stage, equals, file = setting.partition("=")
        if not (stage and equals and file):
            raise InputError(
                f"--snapshot {setting}: expected STAGE=FILE, for example photos=snapshots/photos.csv"
            )
        snapshots[stage] = file if file.startswith("s3://") else _snapshot_text(Path(file))
    return snapshots


def _snapshot_text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"--snapshot: {path} is missing; `damcrack snapshot` writes it")
    return path.read_text()


def _revision() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise InputError("this is no git checkout; say with --revision which code the images hold")
    return done.stdout.strip()


def _pipelines(module: str) -> Any:
    """A module of the checkout's folder pipelines/, which is beside the package, not in it."""
    if not Path("pipelines", f"{module}.py").is_file():
        raise InputError(
            f"no pipelines/{module}.py here; run `damcrack pipeline` in a checkout of the repository"
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return import_module(f"pipelines.{module}")
