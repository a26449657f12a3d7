"""`damcrack pipeline` against a small HTTP service, through kfp's own client."""

import base64
import errno
import gzip
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')

from damcrack.cli.main import cli
from damcrack.files import InputError
from damcrack.kubeflow.graph import derive
from damcrack.kubeflow.runs import nodes_of, stages_of
from kubeflow_service import Kubeflow, recorded, serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CRON = "0 0 3 * * 1"
CPU, TRAIN = "damcrack-cpu@sha256:" + "a" * 64, "damcrack-train@sha256:" + "b" * 64
IMAGES = ["--cpu-image", CPU, "--train-image", TRAIN]
GIVEN = ["--remote", "s3://dam/dvc", "--revision", "abc", "--params", "params.yaml", *IMAGES]


@pytest.fixture(scope="module", autouse=True)
def graph_resolved_once():
    """DVC takes as long for it as all the rest of a command, and most commands here have the same values."""
    found = {}

    def resolve(checkout, params):
        key = (checkout / "dvc.yaml").read_text(), params
        if key not in found:
            found[key] = derive(checkout, params)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in ("pipeline", "graph"):
            patch.setattr(f"damcrack.kubeflow.{module}.derive", resolve)
        yield


@pytest.fixture
def kubeflow(monkeypatch, tmp_path):
    """A service whose address is in the environment; a folder with a graph and values, but no checkout, around us."""
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp's client keeps its context there
    monkeypatch.setenv("DAMCRACK_KFP_TOKEN", "t0ken")
    service = Kubeflow()
    with serving(service) as address:
        monkeypatch.setenv("KFP_ENDPOINT", address)
        yield service


def command(*arguments):
    return CliRunner().invoke(cli, ["pipeline", *arguments])


def test_submit_sends_the_whole_pipeline(kubeflow):
    """One run, in our experiment, as our account, with the spec and its Kubernetes part; the token is not shown."""
    done = command("submit", *GIVEN, "--name", "trial")
    assert done.exit_code == 0, done.exception
    (run,), (experiment,) = kubeflow.lists["runs"], kubeflow.lists["experiments"]
    assert (run["display_name"], experiment["display_name"]) == ("trial", "damcrack")
    assert run["experiment_id"] == experiment["experiment_id"]
    assert run["service_account"] == "damcrack-pipeline"
    assert set(run["pipeline_spec"]) == {"pipeline_spec", "platform_spec"}
    assert run["run_id"] in done.output
    assert kubeflow.tokens == {"Bearer t0ken"} and "t0ken" not in done.output


def test_a_schedule_takes_the_place_of_the_one_of_its_name(kubeflow):
    """Six fields, no catch-up, one run at a time, our account; the earlier one is switched off, others stay on."""
    for name in ("weekly", "daily", "weekly"):
        done = command("schedule", *GIVEN, "--cron", CRON, "--name", name)
        assert done.exit_code == 0, done.exception
    first, daily, second = kubeflow.lists["recurringruns"]
    assert [one["mode"] for one in (first, daily, second)] == ["DISABLE", "ENABLE", "ENABLE"]
    assert second["trigger"]["cron_schedule"]["cron"] == CRON
    assert (second["no_catchup"], int(second["max_concurrency"])) == (True, 1)
    assert second["service_account"] == "damcrack-pipeline"


def test_status_shows_schedules_and_runs(kubeflow):
    """Names, cron lines, states and ids."""
    command("schedule", *GIVEN, "--cron", CRON, "--name", "weekly")
    command("submit", *GIVEN, "--name", "trial")
    shown = command("status").output
    assert f"weekly  {CRON}  ENABLE" in shown and "trial  PENDING" in shown
    assert kubeflow.lists["runs"][0]["run_id"] in shown


