"""The pipeline as containers of our images, with a real S3 and a real MLflow server.

`make images TAG=dev && make e2e TAG=dev`, with the S3 of DAMCRACK_TEST_S3 and AWS_*.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')

from damcrack.kubeflow.graph import derive
from damcrack.kubeflow.pipeline import Setting, compile_pipeline, training
from local_pipeline import HANDED_ON, run_as_containers
from smallest import one_chain, smallest

ROOT = Path(__file__).parents[2]
IMAGES = {kind: f"damcrack-{kind}:{os.environ.get('TAG', 'dev')}" for kind in ("cpu", "train")}
KILLED = "pretrain@resnet50"
ONE_TASK = """
import sys
from damcrack.kubeflow.task import Task, run_task
print("PART", run_task(Task(sys.argv[1], sys.argv[4:], sys.argv[2], sys.argv[3])).lock_part)
"""


def missing() -> str:
    """Why this cannot be tested here; empty if it can."""
    docker = shutil.which("docker")
    inspect = [docker or "", "image", "inspect", *IMAGES.values()]
    if not docker or subprocess.run(inspect, capture_output=True).returncode:
        return f"needs Docker and the images {', '.join(IMAGES.values())}: make images TAG=dev"
    return ""


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture
def setting(s3, mlflow_server, monkeypatch):
    """The smallest graph with one model of each kind; remote and records in services that want passwords."""
    for name, value in {**mlflow_server.account, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"])
    params = one_chain(smallest(ROOT), {"network": "resnet50", "epochs": 3})
    # Its code and weights are packages of the image.
    encoder = {"network": "efficientnet_lite0", "encoder_weights": "imagenet"}
    params["finetune"]["shipped"]["lite0-detector"] |= encoder
    return Setting(ROOT, yaml.safe_dump(params), f"s3://{s3({})}/dvc", IMAGES, revision="")


def test_the_second_run_restores_all_and_nothing_holds_a_secret(setting, tmp_path, capfd):
    """Ten stages run, then none; the locks are equal; no password is in what was printed or left."""
    first, second = (run_as_containers(training(setting), tmp_path / name) for name in ("first", "second"))
    assert not any(first.restored.values()) and all(second.restored.values())
    assert first.lock.read_text() == second.lock.read_text()
    compile_pipeline(training(setting), tmp_path / "pipeline.yaml")
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    texts += [text.encode() for text in capfd.readouterr()]
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        assert not [text for text in texts if os.environ[name].encode() in text]


def test_a_killed_container_can_be_repeated(setting):
    """Killed after its first epoch it hands on nothing; run again, it ends well."""
    nodes = {node.name: node for node in derive(ROOT, setting.params)}
    parts = [part(start(setting, nodes[parent], [])) for parent in nodes[KILLED].parents]
    with start(setting, nodes[KILLED], parts) as running:
        lines = []
        for line in running.stdout:
            lines.append(line)
            if line.startswith("epoch 1/"):
                subprocess.run(["docker", "kill", "damcrack-e2e"], check=True, capture_output=True)
    assert running.returncode == 137 and "PART" not in "".join(lines)
    assert part(start(setting, nodes[KILLED], parts))


def start(setting, node, parts):
    """One task as a container, hardened as in a run; credentials by name, none on the command line."""
    command = ["docker", "run", "--rm", "--read-only", "--network", "host", "--cap-drop", "ALL"]
    command += ["--tmpfs", "/tmp:mode=1777,exec", "--name", "damcrack-e2e"]
    for name in sorted(os.environ):
        command += ["--env", name] if name.startswith(HANDED_ON) else []
    command += [IMAGES[node.needs.image], "python", "-c", ONE_TASK]
    command += [node.name, setting.params, setting.remote, *parts]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def part(running):
    """The lock part of a task that ends well."""
    output, _ = running.communicate()
    assert running.returncode == 0, output[-4000:]
    return output.rpartition("PART ")[2].strip()
