"""Submitting and scheduling against a small real HTTP service (kubeflow.py beside), through kfp's own client."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')

from damcrack.cli.main import cli
from damcrack.files import InputError
from pipelines import cluster
from pipelines.cluster import Cluster

_spec = importlib.util.spec_from_file_location("kubeflow", Path(__file__).with_name("kubeflow.py"))
kubeflow_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kubeflow_module)

ROOT = Path(__file__).parents[2]
CRON = "0 0 3 * * 1"
IMAGES = [
    "--cpu-image",
    "damcrack-cpu@sha256:" + "a" * 64,
    "--train-image",
    "damcrack-train@sha256:" + "b" * 64,
]
GIVEN = ["--remote", "s3://dam/dvc", "--revision", "abc", "--params", "params/demo.yaml", *IMAGES]


@pytest.fixture
def kubeflow():
    return kubeflow_module.Kubeflow()


@pytest.fixture
def host(kubeflow, monkeypatch, tmp_path):
    """The service's address."""
    monkeypatch.setattr(cluster, "PAUSE_S", 0.05)
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp's client keeps its context there
    for name in ("KF_PIPELINES_ENDPOINT", "DAMCRACK_KFP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with kubeflow_module.serving(kubeflow) as address:
        yield address


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A compiled pipeline."""
    from pipelines.training import Setting, compile_training

    path = tmp_path_factory.mktemp("package") / "training.yaml"
    images = {"cpu": IMAGES[1], "train": IMAGES[3]}
    compile_training(
        Setting(ROOT, (ROOT / "params/demo.yaml").read_text(), "s3://dam/dvc", images, "abc"), path
    )
    return path


def test_submit_sends_the_whole_pipeline(kubeflow, host, package):
    """One run, in our experiment, with the spec and its Kubernetes part."""
    run_id = Cluster(host, "damcrack").submit(package, "training", {})
    assert [run["run_id"] for run in kubeflow.runs] == [run_id]
    assert kubeflow.runs[0]["experiment_id"] == kubeflow.experiments[0]["experiment_id"]
    assert kubeflow.experiments[0]["display_name"] == "damcrack"
    assert set(kubeflow.runs[0]["pipeline_spec"]) == {"pipeline_spec", "platform_spec"}


def test_schedule_does_not_catch_up_and_never_overlaps_itself(kubeflow, host, package):
    """Six fields, no catch-up, concurrency 1, switched on."""
    Cluster(host, "damcrack").schedule(package, "weekly", CRON, 1, wait_s=0)
    (one,) = kubeflow.schedules
    assert one["trigger"]["cron_schedule"]["cron"] == CRON
    assert (one["no_catchup"], str(one["max_concurrency"]), one["mode"]) == (True, "1", "ENABLE")


def test_schedule_replaces_those_of_its_name_only(kubeflow, host, package):
    """After three calls one schedule of the name is left; others stay, also beyond the first page."""
    service = Cluster(host, "damcrack")
    for name in ("monthly", "weekly", "daily", "weekly", "hourly", "weekly"):
        service.schedule(package, name, CRON, 1, wait_s=0)
    assert sorted(one["display_name"] for one in kubeflow.schedules) == [
        "daily",
        "hourly",
        "monthly",
        "weekly",
    ]
    assert {one["mode"] for one in kubeflow.schedules} == {"ENABLE"}


def test_a_run_in_flight_is_waited_for(kubeflow, host, package):
    """The old schedule is deleted only after its run has ended; the run is not killed."""
    service = Cluster(host, "damcrack")
    old = service.schedule(package, "weekly", CRON, 1, wait_s=0)
    kubeflow.runs += [{"run_id": str(n), "display_name": "other", "state": "SUCCEEDED"} for n in range(3)]
    run = {"run_id": "r", "display_name": "weekly 1", "recurring_run_id": old, "state": "RUNNING"}
    kubeflow.runs.append(run)
    threading.Timer(0.4, lambda: run.update(state="SUCCEEDED")).start()
    started = time.monotonic()
    new = service.schedule(package, "weekly", "0 0 4 * * 1", 1, wait_s=30)
    assert time.monotonic() - started >= 0.35
    assert run["state"] == "SUCCEEDED"
    assert [one["recurring_run_id"] for one in kubeflow.schedules] == [new]


def test_a_run_that_outlasts_the_wait_leaves_everything_as_it_was(kubeflow, host, package):
    """The old schedule is on again, the new one gone, the run goes on, and the sentence says what to do."""
    service = Cluster(host, "damcrack")
    old = service.schedule(package, "weekly", CRON, 1, wait_s=0)
    kubeflow.runs.append({"run_id": "r", "display_name": "w", "recurring_run_id": old, "state": "RUNNING"})
    with pytest.raises(InputError, match="run r of the old schedule 'weekly' still goes on"):
        service.schedule(package, "weekly", "0 0 4 * * 1", 1, wait_s=0.2)
    assert [(one["recurring_run_id"], one["mode"]) for one in kubeflow.schedules] == [(old, "ENABLE")]
    assert kubeflow.runs[-1]["state"] == "RUNNING"


def test_cut_off_between_two_calls_the_next_one_mends_it(kubeflow, host, package):
    """Left-overs of a call that died (a new one still off, an old one already off) are replaced."""
    service = Cluster(host, "damcrack")
    for _ in range(2):
        service._create_schedule(package, "weekly", CRON, 1)
    new = service.schedule(package, "weekly", CRON, 1, wait_s=0)
    assert [(one["recurring_run_id"], one["mode"]) for one in kubeflow.schedules] == [(new, "ENABLE")]


def test_status_shows_schedules_runs_and_failed_tasks(kubeflow, host, package):
    """By command line: names, states and which task failed."""
    Cluster(host, "damcrack").schedule(package, "weekly", CRON, 1, wait_s=0)
    tasks = [{"display_name": "tile", "state": "FAILED"}, {"display_name": "photos", "state": "SUCCEEDED"}]
    run = {
        "run_id": "r1",
        "display_name": "weekly 1",
        "state": "FAILED",
        "run_details": {"task_details": tasks},
    }
    kubeflow.runs.append({**run, "created_at": "2026-01-01T00:00:00Z"})
    shown = command("status", "--host", host)
    assert f"weekly  {CRON}" in shown.output and "weekly 1  FAILED" in shown.output
    assert "failed: tile" in shown.output and "photos" not in shown.output


def test_commands_submit_and_schedule(kubeflow, host):
    """By command line, values checked and compiled on the way."""
    assert command("submit", *GIVEN, "--host", host).exit_code == 0
    assert command("schedule", *GIVEN, "--host", host, "--cron", CRON, "--name", "weekly").exit_code == 0
    assert (len(kubeflow.runs), len(kubeflow.schedules)) == (1, 1)


def test_new_imagery_is_compiled_and_scheduled(kubeflow, host, tmp_path):
    """With --imagery the pipeline is the recurring one around the graph, and two runs may go on at once."""
    (tmp_path / "imagery.yaml").write_text("incoming: s3://dam/incoming\nstore: s3://dam/imagery\n")
    params = (ROOT / "params/demo.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(params)
    (tmp_path / "params.yaml").write_text(
        params.replace("{sample: sample}", "{incoming: s3://dam/imagery/accepted}", 1)
    )
    told = ["--imagery", str(tmp_path / "imagery.yaml"), "--host", host, "--cron", "0 */15 * * * *"]
    refused = command("schedule", *GIVEN, *told, "--params", str(tmp_path / "wrong.yaml"))
    assert "expected 's3://dam/imagery/accepted'" in str(refused.exception)
    done = command("schedule", *GIVEN, *told, "--params", str(tmp_path / "params.yaml"))
    assert done.exit_code == 0, done.exception
    (made,) = kubeflow.schedules
    assert int(made["max_concurrency"]) == 2
    assert "damcrack-new-imagery" in json.dumps(made["pipeline_spec"])


def command(*arguments):
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        return CliRunner().invoke(cli, ["pipeline", *arguments])
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            ["--cron", "0 3 * * 1"],
            r"got 5 fields, expected 6: second minute .*; did you mean \"0 0 3 \* \* 1\"\?",
        ),
        (["--cron", "a b"], "got 2 fields, expected 6"),
        (["--cron", "0 0 3 * * 1;"], "'1;' is no weekday"),
        (["--cpu-image", "damcrack-cpu:latest"], "image 'damcrack-cpu:latest': expected NAME@sha256:"),
        (["--remote", "here"], "--remote 'here': expected s3://bucket/prefix"),
        (["--params", "wrong.yaml"], "pretrain.resnet18.epochs: got 'many'"),
        (["--params", "none.yaml"], "none.yaml is missing"),
        (["--snapshot", "photos"], "expected STAGE=FILE"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(kubeflow, host, tmp_path, changed, says):
    """One sentence, and the service was not asked for anything."""
    (tmp_path / "wrong.yaml").write_text(
        (ROOT / "params/demo.yaml").read_text().replace("epochs: 3", "epochs: many", 1)
    )
    changed = [str(tmp_path / one) if one.endswith(".yaml") else one for one in changed]
    got = command("schedule", *GIVEN, "--host", host, "--cron", CRON, *changed)
    assert isinstance(got.exception, InputError)
    assert re.search(says, str(got.exception)), got.exception
    assert kubeflow.calls == []


def test_an_unreachable_service_is_one_sentence():
    """Nothing listens there."""
    with pytest.raises(InputError, match=r"Kubeflow Pipelines at http://127.0.0.1:9 cannot be reached"):
        Cluster("http://127.0.0.1:9", "damcrack").status(1)


def test_a_refusal_is_one_sentence(kubeflow, host):
    """The service's own words are in it."""
    service = Cluster(host, "damcrack")
    kubeflow.refuse = 403
    with pytest.raises(InputError, match=r"answered 403 Forbidden: no rights here"):
        service.status(1)


def test_pipeline_help_does_not_load_kfp():
    """Help answers at once."""
    code = (
        "import sys\nfrom damcrack.cli.main import main\nsys.argv = ['damcrack', 'pipeline', '--help']\n"
        "try:\n    main()\nfinally:\n"
        "    print('LOADED', sorted({'kfp', 'dvc', 'boto3', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "LOADED []" in done.stdout