def as_argo_tells(run, of_stages):
    """Argo's nodes: a stage by its task's name, below it one pod for each try; what never began is there too."""
    tasks = run["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    nodes = [("x7k2f", "Retry", "Running"), ("x7k2f(0).root-driver(0)", "Pod", "Succeeded")]
    for name, task in tasks.items():
        path, phase = f"x7k2f(0).root(0).{name}", of_stages.get(task["taskInfo"]["name"], "Omitted")
        if phase == "driver failed":
            nodes += [(f"{path}-driver", "Retry", "Failed"), (path, "Skipped", "Omitted")]
        elif phase == "Omitted":
            nodes += [(path, "Skipped", phase)]
        else:
            nodes += [(f"{path}-driver", "Retry", "Succeeded"), (path, "Retry", phase)]
            nodes += [(f"{path}(0).executor(0)", "Pod", "Failed"), (f"{path}(0).executor(1)", "Pod", phase)]
    return {str(at): {"name": name, "type": kind, "phase": phase, "startedAt": f"{at:03}"}
            for at, (name, kind, phase) in enumerate(nodes)}  # fmt: skip


def test_status_names_stages_in_place_of_argos_nodes(kubeflow):
    """What is done, runs and failed, by the names of dvc.yaml; a stage whose pod could not even be made failed too."""
    command("submit", *GIVEN)
    (run,) = kubeflow.lists["runs"]
    states = {"photos": "Succeeded", "tile": "Succeeded", "miniimagenet": "driver failed"}
    states |= {"distill@dynamic": "Running", "distill@fixed": "Failed"}
    run["state"], kubeflow.nodes[run["run_id"]] = "RUNNING", as_argo_tells(run, states)
    shown = command("status").output
    assert "2 done; running: distill@dynamic; failed: distill@fixed, miniimagenet" in shown
    assert not re.search(r"executor|driver|run-stage|x7k2f", shown)


@pytest.mark.parametrize(
    ("minutes", "mode", "has_run", "says"),
    [
        (50, "ENABLE", True, "damcrack pipeline stop hung"),
        (50, "ENABLE", False, "has not run since"),
        (20, "ENABLE", True, None),
        (50, "DISABLE", True, None),
    ],
)
def test_status_says_which_schedule_is_late(kubeflow, minutes, mode, has_run, says):
    """Every 15 minutes, the last run longer ago than three of them: that is said, and which run it waits for."""
    command("schedule", *GIVEN, "--cron", "0 */15 * * * *", "--name", "arrivals")
    (schedule,) = kubeflow.lists["recurringruns"]
    then = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    schedule |= {"mode": mode, "created_at": then}
    run = {"run_id": "hung", "recurring_run_id": schedule["recurring_run_id"], "created_at": then,
           "finished_at": "1970-01-01T00:00:00Z"}  # fmt: skip  # as the service dates what has not ended
    kubeflow.lists["runs"] += [run | {"state": "RUNNING"}] if has_run else []
    kubeflow.lists["runs"].append({"run_id": "by hand", "created_at": datetime.now(UTC).isoformat()})
    shown = command("status").output
    assert (says or "arrivals") in shown and ("has not run since" in shown) == bool(says)


def test_status_shows_schedules_that_others_made(kubeflow):
    """One that counts seconds, and one with a line that no cron has."""
    command("submit", *GIVEN)
    made = [{"periodic_schedule": {"interval_second": "60"}}, {"cron_schedule": {"cron": "@every 1h"}}]
    kubeflow.lists["recurringruns"] += [
        {"recurring_run_id": str(number), "display_name": f"theirs-{number}", "mode": "ENABLE", "trigger": trigger,
         "created_at": "2026-01-01T00:00:00Z"}
        for number, trigger in enumerate(made)
    ]  # fmt: skip
    shown = command("status")
    assert shown.exit_code == 0 and "theirs-0" in shown.output and "@every 1h" in shown.output


@pytest.mark.parametrize(
    "refusal", [recorded("field_unknown"), (400, {"message": "cannot unmarshal platform specific configs"})]
)
def test_an_old_kubeflow_is_called_old(kubeflow, refusal):
    """In place of an error of its protobuf library alone; the trace of its code is left out."""
    kubeflow.refusal = refusal
    got = command("submit", *GIVEN)
    assert isinstance(got.exception, InputError) and "2.16" in str(got.exception)
    assert "github.com" not in str(got.exception)


def test_many_users_need_a_namespace(kubeflow):
    """A run without one would be refused by the service in other words."""
    kubeflow.health["multi_user"] = True
    got = command("submit", *GIVEN)
    assert isinstance(got.exception, InputError) and "--namespace" in str(got.exception)
    assert command("submit", *GIVEN, "--namespace", "dam").exit_code == 0
    assert [one["namespace"] for one in kubeflow.lists["experiments"]] == ["dam"]


def test_new_imagery_is_checked_compiled_and_scheduled(kubeflow):
    """With --imagery the pipeline is the recurring one; values that do not read what is ingested are refused."""
    Path("imagery.yaml").write_text("incoming: s3://dam/incoming\nstore: s3://dam/imagery\n")
    schedule = ["schedule", *GIVEN, "--imagery", "imagery.yaml", "--cron", "0 */15 * * * *"]
    refused = command(*schedule)
    assert isinstance(refused.exception, InputError) and "s3://dam/imagery/accepted" in str(refused.exception)
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["photos"]["sources"] = {"incoming": "s3://dam/imagery/accepted"}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    done = command(*schedule)
    assert done.exit_code == 0, done.exception
    assert "damcrack-new-imagery" in json.dumps(kubeflow.lists["recurringruns"][0]["pipeline_spec"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (["--cron", "0 3 * * 1"], "--cron '0 3 * * 1': expected 6 fields"),
        (["--cpu-image", "damcrack-cpu:latest"], "image 'damcrack-cpu:latest'"),
        (["--cpu-image", "damcrack-cpu@sha256:12"], "image 'damcrack-cpu@sha256:12'"),
        (["--remote", "here"], "--remote 'here'"),
        (["--remote", "s3://"], "--remote 's3://'"),
        (["--remote", "s3://me:secret@dam/dvc"], "--remote 's3://"),
        (["--revision", "HEAD"], "--revision 'HEAD'"),
        (["--imagery", "folders.yaml"], "'data/in'"),
        (["--snapshot", "photos=wrong.yaml"], "wrong.yaml is not a snapshot"),
        (["--params", "wrong.yaml"], "epochs: got 'many'"),
        (["--params", "none.yaml"], "none.yaml is missing"),
        (["--snapshot", "photos"], "expected STAGE=FILE"),
        (["--snapshot", "fotos=s3://dam/photos.csv"], "snapshot of 'fotos'"),
        (["--snapshot", "photos=large.csv"], "snapshot of photos: 70000 bytes"),
        (
            ["--snapshot", "photos=half.csv", "--snapshot", "miniimagenet=half.csv"],
            "miniimagenet: 80000 bytes",
        ),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(kubeflow, changed, says):
    """One sentence, and the service was not asked for anything."""
    wrong = re.sub(r"epochs: \d+", "epochs: many", Path("params.yaml").read_text(), count=1)
    Path("wrong.yaml").write_text(wrong)
    Path("folders.yaml").write_text("incoming: data/in\nstore: data/store\n")
    for name, size in (("large.csv", 70_000), ("half.csv", 40_000)):
        header = "source,name,size_bytes,sha256\n"
        Path(name).write_text(header + "x" * (size - len(header)))
    got = command("schedule", *GIVEN, "--cron", CRON, *changed)
    assert isinstance(got.exception, InputError), got.output
    assert says in str(got.exception)
    assert not kubeflow.tokens


@pytest.mark.parametrize(("host", "says"), [("", "no Kubeflow"), ("http://127.0.0.1:9", "cannot be reached")])
def test_an_absent_service_is_one_sentence(kubeflow, monkeypatch, host, says):
    """None named, or nothing listens there."""
    monkeypatch.setenv("KFP_ENDPOINT", host)
    got = command("status")
    assert isinstance(got.exception, InputError) and says in str(got.exception)


def test_two_pipelines_at_once_are_refused(kubeflow):
    """A survey is another pipeline than that of new imagery."""
    survey = ["--survey", "s3://dam/a", "s3://dam/b", "--imagery", "imagery.yaml"]
    assert isinstance(command("submit", *IMAGES, *survey).exception, click.UsageError | SystemExit)
    assert not kubeflow.tokens


@pytest.mark.parametrize(
    "answer", [(401, {"message": "expired"}), (200, "a login page"), (200, {}), (200, None)]
)
@pytest.mark.parametrize("arguments", [("submit", *GIVEN), ("status",), ("stop", "1")])
def test_a_gate_before_kubeflow_is_told_from_it(kubeflow, monkeypatch, answer, arguments):
    """A login page is no empty list and starts no run; an expired token is no timeout, and is not tried five times."""
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("tried again"))
    kubeflow.answer = lambda *_: answer
    got = command(*arguments)
    assert isinstance(got.exception, InputError), got.output
    assert "DAMCRACK_KFP_TOKEN" in str(got.exception) and not got.output


def test_a_refusal_is_one_sentence_without_the_token(kubeflow):
    """The service's own words are in it."""
    kubeflow.refusal = 403, {"message": "no rights here"}
    got = command("status")
    assert isinstance(got.exception, InputError) and "403" in str(got.exception)
    assert "no rights here" in str(got.exception) and "t0ken" not in str(got.exception)


@pytest.mark.parametrize("name", ["parameter_unknown", "cron_wrong"])
def test_what_kubeflow_refuses_is_no_matter_of_the_token(kubeflow, name):
    """Its sentence, and no advice that misleads."""
    kubeflow.refusal = recorded(name)
    got = command("submit", *GIVEN)
    assert isinstance(got.exception, InputError) and "DAMCRACK_KFP_TOKEN" not in str(got.exception)
    assert kubeflow.refusal[1]["message"][:60] in str(got.exception)


def test_status_without_argos_record(kubeflow):
    """Where Kubeflow hands it out no more, runs are shown with their state."""
    command("submit", *GIVEN, "--name", "trial")
    kubeflow.lists["runs"][0]["state"] = "RUNNING"
    answer = kubeflow.answer

    def without_record(method, path, *more):
        return (404, {"message": "none"}) if path.startswith("/apis/v1beta1") else answer(method, path, *more)

    kubeflow.answer = without_record
    done = command("status")
    assert done.exit_code == 0 and "trial  RUNNING" in done.output


def test_status_of_runs_that_argo_has_not_begun(kubeflow):
    """The answer has no state, and an end in 1970; the schedule waits for its run all the same."""
    _, answer = recorded("runs_not_begun")
    command("schedule", *GIVEN, "--cron", "*/20 * * * * *", "--name", "often")
    (schedule,) = kubeflow.lists["recurringruns"]
    for run in answer["runs"]:
        run |= {"recurring_run_id": schedule["recurring_run_id"]} if "recurring_run_id" in run else {}
    kubeflow.lists["runs"] += answer["runs"][::-1]
    shown = command("status").output
    assert [line.split()[2] for line in shown.splitlines() if line.startswith("run ")] == ["PENDING"] * 2
    assert f"damcrack pipeline stop {answer['runs'][0]['run_id']}" in shown


FIRST_TASKS = ("miniimagenet", "photos", "pretrain@resnet50", "tile")
NEXT_TASKS = ("distill@dynamic", "finetune-pretrained", "finetune-scratch", "export")


def stages_recorded(name):
    """What a real run's record says of its stages, with Argo's record as it is and compressed."""
    workflow = recorded(name)[1]["pipeline_runtime"]["workflow_manifest"]
    tasks = {
        f"run-stage-{number}".removesuffix("-1"): {
            "taskInfo": {"name": stage},
            "componentRef": {"name": "stage"},
        }
        for number, stage in enumerate((*FIRST_TASKS, *NEXT_TASKS), 1)
    }
    spec = {"components": {"stage": {"executorLabel": "any"}}, "root": {"dag": {"tasks": tasks}}}
    stages = stages_of(spec, nodes_of(workflow))
    packed = base64.b64encode(gzip.compress(json.dumps(json.loads(workflow)["status"]["nodes"]).encode()))
    compressed = {"status": {"compressedNodes": packed.decode()}}
    assert stages_of(spec, nodes_of(json.dumps(compressed))) == stages
    return {name: (state, reason) for name, state, reason in stages}


def test_a_full_disk_is_told_of_the_stage_it_ended():
    """Both stages were repeated; the last reason is Argo's."""
    full = ("failed", 'Usage of EmptyDir volume "tmp" exceeds the limit "1Mi". ')
    assert stages_recorded("nodes_disk_full") == {
        "miniimagenet": ("done", ""),
        "photos": full,
        "pretrain@resnet50": full,
    }


def test_a_pod_that_waits_is_told_from_one_that_runs():
    """To Kubeflow both stages run; the pod of an executor says why it does not."""
    waits = ("pending", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.")
    assert stages_recorded("nodes_waiting") == {
        **dict.fromkeys(FIRST_TASKS, ("done", "")),
        "distill@dynamic": ("running", ""),
        "export": ("running", ""),
        "finetune-pretrained": waits,
        "finetune-scratch": waits,
    }


def test_a_closed_pipe_is_not_kubeflows_fault(kubeflow, monkeypatch):
    """`damcrack pipeline status | head -1` ends in silence."""
    command("submit", *GIVEN)

    def closed(*_, **__):
        raise BrokenPipeError(errno.EPIPE, "closed")

    monkeypatch.setattr("damcrack.cli.pipeline.click.echo", closed)
    assert isinstance(command("status").exception, SystemExit)


def test_stop_ends_the_run_of_that_id(kubeflow):
    """One that Kubeflow does not know is its sentence."""
    command("submit", *GIVEN)
    (run,) = kubeflow.lists["runs"]
    assert command("stop", run["run_id"]).exit_code == 0 and run["state"] == "CANCELING"
    unknown = command("stop", "none")
    assert isinstance(unknown.exception, InputError) and "404" in str(unknown.exception)


def test_status_changes_nothing(kubeflow):
    """An experiment that is not there is not made by looking."""
    done = command("status", "--experiment", "other")
    assert done.exit_code == 0 and not kubeflow.lists["experiments"]


def test_the_service_answers_with_the_recorded_fields(kubeflow):
    """Names and types of what Kubeflow Pipelines 2.17.0 answered to the same commands."""
    command("submit", *GIVEN)
    command("schedule", *GIVEN, "--cron", CRON)
    kinds = {"experiment": "experiments", "run": "runs", "schedule": "recurringruns"}
    for kind, made in ((kind, kubeflow.lists[name][0]) for kind, name in kinds.items()):
        real = recorded(f"{kind}_created")[1]
        assert made.keys() == real.keys()
        assert all(type(made[key]) is type(value) for key, value in real.items())


def test_the_folder_pipelines_compiles_the_same(kubeflow, tmp_path):
    """`python pipelines/training.py` in a checkout and `damcrack pipeline compile` anywhere write the same bytes."""
    assert command("compile", *GIVEN, "--out", "training.yaml").exit_code == 0
    script = [sys.executable, "pipelines/training.py", *GIVEN, "--out", str(tmp_path / "script.yaml")]
    subprocess.run(script, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=True)
    assert Path("script.yaml").read_bytes() == Path("training.yaml").read_bytes()


def test_pipeline_help_does_not_load_kfp():
    """Help answers at once."""
    code = (
        "import sys\nfrom damcrack.cli.main import main\nsys.argv = ['damcrack', 'pipeline', '--help']\n"
        "try:\n    main()\nfinally:\n"
        "    print('LOADED', sorted({'kfp', 'dvc', 'boto3', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "LOADED []" in done.stdout
