"""One stage of the graph as a task: restored from the shared DVC remote if a machine has run it, else run here.

Environment:
    DAMCRACK_CHECKOUT   folder with dvc.yaml and the code (set in our images); default: the working folder
    DAMCRACK_SCRATCH    folder that outlives a killed task, for checkpoints; default: inside the workspace
    DAMCRACK_IMAGE      set in our images: cpu has no torch
    DAMCRACK_REVISION   set in our images: the commit of the code
    AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...   how an s3:// remote is reached
"""

import base64
import binascii
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from damcrack.files import InputError, temporary_folder, write_bytes
from damcrack.kubeflow.graph import SITE_CACHE, Node, check_same_graph, derive, new_repo
from damcrack.kubeflow.views import metrics_of, page_of
from damcrack.messages import shown
from damcrack.storage.source import check_reachable, open_source

LARGEST_PART = 16 * 2**20  # a lock part is a few kilobytes; what unpacks to more is not one


@dataclass(frozen=True)
class Task:
    """The inputs of a task: small texts, since all data lies in the remote.

    `lock_parts` are the parents' entries of dvc.lock (`pack`). `snapshots` maps a stage to the text of its snapshot
    file, or to its address. `graph` is the compiled pipeline's (`graph.as_text`), `revision` the commit
    that it was compiled for; empty: any.
    """

    stage: str
    lock_parts: Sequence[str]
    params: str
    remote: str
    snapshots: Mapping[str, str] = field(default_factory=dict)
    graph: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Done:
    """The outputs of a task: its lock part, and what Kubeflow's pages draw."""

    lock_part: str
    restored: bool
    metrics: Mapping[str, float]
    page: str


def run_task(task: Task) -> Done:
    """Restore or run one stage in a new workspace, and push what it made.

    Raises:
        InputError: an input is wrong or not in the remote, or the stage failed.
    """
    started = time.monotonic()
    checkout = Path(os.environ.get("DAMCRACK_CHECKOUT") or Path.cwd()).absolute()
    node = _checked_node(task, checkout)
    check_reachable(task.remote)
    with temporary_folder() as folder:
        workspace = Workspace(folder, checkout)
        workspace.fill(task, node)
        restored = workspace.restore_or_run(node)
        took = f"{time.monotonic() - started:.1f} s"
        how = "restored from the remote" if restored else "ran here"
        print(f"damcrack: {node.name} {how}, {took}", flush=True)
        workspace.record(node, restored)
        outs = [workspace.root / out for out in node.outs]
        metrics = {"restored": float(restored), **metrics_of(outs)}
        rows = {"stage": node.name, "how": how, "took": took, "revision": task.revision, **metrics}
        lock = yaml.safe_load((workspace.root / "dvc.lock").read_text())["stages"]
        return Done(pack({node.name: lock[node.name]}), restored, metrics, page_of(outs, rows))


def run_in_pipeline(**inputs: Any) -> Done:
    """`run_task` for a component: a user's mistake ends the container with one sentence, no traceback."""
    try:
        return run_task(Task(**inputs))
    except InputError as error:
        sys.exit(f"damcrack: error: {shown(error)}")


def _checked_node(task: Task, checkout: Path) -> Node:
    """The stage in the graph of this checkout; refuse what cannot end well before anything is fetched."""
    ours = os.environ.get("DAMCRACK_REVISION", "unknown")
    if task.revision and ours != "unknown" and not ours.startswith(task.revision):
        raise InputError(
            f"this image holds revision {ours}, the pipeline was compiled for {task.revision}; give the images of "
            "that revision to damcrack pipeline compile, or compile in a checkout of the images' revision"
        )
    nodes = {node.name: node for node in derive(checkout, task.params)}
    if task.graph:
        check_same_graph(task.graph, list(nodes.values()))
    if task.stage not in nodes:
        raise InputError(
            f"{checkout} (revision {ours}) has no stage {task.stage!r}; it has {', '.join(nodes)}"
        )
    node = nodes[task.stage]
    if os.environ.get("DAMCRACK_IMAGE") == "cpu" and node.needs.image != "cpu":
        raise InputError(
            f"stage {node.name} needs the image {node.needs.image!r}, this is 'cpu' without torch"
        )
    return node


