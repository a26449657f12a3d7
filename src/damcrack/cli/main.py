"""The command line: its groups of commands, how it ends, and what a user is told when it fails."""

import errno
import io
import os
import signal
import socket
import sys
import threading
import time

import click

import damcrack
from damcrack.cli import champion, graph, inspecting
from damcrack.cli.imagery import imagery
from damcrack.cli.options import Sections, add_examples
from damcrack.cli.pipeline import pipeline
from damcrack.cli.project import init
from damcrack.files import InputError
from damcrack.messages import shown

GRACE_S = 5.0  # from SIGTERM to the end; Kubernetes kills after 30
EXTRAS = {
    "train": ("torch", "torchvision", "safetensors"),
    "results": ("matplotlib", "markdown_it", "scipy", "sklearn"),
    "export": ("onnx", "onnxscript"),
    "cad": ("ezdxf",),
    "gis": ("pyogrio",),
    "cvat": ("pycocotools",),
    "track": ("mlflow",),
    "s3": ("boto3",),
    "graph": ("dvc",),
    "cluster": ("kfp",),
}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which a shell completes commands and options."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "damcrack", "_DAMCRACK_COMPLETE").source())


SECTIONS = {
    "Inspect and sign": inspecting.COMMANDS,
    "Train: stages of the graph": graph.STAGE_COMMANDS,
    "Train: around the graph": (init, *graph.COMMANDS),
    "Registry": champion.COMMANDS,
    "Cluster and new photos": (pipeline, imagery),
    "Shell": (completion,),
}


@click.group(
    cls=Sections,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(damcrack.__version__)
@click.pass_context
def cli(context: click.Context) -> None:
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
    context.obj = time.monotonic()


@cli.result_callback()
@click.pass_context
def _show(context: click.Context, summary: dict[str, object] | None) -> None:
    """Show the summary that a command returned."""
    if summary is not None:
        from damcrack.stage_runner import show

        show(str(context.invoked_subcommand), summary, time.monotonic() - context.obj)


add_examples(cli)


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
        library = (error.name or "").split(".")[0]
        for extra, libraries in EXTRAS.items():
            if library in libraries:
                return f'this command needs {error.name}; install it with: pip install "damcrack[{extra}]"'
        raise error
    if not isinstance(error, OSError):
        return str(error)
    text = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += "; what was finished is kept: free some space and give the same command again"
    return text


if __name__ == "__main__":
    main()
