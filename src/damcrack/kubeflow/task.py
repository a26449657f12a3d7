"""One stage of the graph as a task: restored from the common remote if any machine has run it, else run here.

Environment:
    DAMCRACK_CHECKOUT   folder with dvc.yaml and the code (set in our images); default: the working folder
    DAMCRACK_SCRATCH    folder that outlives a killed task, for checkpoints; default: inside the workspace
    DAMCRACK_IMAGE      set in our images: cpu has no torch
    AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...   how an s3:// remote is reached
"""

import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from damcrack.files import InputError
from damcrack.kubeflow.derive import Node, check_same_graph
from damcrack.kubeflow.lock_parts import merge
from damcrack.kubeflow.task_views import metrics_of, page_of, scores_of
from damcrack.kubeflow.workspace import Workspace
from damcrack.storage.source import check_reachable, open_source


@dataclass(frozen=True)
class Task:
    """What a task is told: all small texts, since all data lies in the remote.

    `snapshots` maps a stage to the text of its snapshot file, or to the s3:// address of one. `graph` is the
    compiled pipeline's, as `derive.as_text` wrote it; empty: any. `image` and `revision` say what runs; they
    are shown, and part of Kubeflow's cache key.
    """

    stage: str
    lock_parts: Sequence[str]
    params: str
    remote: str
    snapshots: Mapping[str, str] = field(default_factory=dict)
    graph: str = ""
    image: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Done:
    """What a task hands on: its lock part, and what Kubeflow's pages draw."""

    lock_part: str
    restored: bool
    metrics: Mapping[str, float]
    scores: Mapping[str, Any]
    page: str


def run_task(task: Task) -> Done:
    """Restore or run one stage in a new workspace and push what it made.

    Raises:
        InputError: the task is told something wrong, an input is not in the remote, or the stage failed.
    """
    started = time.monotonic()
    checkout = Path(os.environ.get("DAMCRACK_CHECKOUT") or Path.cwd())
    check_reachable(task.remote)
    with _workspace(task, checkout) as workspace:
        node = _node(task, checkout, workspace.nodes())
        workspace.fill(_texts(task.snapshots))
        workspace.put_parts(_parts_of(task, node))
        restored = workspace.restore(node)
        if not restored:
            workspace.pull_inputs(node.parents)
            workspace.reproduce(node)
            workspace.push(node.name)
        outs = workspace.outs(node.name)
        if restored:
            _record_restored(workspace.command(node.name), outs)
        _send_records()
        took = f"{time.monotonic() - started:.1f} s"
        print(
            f"damcrack: {node.name} {'restored from the remote' if restored else 'ran'}, {took}", flush=True
        )
        record = _record(task, restored, took, outs)
        metrics = {"restored": float(restored), **metrics_of(outs)}
        return Done(workspace.part(node.name), restored, metrics, scores_of(outs), page_of(outs, record))


def run_in_pipeline(**told: Any) -> Done:
    """`run_task` for a component: a mistake of the user's ends the container with one sentence, no traceback."""
    try:
        return run_task(Task(**told))
    except InputError as error:
        sys.exit(f"damcrack: error: {error}")


@contextlib.contextmanager
def _workspace(task: Task, checkout: Path) -> Iterator[Workspace]:
    """A new workspace, our own process inside it."""
    _check_values(task.params)
    with (
        tempfile.TemporaryDirectory(prefix="damcrack-") as folder,
        _inside(Path(folder)),
        Workspace(Path(folder), checkout.absolute(), task.params, task.remote) as workspace,
    ):
        yield workspace