class Workspace:
    """A folder in which DVC knows one stage and its parents. Two DVC processes never share one."""

    def __init__(self, root: Path, checkout: Path) -> None:
        self.root, self._checkout = root, checkout
        # Our commands, with the code of the checkout.
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": f"{checkout / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "DVC_NO_ANALYTICS": "1",
            SITE_CACHE: str(root / ".dvc/site"),
        }

    def fill(self, task: Task, node: Node) -> None:
        """Write DVC's settings, the values, the parents' lock entries, and the sources of the stage."""
        for name in ("dvc.yaml", ".dvcignore"):
            if (self._checkout / name).is_file():
                shutil.copy(self._checkout / name, self.root)
        (self.root / "params.yaml").write_text(task.params)
        with new_repo(self.root) as repo, repo.config.edit() as settings:
            settings["core"] |= {"remote": "store", "check_update": False}
            settings["remote"] = {"store": {"url": task.remote}}
            settings["cache"] = {"type": ["hardlink", "copy"]}  # one copy on disk, not two
        write_lock(self.root / "dvc.lock", _parents_entries(task, node))
        for source in node.sources:
            _copy(self._checkout / source, self.root / source)
        if node.name in task.snapshots:
            file = self.root / "snapshots" / f"{node.name}.csv"
            file.parent.mkdir(exist_ok=True)
            file.write_text(_snapshot_text(task.snapshots[node.name]))
        scratch = os.environ.get("DAMCRACK_SCRATCH")
        if scratch:
            (self.root / ".damcrack").symlink_to(Path(scratch).absolute())

    def restore_or_run(self, node: Node) -> bool:
        """Bring about the stage's outputs, here and in the remote; whether another run had made them.

        Raises:
            InputError: inputs are missing, the command failed, or the remote did not take the outputs.
        """
        if node.parents:
            self._dvc(f"the outputs of {', '.join(node.parents)} cannot be pulled", "pull", *node.parents)
        repro = ("repro", "--single-item", node.name)
        failed = f"stage {node.name} failed"
        ran = "\nRunning stage '" in "\n" + self._dvc(failed, *repro, "--pull")
        if not ran and not self._has_effect(node):
            self._dvc(failed, *repro, "--force")
            ran = True
        if ran:
            # Stopped half-way, the run-cache may name outputs that the remote lacks; DVC then runs the stage again.
            self._dvc(f"the outputs of {node.name} cannot be pushed", "push", "--run-cache", node.name)
        return not ran

    def record(self, node: Node, restored: bool) -> None:
        """Show a restored stage in MLflow too, and send what MLflow did not take while the stage ran."""
        words = shlex.split(node.command)
        if words[:1] != ["damcrack"]:
            return
        arguments = [node.outs[0], *words[1:]] if restored else []
        command = [sys.executable, "-m", "damcrack.kubeflow.task", *arguments]
        if subprocess.run(command, cwd=self.root, env=self._environment).returncode:
            print(f"damcrack: {node.name} could not be recorded in MLflow; its outputs are safe", flush=True)

    def _has_effect(self, node: Node) -> bool:
        """Whether a stage that acts outside the graph need not act again."""
        check = node.needs.restore_if
        if check is None:
            return True
        return subprocess.run(check, shell=True, cwd=self.root, env=self._environment).returncode == 0

    def _dvc(self, failure: str, *arguments: str) -> str:
        """Run `dvc`, its output shown as it comes; return the output.

        Raises:
            InputError: it failed; the message holds what DVC called an error.
        """
        command = [sys.executable, "-m", "dvc", *arguments]
        pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        lines = []
        with subprocess.Popen(
            command, cwd=self.root, env=self._environment, errors="replace", **pipe
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        output = "".join(lines)
        if child.returncode:
            _, marked, said = output.rpartition("ERROR: ")
            said = " ".join(said.split())
            raise InputError(f"{failure}: {said[:600] if marked else said[-600:]}")
        return output


def _parents_entries(task: Task, node: Node) -> dict[str, Any]:
    entries = unpack(task.lock_parts)
    missing = sorted(set(node.parents) - set(entries))
    if missing:
        raise InputError(
            f"{node.name} reads the outputs of {', '.join(missing)}; their lock parts are missing"
        )
    return {name: entries[name] for name in node.parents}


def _snapshot_text(text: str) -> str:
    """The rows of a snapshot: as they are, or read from their address."""
    if "\n" in text:
        return text
    prefix, _, name = text.rpartition("/")
    try:
        return open_source(prefix).read(name).decode()
    except FileNotFoundError as error:
        raise InputError(f"snapshots: {text} does not exist; run `damcrack snapshot` again") from error


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise InputError(f"{source} is missing: a stage of dvc.yaml reads it; use a whole checkout or image")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def pack(entries: Mapping[str, Any]) -> str:
    """Entries of dvc.lock as one short text that can stand inside JSON as it is, as Kubeflow's launcher puts it."""
    return base64.b64encode(zlib.compress(json.dumps(entries).encode(), 9)).decode()


def unpack(parts: Sequence[str]) -> dict[str, Any]:
    """Entries of all parts by stage.

    Raises:
        InputError: a text is no lock part.
    """
    entries: dict[str, Any] = {}
    for part in parts:
        try:
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(base64.b64decode(part, validate=True), LARGEST_PART)
            entries |= json.loads(content if unpacker.eof else "")
        except (binascii.Error, zlib.error, ValueError, TypeError) as error:
            raise InputError(f"got {part[:20]!r}..., expected a lock part as a task returns it") from error
    return entries


def write_lock(lock: Path, entries: Mapping[str, Any]) -> None:
    """Write a dvc.lock as DVC itself does, stages sorted by name."""
    content = {"schema": "2.0", "stages": dict(sorted(entries.items()))}
    write_bytes(lock, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6).encode())


def record_in_mlflow(out: str = "", stage: str = "", *arguments: str) -> None:
    """MLflow's view of a task, in its workspace: a run for a stage whose `out` was restored; then all is sent."""
    from damcrack.params import flatten_values, item_values, read_params
    from damcrack.stage_runner import content_digest, parents
    from damcrack.tracking.recorded import start_run
    from damcrack.tracking.send import send_later

    if out:
        item = arguments[arguments.index("--item") + 1] if "--item" in arguments else None
        values = flatten_values(item_values(read_params(Path("params.yaml")).get(stage, {}), item))
        digest = content_digest(Path(out))
        with start_run(stage, item, values, {}) as run:
            run.restored(digest)
            run.finish_outputs(digest, **parents(Path(out)))
    if not os.environ.get("DAMCRACK_SCRATCH"):  # a scratch folder outlives the task, and can wait
        sent = send_later()
        if sent.num_waiting:
            print(f"damcrack: {sent}; they end with this task, its outputs do not", flush=True)


if __name__ == "__main__":
    record_in_mlflow(*sys.argv[1:])
