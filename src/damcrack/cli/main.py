"""The command line: each stage as a command, and a few that help around them."""

import errno
import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click

import damcrack
from damcrack.cli.champion import COMMANDS
from damcrack.cli.examples import add_examples
from damcrack.cli.imagery import imagery
from damcrack.cli.options import DECISIONS, OPEN, OUT, OUT_OR_BUCKET, PARAMS, PART, PATH, Sections, out_option
from damcrack.cli.pipeline import pipeline
from damcrack.files import InputError
from damcrack.messages import shown
from damcrack.stage_table import INPUT_HELP, STAGES, Stage

GRACE_S = 5.0  # from SIGTERM to the end; Kubernetes kills after 30
EXTRA_OF = {
    "torch": "train",
    "torchvision": "train",
    "safetensors": "train",
    "matplotlib": "results",
    "markdown_it": "results",
    "scipy": "results",
    "sklearn": "results",
    "onnx": "export",
    "onnxscript": "export",
    "ezdxf": "cad",
    "pyogrio": "gis",
    "pycocotools": "cvat",
    "mlflow": "track",
    "boto3": "s3",
    "dvc": "graph",
    "kfp": "cluster",
}


SECTIONS = {
    "Inspect and sign": (
        "inspect",
        "demo",
        "report",
        "compare",
        "review",
        "export-survey",
        "import-coco",
    ),
    "Train: stages of the graph": tuple(name for name in STAGES if name != "inspect"),
    "Train: around the graph": ("init", "check", "snapshot", "summary", "tiles-to-folders", "track", "ui"),
    "Registry": ("promote", "rollback", "history", "lineage", "freeze", "registered"),
    "Cluster and new photos": ("pipeline", "imagery"),
    "Shell": ("completion",),
}