def _node(task: Task, checkout: Path, derived: Sequence[Node]) -> Node:
    """The stage in the graph of this checkout; refuse what cannot end well before anything is fetched."""
    nodes = {node.name: node for node in derived}
    revision = os.environ.get("DAMCRACK_REVISION", "unknown revision")
    if task.stage not in nodes:
        raise InputError(
            f"{checkout} ({revision}) has no stage {task.stage!r}; its stages are {', '.join(nodes)}. Build the image "
            "from the revision that the pipeline was compiled from, or compile the pipeline anew"
        )
    if task.graph:
        check_same_graph(task.graph, list(nodes.values()), "the values in params and this image's dvc.yaml")
    node = nodes[task.stage]
    if os.environ.get("DAMCRACK_IMAGE") == "cpu" and node.needs.image != "cpu":
        raise InputError(
            f"stage {node.name} needs the image {node.needs.image!r}, this is 'cpu' without torch"
        )
    return node


def _check_values(params: str) -> None:
    try:
        values = yaml.safe_load(params)
    except yaml.YAMLError as error:
        raise InputError(f"params is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"params: got {type(values).__name__}, expected the text of a params.yaml")


def _parts_of(task: Task, node: Node) -> dict[str, Any]:
    stages = merge(task.lock_parts)
    missing = sorted(set(node.parents) - set(stages))
    if missing:
        raise InputError(
            f"{node.name} reads the outputs of {', '.join(missing)}, and no lock part was handed in for them; "
            "run them first"
        )
    return {name: stages[name] for name in node.parents}


def _texts(snapshots: Mapping[str, str]) -> dict[str, str]:
    texts = {}
    for stage, text in snapshots.items():
        if "/" in stage or stage.startswith("."):
            raise InputError(f"snapshots: got {stage!r}, expected the name of a stage")
        if text.startswith("s3://"):
            prefix, _, name = text.rpartition("/")
            try:
                text = open_source(prefix).read(name).decode()
            except FileNotFoundError as error:
                raise InputError(f"snapshots: {prefix}/{name} is not there; take it again") from error
        texts[stage] = text
    return texts


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in the folder, with our own commands and the folder's own code first."""
    scratch = os.environ.get("DAMCRACK_SCRATCH")
    if scratch:
        (folder / ".damcrack").symlink_to(Path(scratch).absolute())
    before = dict(os.environ)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ["PYTHONPATH"] = f"{folder / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    os.environ["DVC_NO_ANALYTICS"] = "1"
    os.environ["DVC_SITE_CACHE_DIR"] = str(folder / ".dvc/site")
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _record_restored(command: str, outs: Sequence[Path]) -> None:
    """Show a stage that did not run as a run in MLflow too, tagged with the run that it came from."""
    from damcrack.params import flatten_values, read_params
    from damcrack.stage_runner import content_digest, parents
    from damcrack.tracking.recorded import start_run

    words = shlex.split(command)
    if words[:1] != ["damcrack"]:
        return
    item = words[words.index("--item") + 1] if "--item" in words else None
    values = flatten_values(_values(read_params(Path("params.yaml")).get(words[1], {}), item))
    digest = content_digest(outs[0])
    with start_run(words[1], item, values, {}) as run:
        run.restored(digest)
        run.finish_outputs(digest, **parents(outs[0]))


def _send_records() -> None:
    """Send what MLflow did not take while the stage ran; a scratch folder that outlives us keeps it for later."""
    from damcrack.tracking.recorded import send_later

    if not os.environ.get("DAMCRACK_SCRATCH"):
        sent = send_later()
        if sent.num_waiting:
            print(f"damcrack: {sent}; they end with this task, its outputs do not", flush=True)


def _values(section: Mapping[str, Any], item: str | None) -> dict[str, Any]:
    """A stage's values without its schema, which would import torch."""
    from damcrack.params import COMMON, section_items

    if COMMON not in section:
        return dict(section)
    return {**section[COMMON], **dict(section_items(section)).get(str(item), {})}


def _record(task: Task, restored: bool, took: str, outs: Sequence[Path]) -> dict[str, Any]:
    return {
        "stage": task.stage,
        "how": "restored: a machine had run it with the same inputs" if restored else "ran here",
        "took": took,
        "image": task.image or "none",
        "code revision": task.revision or "unknown",
        "outputs": ", ".join(map(str, outs)),
        **metrics_of(outs),
    }
