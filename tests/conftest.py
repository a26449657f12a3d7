"""Settings, order and services for all tests."""

import os
import re
import subprocess
import sys
import tempfile
import uuid
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from hypothesis import settings

from mlflow_server import Server

# The same examples every time: a red test is a changed program, and machines under load are slow.
settings.register_profile("damcrack", derandomize=True, deadline=None)
settings.load_profile("damcrack")

# What runs for minutes goes first: at the end it would keep one process waiting for the other.
FIRST = (
    "test_graph.py",
    "test_docs.py",
    "test_study_graph.py",
    "test_detector_graph.py",
)


def pytest_collection_modifyitems(items):
    """The longest files first, then the other slow tests."""

    def place(item):
        name = item.path.name
        return FIRST.index(name) if name in FIRST else len(FIRST) + (not item.get_closest_marker("slow"))

    items.sort(key=place)


def pytest_ignore_collect(collection_path, config):
    """Without the slow tests their modules are not imported: MLflow, Matplotlib and others take seconds."""
    if config.option.markexpr == "not slow" and collection_path.suffix == ".py":
        text = collection_path.read_text(encoding="utf-8")
        return bool(re.search(r"^pytestmark = \[?\s*pytest\.mark\.slow\b", text, re.MULTILINE)) or None
    return None


# Each process has its own service, which takes some more ports beside this one.
PORT = str(18180 + 10 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))
TOOL = Path(__file__).parents[1] / "../shared/tools/s3"
NAMES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


@pytest.fixture(scope="session")
def s3_service():
    """Settings of a real S3: that of DAMCRACK_TEST_S3 (endpoint) and AWS_*, or one started here."""
    if "DAMCRACK_TEST_S3" in os.environ:
        settings = {name: os.environ[name] for name in NAMES[1:] if name in os.environ}
        yield {
            "AWS_DEFAULT_REGION": "us-east-1",
            **settings,
            "AWS_ENDPOINT_URL": os.environ["DAMCRACK_TEST_S3"],
        }
    elif TOOL.exists():
        was_up = subprocess.run([TOOL, "status", PORT], capture_output=True).returncode == 0
        with FileLock(Path(tempfile.gettempdir()) / "damcrack-tests-s3.lock"):  # the first start installs it
            exports = subprocess.run([TOOL, "start", PORT], capture_output=True, text=True, check=True).stdout
        pairs = (pair.split("=", 1) for pair in exports.split() if "=" in pair)
        yield {name: value for name, value in pairs if name in NAMES}
        if not was_up:
            subprocess.run([TOOL, "stop", PORT], check=True)
    else:
        pytest.skip("no S3 service: set DAMCRACK_TEST_S3 to an endpoint and AWS_* to its credentials")


@pytest.fixture
def s3(s3_service, monkeypatch, tmp_path):
    """The service as this process's S3; the fixture's value fills a new bucket and returns its name."""
    pytest.importorskip("boto3", reason='needs pip install "damcrack[s3]"')
    import boto3

    for name, value in {**s3_service, "AWS_CONFIG_FILE": str(tmp_path / "none")}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    filled = []

    def bucket(objects: dict[str, bytes]) -> str:
        name = f"damcrack-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=name)
        filled.append(name)
        for key, content in objects.items():
            client.put_object(Bucket=name, Key=key, Body=content)
        return name

    yield bucket
    for name in filled:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
            if keys:
                client.delete_objects(Bucket=name, Delete={"Objects": keys})
        client.delete_bucket(Bucket=name)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """A running MLflow server with accounts; whoever kills it starts it again."""
    pytest.importorskip("mlflow", reason='needs pip install "damcrack[server]"')
    server = Server(tmp_path_factory.mktemp("mlflow-server"))
    server.start()
    yield server
    server.kill()


def _names_of_callers():
    """What kfp reads of inspect.stack(): the name of the function that called the one that asks."""
    return [(), ("", "", 0, sys._getframe(2).f_code.co_name)]


@pytest.fixture(scope="session")
def patched_kfp():
    """No half minute before a task is tried again, no source of every caller looked up, no other `print`.

    For each setting of a task kfp has inspect look up the source of every caller, to name one in an error. In a
    process of pytest-xdist that has imported torch and MLflow this takes twenty seconds for a pipeline. Its tasks
    are threads, each of which replaces `print` and the root logger's handlers and puts back what it found: of two
    that overlap, the later one leaves every later test of the process with indented lines.
    """
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("kfp"):
            patch.setattr("kfp.local.orchestrator.task_executor.time", SimpleNamespace(sleep=lambda _: None))
            patch.setattr("kfp.dsl.pipeline_task.inspect", SimpleNamespace(stack=_names_of_callers))
            for name in ("indented_print", "local_logger_context"):
                patch.setattr(f"kfp.local.logging_utils.{name}", nullcontext)
        yield