@click.group(
    cls=Sections,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(damcrack.__version__)
def cli() -> None:
    """Find and measure cracks in photos of concrete dams; train the detector that does it.

    `damcrack inspect PHOTOS` looks for cracks with the detector that comes with the package. Each stage of the graph
    is a command too: it reads folders, takes its values from params.yaml and writes one folder. `dvc repro` runs them
    all in order and only where something changed.

    \b
    Exit status:
      0    done; files that could not be used are listed
      1    failed; one sentence says why and how to fix it
      2    the command line is wrong, as by an unknown option
      130  interrupted, 143 stopped; the same command resumes
    """  # noqa: D301  # click wants the character itself


def main() -> None:
    """Run the command line; the user's mistakes end in one message, ours in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that a console lacks becomes its number
    os.umask(os.umask(0o077) | 0o002)  # nothing is written for everybody to change
    stopped = end_soon_when_told()
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("\ndamcrack: interrupted; run the same command to resume", err=True)
        if stopped:  # all is cleaned up; libraries and their threads may take long to end
            sys.stderr.flush()
            os._exit(128 + signal.SIGTERM)
        sys.exit(128 + signal.SIGINT)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (InputError, OSError, ModuleNotFoundError, MemoryError) as error:
        if os.environ.get("DAMCRACK_TRACEBACK"):
            raise
        sys.exit(f"damcrack: error: {shown(_explain(error))}")


def end_soon_when_told() -> list[int]:
    """Have SIGTERM, as a stopped container gets it, end the process like Ctrl-C, and at the latest after GRACE_S.

    A long call of a library holds up Python's own handler, and a thread that works or sends holds up the end; what a
    process leaves that ends so is as after a kill. Returns a list that holds the signal once it came.
    """
    stopped = list[int]()

    def interrupt(number: int, frame: object) -> None:
        stopped.append(number)
        if len(stopped) == 1:
            raise KeyboardInterrupt

    def watch() -> None:
        while reader.recv(1) != bytes([signal.SIGTERM]):
            pass
        time.sleep(GRACE_S)
        os._exit(128 + signal.SIGTERM)

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=watch, daemon=True).start()
    return stopped


def _explain(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return (
            "there is not enough memory; close other programs, or use a smaller batch_size or smaller photos"
        )
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise error
        return f'this command needs {error.name}; install it with: pip install "damcrack[{extra}]"'
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{error.strerror}{f': {error.filename}' if error.filename else ''}; "
            "what was finished is kept: free some space and give the same command again"
        )
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return str(error)


def _stage_command(stage: Stage) -> click.Command:
    def run_stage(
        params_path: Path,
        out: Path,
        settings: tuple[str, ...],
        item: str | None = None,
        **inputs: Path | None,
    ) -> None:
        from damcrack.params import parse_changes, read_params, stage_config
        from damcrack.stage_runner import execute

        config = stage_config(read_params(params_path), stage.name, item, parse_changes(settings))
        execute(stage, config, out, item, inputs)

    settings = click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A value that overrides params.yaml's."
    )
    return click.command(stage.name, help=stage.help)(_with_stage_options(stage, settings(run_stage)))


def _with_stage_options(stage: Stage, command: Callable[..., None]) -> Callable[..., None]:
    command = OUT(PARAMS(command))
    if stage.has_items:
        command = click.option("--item", required=True, help="Which item of its section.")(command)
    for name in reversed(stage.inputs):
        option, needed = f"--{name.rstrip('?')}", not name.endswith("?")
        command = click.option(option, type=PATH, required=needed, help=INPUT_HELP[option[2:]])(command)
    return command


@cli.command()
@click.argument("file", type=PATH, default=Path("params.yaml"))
def check(file: Path) -> None:
    """Check every value of a params file (default: params.yaml) against the schemas of the stages."""
    from damcrack.params import check_params, read_params

    names = check_params(read_params(file), list(STAGES))
    click.echo(f"{file}: {len(names)} configs are valid: {', '.join(names)}")


@cli.command()
@click.argument("stage", type=click.Choice(["photos", "miniimagenet"]))
@PARAMS
def snapshot(stage: str, params_path: Path) -> None:
    """List the files of a stage's sources with their hashes, so that new files become a changed input.

    Writes snapshots/STAGE.csv, which the stage takes in exactly. Needed for folders and s3:// prefixes, each
    time that they have changed.
    """
    from damcrack.stage_runner import take_snapshot

    click.echo(take_snapshot(stage, params_path))


@cli.command()
def summary() -> None:
    """Show what the last run of the graph made and where to look."""
    from damcrack.stage_runner import show_graph_summary

    show_graph_summary(Path("results"))


@cli.group(cls=Sections)
def track() -> None:
    """Runs that have not reached the tracking server yet."""


@track.command()
def send() -> None:
    """Send all runs that wait on disk; nothing is sent twice."""
    from damcrack.tracking.recorded import send_later

    click.echo(send_later())


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 5000, or a free one if it is taken.")
def ui(port: int | None) -> None:
    """Send the runs that wait, and show MLflow's pages on all of them until Ctrl-C."""
    from damcrack.tracking.ui import serve

    serve(port, click.echo)


@cli.command()
@click.argument("folder", type=PATH)
def init(folder: Path) -> None:
    """Write the graph, its values and folders for a project of your own.

    FOLDER gets dvc.yaml, params.yaml, imagery.yaml, snapshots/ and photos/. What is there already stays as it is, but
    for versions.txt: after an update of damcrack run this again, and the stages run with the new code.
    """
    from damcrack.cli.project import init as write_project

    for line in write_project(folder):
        click.echo(line)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which a shell completes commands and options."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "damcrack", "_DAMCRACK_COMPLETE").source())


@cli.command("tiles-to-folders")
@click.option("--tiles", type=PATH, required=True, help="Output folder of `tile`.")
@OUT
def tiles_to_folders(tiles: Path, out: Path) -> None:
    """Unpack tiles into two folders per split, as the paper keeps them: SPLIT/crack, SPLIT/no-crack."""
    from damcrack.data.imageset import tiles_to_folders as unpack
    from damcrack.progress import Watcher

    unpack(tiles, out, Watcher())


@cli.command("inspect")
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option(
    "--model",
    default="shipped",
    show_default=True,
    help=f"{INPUT_HELP['detector'].rstrip('.')}; `shipped`: the detector that comes with the package.",
)
@OUT_OR_BUCKET
@OPEN
@PART
@click.option("--gsd", type=float, help="Millimetres per pixel on the wall, for all photos.")
@click.option("--gsd-csv", type=PATH, help="Table photo,gsd_mm_per_px; overrides --gsd.")
@click.option("--distance", type=float, help="Metres from camera to wall; the focal length comes from EXIF.")
@click.option("--overlap", type=float, help="Share of a block's side that neighbours have in common.")
@click.option("--tiles", type=PATH, help="Case study: output of `tile` for the PHOTOS stage's.")
@click.option("--params", "params_path", type=PATH, help="Take the section `inspect` of it.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A value that overrides all others."
)
def inspect(
    photos: tuple[str, ...],
    model: str,
    out: str,
    open_page: bool,
    part: str | None,
    gsd: float | None,
    gsd_csv: Path | None,
    distance: float | None,
    overlap: float | None,
    tiles: Path | None,
    params_path: Path | None,
    settings: tuple[str, ...],
) -> None:
    """Look for cracks in photos; write maps, tables and a report for the engineer.

    PHOTOS are files, folders, patterns, videos and s3:// prefixes. Needs neither params.yaml nor torch. Called
    again with the same --out it resumes, and looks only at what is new or changed; photos that are gone from their
    folder leave the survey. Another folder with the same --out adds to the survey, as long as model and values are
    the same.
    """
    from damcrack.cli import inspecting as inspection

    if open_page and (part or out.startswith("s3://")):
        raise InputError("--open needs a page on this disk; leave out --part, and name a folder as --out")
    named = {"gsd_mm_per_px": gsd, "distance_m": distance, "overlap": overlap}
    changed = {name: value for name, value in named.items() if value is not None}
    inspection.inspect(photos, model, out, params_path, settings, changed, gsd_csv, tiles, part)
    if open_page:
        inspection.open_in_browser(Path(out).expanduser() / "report.html")


@cli.command()
@out_option(default="demo", show_default=True)
@OPEN
def demo(out: Path, open_page: bool) -> None:
    """Inspect a built-in photo: a rendered wall that the detector never saw.

    Writes the photo as OUT.jpg, takes its pixels as half a millimetre, and inspects it into OUT.
    """
    from damcrack.cli import inspecting as inspection

    inspection.demo(out)
    if open_page:
        inspection.open_in_browser(out / "report.html")


@cli.command()
@click.argument("survey", type=PATH)
@OUT
@DECISIONS
def review(survey: Path, out: Path, decisions: Path | None) -> None:
    """Turn the findings that you decided on into a source of labelled tiles for the next training."""
    from damcrack.cli import inspecting as inspection

    inspection.review(survey, out, decisions)


@cli.command()
@click.argument("survey", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder to write, or a file.pdf.")
@DECISIONS
@click.option("--previous", type=PATH, help="Older survey: take its decisions over.")
@click.option("--structure", default="", help="For the title block.")
@click.option("--client", default="", help="For the title block.")
@click.option("--date", default="", help="For the title block: when the photos were taken.")
@click.option("--inspector", default="", help="For the title block.")
@click.option("--camera", default="", help="For the title block.")
@click.option("--scale", default="", help="For the title block; default: what the survey knows.")
def report(
    survey: Path, out: Path, decisions: Path | None, previous: Path | None, **title_block: str
) -> None:
    """Write the report to sign: accepted findings, rejected ones in an annex, undecided ones counted.

    Decide in SURVEY/report.html, save, and put decisions.json into SURVEY. With --previous, decisions on the same
    cracks of an older survey are taken over; they count once you confirm them: load OUT/decisions.json in the page.
    """
    from damcrack.cli import inspecting as inspection

    inspection.report(survey, out, decisions, previous, title_block)


@cli.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@OUT
@click.option("--pairs", type=PATH, help="Table old,new of photo names; default: same names.")
def compare(old: Path, new: Path, out: Path, pairs: Path | None) -> None:
    """Compare two surveys of the same wall: new, grown and vanished cracks.

    OLD and NEW are folders that `damcrack inspect` wrote.
    """
    from damcrack.cli import inspecting as inspection

    inspection.compare(old, new, out, pairs)


@cli.command("export-survey")
@click.argument("survey", type=PATH)
@click.option(
    "--format",
    "formats",
    type=click.Choice(("jpeg", "dxf", "gpkg", "csv", "geojson", "coco")),
    multiple=True,
    required=True,
    help="jpeg: each photo with its cracks; dxf: a drawing of each; gpkg: photos and cracks for GIS; csv, geojson, "
    "coco: the survey's own files, with decisions. May be repeated.",
)
@DECISIONS
@click.option("--undecided", is_flag=True, help="Write lines without a decision too; rejected ones never.")
@OUT
def export_survey(
    survey: Path, formats: tuple[str, ...], out: Path, decisions: Path | None, undecided: bool
) -> None:
    """Write what was accepted in SURVEY as annotated photos, drawings for CAD, a GeoPackage and more.

    SURVEY is a folder that `damcrack inspect` wrote. As long as there are no decisions, all traced lines are written.
    """
    from damcrack.cli import inspecting as inspection

    inspection.export_survey(survey, formats, out, decisions, undecided)


@cli.command("import-coco")
@click.argument("annotations", type=PATH)
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@OUT
def import_coco(annotations: Path, photos: tuple[str, ...], out: Path) -> None:
    """Turn cracks that you corrected in CVAT (exported as COCO 1.0) into a source of masks for the next training.

    A photo that the file lists without a crack counts as one without; other categories than `crack` are left alone.
    """
    from damcrack.cli import inspecting as inspection

    inspection.import_coco(annotations, photos, out)


for _command in COMMANDS:
    cli.add_command(_command)
cli.add_command(imagery)
cli.add_command(pipeline)
for _stage in STAGES.values():
    if _stage.name not in cli.commands:  # inspect has its own: it is a tool beside the graph too
        cli.add_command(_stage_command(_stage))
add_examples(cli)
