"""One execution of one stage: values checked, inputs there, recorded as one run, summary shown."""

import hashlib
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from damcrack.files import InputError, check_output, read_json, sha256_bytes, sha256_file, write_json
from damcrack.messages import shown, without_passwords
from damcrack.params import flatten, flatten_values, read_params
from damcrack.progress import plain_console
from damcrack.run import Run
from damcrack.source import source_sha256
from damcrack.stage_table import Stage

if TYPE_CHECKING:
    from damcrack.tracking.recorded import Graph


def execute(
    stage: Stage, config: Any, out: Path, item: str | None, inputs: Mapping[str, Path | None]
) -> dict[str, object]:
    """Run one stage function with its config, recorded as one MLflow run; returns its summary."""
    from damcrack.scratch import scratch_in_use  # these need Unix, the tools around the graph do not
    from damcrack.tracking.recorded import caller_tags, start_run

    given = check_inputs(inputs)
    check_output(out, "model" if stage.room == "train" else stage.name)
    function = getattr(import_module(stage.module), stage.name)
    arguments: dict[str, Any] = {**given, "out": out, "config": config}
    arguments |= {"item": item} if item else {}
    wanted = inspect.signature(function).parameters
    arguments |= {name: service() for name, service in SERVICES.items() if name in wanted}
    tags = {"damcrack.stage_key": stage_key(stage.name, item, flatten(config), given), **caller_tags()}
    with start_run(stage.name, item, flatten(config), tags, _graph()) as run:
        watched: Run = run  # a stage sees no more than this of its caller
        with scratch_in_use(run.scratch, run.say), failure_kept(out, run.scratch):
            summary = function(**arguments, run=watched)
        run.finish_outputs(content_digest(out), **parents(out))
    return dict(summary)


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


def _open_source() -> Any:
    from damcrack.storage.source import open_source

    return open_source


def _registry() -> Any:
    from damcrack.registry.registry import MlflowRegistry

    return MlflowRegistry()


SERVICES = {"open_source": _open_source, "registry": _registry}  # parameters that no stage imports itself


def stage_key(stage: str, item: str | None, values: dict[str, Any], inputs: dict[str, Path]) -> str:
    """Name a stage's execution by everything that goes in: name, values, code, input contents."""
    digests = {name: content_digest(path) for name, path in sorted(inputs.items())}
    content = repr((stage, item, sorted(values.items()), source_sha256(), digests))
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
