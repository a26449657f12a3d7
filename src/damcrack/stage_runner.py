"""One execution of one stage: values checked, inputs there, recorded as one run, summary shown."""

import hashlib
import inspect
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from damcrack.code import code_name, code_sha256
from damcrack.files import InputError, check_output, read_json, sha256_bytes, sha256_file, write_json
from damcrack.messages import shown, without_passwords
from damcrack.params import flatten, flatten_values, read_params
from damcrack.progress import plain_console
from damcrack.stage_table import Stage

if TYPE_CHECKING:
    from damcrack.tracking.recorded import Graph

BY_SOURCE = ("checkpoints", "soft-targets")  # one folder in each for each state of the code
DECODED_FILES = 8
DAY_S = 24 * 3600.0


def execute(
    stage: Stage, config: Any, out: Path, item: str | None, inputs: Mapping[str, Path | None]
) -> dict[str, object]:
    """Run one stage function with its config, recorded as one MLflow run; returns its summary."""
    from damcrack.tracking.recorded import caller_tags, start_run

    given = check_inputs(inputs)
    check_output(out, "model" if stage.room == "train" else stage.name)
    function = getattr(import_module(stage.module), stage.name)
    arguments: dict[str, Any] = {**given, "out": out, "config": config}
    arguments |= {"item": item} if item else {}
    wanted = inspect.signature(function).parameters
    arguments |= {name: _service(name) for name in ("open_source", "registry") if name in wanted}
    tags = {"damcrack.stage_key": stage_key(stage.name, item, flatten(config), given), **caller_tags()}
    with start_run(stage.name, item, flatten(config), tags, _graph()) as run:
        with scratch_in_use(run.scratch, run.say), failure_kept(out, run.scratch):
            summary = function(**arguments, run=run)
        run.finish_outputs(content_digest(out), **parents(out))
    return dict(summary)


@contextmanager
def scratch_in_use(scratch: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the scratch folder while a stage runs; first remove what is of no use, unless another stage runs in it.

    That one may have started with older code, and still needs its checkpoints.
    """
    import fcntl  # needs Unix, the tools around the graph do not

    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / ".in-use").open("w") as file:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clean(scratch, say)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _clean(scratch: Path, say: Callable[[str], None]) -> None:
    """Remove other code's checkpoints and soft targets, decoded sets out of use, and what killed stages left."""
    stale = [path for kind in BY_SOURCE for path in (scratch / kind).glob("*") if path.name != code_name()]
    used_at = {path: path.stat().st_mtime for path in (scratch / "decoded").glob("*.npy")}
    newest_first = sorted(used_at, key=lambda path: -used_at[path])
    unused = [path for path in newest_first[DECODED_FILES:] if used_at[path] < time.time() - DAY_S]
    if stale or unused:
        files = (file for path in stale + unused for file in (path, *path.rglob("*")) if file.is_file())
        say(
            f"removed from {scratch}: {len(stale)} folders with checkpoints or soft targets of other code, "
            f"{len(unused)} decoded arrays unused for a day ({sum(f.stat().st_size for f in files) / 2**30:.2f} GiB)"
        )
    unfinished = [one for kind in BY_SOURCE for one in (scratch / kind / code_name()).glob(".*.part")]
    for path in (*stale, *unused, *unfinished, *(scratch / "decoded").glob(".*.part")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def failure_kept(out: Path, scratch: Path) -> Iterator[None]:
    """Leave a record of why `out` is not there, for who looks at many outputs; none once it is.

    The record is there from the start, so that a process that is killed leaves one too.
    """
    record = scratch / "failed" / f"{sha256_bytes(str(out).encode())[:32]}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, {"out": str(out), "error": "it began and did not end: killed, or still running"})
    try:
        yield
    except BaseException as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk does not hide what went wrong
            write_json(record, {"out": str(out), "error": without_passwords(why)})
        raise
    record.unlink()


def check_inputs(inputs: Mapping[str, Path | None]) -> dict[str, Path]:
    """The inputs that were given, all there.

    Raises:
        InputError: one of them does not exist.
    """
    given = {name: path for name, path in inputs.items() if path is not None}
    for name, path in given.items():
        if not path.exists():
            raise InputError(f"--{name} {path} does not exist; run the stage that makes it, or `dvc repro`")
    return given


def _graph() -> "Graph | None":
    """The run of the graph that called us, with the values of its params.yaml; None outside of a graph."""
    from damcrack.tracking.recorded import Graph

    name, path = os.environ.get("DAMCRACK_GRAPH_RUN"), Path("params.yaml")
    if not name or not path.is_file():
        return None
    return Graph(name, flatten_values(read_params(path)))


def _service(name: str) -> Any:
    """What stages get as a parameter, because none imports it."""
    if name == "registry":
        from damcrack.registry.registry import MlflowRegistry

        return MlflowRegistry()
    from damcrack.storage.source import open_source

    return open_source


def stage_key(stage: str, item: str | None, values: dict[str, Any], inputs: dict[str, Path]) -> str:
    """Name a stage's execution by everything that goes in: name, values, code, input contents."""
    digests = {name: content_digest(path) for name, path in sorted(inputs.items())}
    content = repr((stage, item, sorted(values.items()), code_sha256(), digests))
    return hashlib.sha256(content.encode()).hexdigest()


def content_digest(path: Path) -> str:
    """Name the content of a stage's output: its tables and json files hold the hashes of everything else.

    A model is named by its weights, an exported one by its ONNX file: lineage is followed from hash to hash.
    """
    if path.is_file():
        return sha256_file(path)
    if (path / "model.json").is_file():
        info = read_json(path / "model.json")
        if digest := info.get("onnx_sha256") or info.get("weights_sha256"):
            return str(digest)
        raise InputError(f"{path / 'model.json'} names no weights; run the command that writes it again")
    names = sorted(file for kind in ("*.csv", "*.json") for file in path.rglob(kind))
    lines = [f"{file.relative_to(path).as_posix()} {sha256_file(file)}" for file in names]
    return sha256_bytes("\n".join(lines).encode())


def parents(out: Path) -> dict[str, str]:
    """The weights that a model was made from, by hash; nothing for other outputs."""
    path = out / "model.json"
    info = read_json(path) if path.is_file() else {}
    return {name: info[name] for name in ("init_sha256", "teacher_sha256") if info.get(name)}


def show(name: str, summary: dict[str, object], seconds: float) -> None:
    """Print the summary that a stage or a tool returned; a path stays on one line, as it is, to be copied."""
    console = plain_console(stderr=True)
    console.print(Text(name, "bold"), f"done in {seconds:.1f} s")
    width = max(map(len, summary), default=0)
    for title, value in summary.items():
        console.print(f"{title:{width}}  {shown(value)}", soft_wrap=True)
