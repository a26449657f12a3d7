"""The pipeline without a cluster: kfp's local runners, as child processes or as containers of our images."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kfp import local

# What a container may know of our environment: where the services are and how to reach them.
HANDED_ON = ("AWS_", "MLFLOW_", "DAMCRACK_TRACK", "DAMCRACK_GRAPH_RUN", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class LocalRun:
    """What a run left: its dvc.lock if it ran the graph, and for each stage whether it was restored."""

    lock: Path | None
    restored: Mapping[str, bool]


def run_as_processes(pipeline: Callable[[], Any], root: Path) -> LocalRun:
    """Run a pipeline as child processes of this one, with the code of the checkout."""
    return _run(pipeline, local.SubprocessRunner(use_venv=False), root)


def run_as_containers(pipeline: Callable[[], Any], root: Path, **options: Any) -> LocalRun:
    """Run a pipeline as containers: not as root, root file system read-only, no capability, /tmp in memory or disk.

    `options` go to the Docker client and override ours.
    """
    environment = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
    hardened = {
        "environment": environment,
        "network_mode": "host",  # services on this machine's loopback
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "tmpfs": {"/tmp": "mode=1777,exec"},
        "shm_size": "1g",
    }
    return _run(pipeline, local.DockerRunner(**{**hardened, **options}), root)


def _run(pipeline: Callable[[], Any], runner: Any, root: Path) -> LocalRun:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    root.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)  # the containers' user is another than ours
    umask = os.umask(0)
    try:
        local.init(runner, pipeline_root=str(root), raise_on_error=True)
        pipeline()
    finally:
        os.umask(umask)
    return _what_it_left(root)


def _what_it_left(root: Path) -> LocalRun:
    """Look at the outputs, not at the status: a container that died at once can count as a success."""
    restored = {}
    for path in sorted(root.rglob("executor_output.json")):
        output = json.loads(path.read_text())
        for artifacts in output.get("artifacts", {}).values():
            for artifact in artifacts["artifacts"]:
                if "stage" in artifact.get("metadata", {}):
                    restored[artifact["metadata"]["stage"]] = bool(artifact["metadata"]["restored"])
    if not restored:
        return LocalRun(None, {})
    (lock,) = root.rglob("lock")
    assert len(yaml.safe_load(lock.read_text())["stages"]) == len(restored)
    return LocalRun(lock, restored)
