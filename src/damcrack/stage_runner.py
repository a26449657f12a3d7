"""One execution of one stage: values checked, inputs there, recorded as one run, summary shown."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from damcrack.files import InputError, check_output, read_json, sha256_bytes, sha256_file, write_json
from damcrack.messages import shown, without_passwords
from damcrack.params import flatten, flatten_values, read_params, stage_config
from damcrack.progress import Watcher, plain_console
from damcrack.run import Run
from damcrack.source import source_sha256
from damcrack.stage_table import Stage

if TYPE_CHECKING:
    from damcrack.tracking.recorded import Graph


def execute(stage: Stage, config: Any, out: Path, item: str | None, inputs: dict[str, Path | None]) -> None:
    """Run one stage function with its config, recorded as one MLflow run, and print its summary."""
    from damcrack.scratch import scratch_in_use  # these need Unix, the tools around the graph do not
    from damcrack.tracking.recorded import caller_tags, start_run

    started = time.monotonic()
    given = check_inputs(inputs)
    check_output(out, "model" if stage.room == "train" else stage.name)
    function = getattr(import_module(stage.module), stage.name)
    arguments: dict[str, Any] = {**given, "out": out, "config": config}
    arguments |= {"item": item} if item else {}
    arguments |= {name: _service(name) for name in stage.services}
    tags = {"damcrack.stage_key": stage_key(stage.name, item, flatten(config), given), **caller_tags()}
    with start_run(stage.name, item, flatten(config), tags, _graph()) as run:
        watched: Run = run  # a stage sees no more than this of its caller
        with scratch_in_use(run.scratch, run.say), failure_kept(out, run.scratch):
            summary = function(**arguments, run=watched)
        run.finish_outputs(content_digest(out), **parents(out))
    show(stage.name if item is None else f"{stage.name}@{item}", summary, time.monotonic() - started)


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


def check_inputs(inputs: dict[str, Path | None]) -> dict[str, Path]:
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
    if name == "open_source":
        from damcrack.storage.source import open_source

        return open_source
    assert name == "registry", name
    from damcrack.registry.registry import MlflowRegistry

    return MlflowRegistry()


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


def take_snapshot(stage: str, params_path: Path) -> str:
    """Write snapshots/STAGE.csv for the sources that params.yaml names; return what was written, in words."""
    from damcrack.data.snapshot import snapshot
    from damcrack.storage.source import open_source

    config = stage_config(read_params(params_path), stage, None)
    sources = config.sources if stage == "photos" else {"miniimagenet": config.source}
    summary = snapshot(sources, Path("snapshots") / f"{stage}.csv", open_source, Watcher())
    return ", ".join(f"{title}: {value}" for title, value in summary.items())


def show_graph_summary(results: Path) -> None:
    """Print the crack experiments by accuracy, what was registered, and where to look."""
    metrics_path, register_path = (
        results / "evaluate" / "metrics.json",
        results / "register" / "register.json",
    )
    metrics, registered = (
        read_json(path, "run the graph to its end: `make repro`") for path in (metrics_path, register_path)
    )
    chosen = metrics["evaluation_set"]
    title = f"crack classifiers on {chosen['num_tiles']} tiles of the {chosen['split']} split"
    table = Table(title=title, title_justify="left")
    for column in ("experiment", "accuracy", "recall", "AUROC"):
        table.add_column(column, justify="left" if column == "experiment" else "right")
    rows = metrics["experiments"] | {f"{name} (baseline)": row for name, row in metrics["baselines"].items()}
    for name, row in sorted(rows.items(), key=lambda pair: -pair[1]["accuracy"]):
        table.add_row(name, *(f"{row[key]:.2%}" for key in ("accuracy", "recall")), _number(row.get("auroc")))
    console = plain_console()
    console.print(table)
    console.print(f"registered   {registered['model_name']}, weights {registered['weights_sha256'][:12]}")
    console.print(f"page         {results / 'evaluate' / 'results.html'}")
    console.print("runs         make ui (without a clone: damcrack ui)")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
