"""Tasks over a toy graph of shell commands: real DVC, a folder as remote, a workspace for each task."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from damcrack.files import InputError
from damcrack.kubeflow.graph import as_text, derive
from damcrack.kubeflow.task import pack, record_in_mlflow, run_task, unpack, write_lock
from damcrack.tracking.recorded import start_run
from damcrack.tracking.send import pending_runs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
IMPORTS = "from damcrack.kubeflow.task import Task, run_task"  # for a process of its own


def test_a_stage_that_any_machine_has_run_is_not_run_again(finished):
    """The second run restores every stage and runs none."""
    before = dict(finished.parts)
    assert set(finished.run_all().values()) == {True}
    assert finished.ran() == [] and finished.parts == before


def test_a_stage_whose_effect_outside_the_graph_is_gone_acts_again(finished):
    """What its `restore_if` finds is asked each time; the lock is the same."""
    before = finished.parts["act"]
    finished.effect.unlink()
    assert not finished.run("act").restored
    assert finished.ran() == ["act"] and finished.effect.exists()
    assert finished.run("act").restored
    assert finished.parts["act"] == before


def test_joined_parts_are_the_lock_of_dvc_itself(finished):
    """`dvc pull` with the joined lock brings the outputs, and `dvc repro` then has nothing to do."""
    here = finished.checkout
    (here / "params.yaml").write_text(finished.params)
    write_lock(here / "dvc.lock", unpack(list(finished.parts.values())))
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    for words in ("init --no-scm", f"remote add -d store {finished.remote}", "pull", "repro"):
        command = [sys.executable, "-m", "dvc", *words.split(), "-q"]
        subprocess.run(command, cwd=here, check=True, env=environment)
    assert (here / "out/last").read_text() == "crack\n" * 4
    assert finished.ran() == []


def test_changed_code_and_changed_values_run_only_what_they_touch(finished):
    """Code is a dependency like any other; a value of one item runs that item and what is made of it."""
    finished.params = finished.params.replace("n: 2", "n: 3")
    for stage in ("double@a", "double@b", "last"):
        finished.run(stage)
    assert finished.ran() == ["double b"]  # the same bytes came out: `last` is restored
    (finished.checkout / "code.txt").write_text("new code\n")
    finished.run("first")
    assert finished.ran() == ["first crack"]


def test_a_killed_task_leaves_nothing_and_its_repetition_ends_with_the_same_lock(finished, monkeypatch):
    """SIGKILL in the middle of a command: the remote stays as it was; run again, the part is that of others."""
    part = finished.parts["last"]
    graph = finished.checkout / "dvc.yaml"
    waits = "touch $TOY_GATE && sleep $TOY_S && cat data/double/*"
    graph.write_text(graph.read_text().replace("cat data/double/*", waits))
    parts = [finished.parts[name] for name in ("first", "double@a", "double@b")]
    code = f"{IMPORTS}; run_task({finished.task('last', parts)!r})"
    before = sorted(finished.remote.rglob("*"))
    environment = os.environ | {"TOY_S": "60", "TOY_GATE": str(Path("gate").absolute())}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    while not Path("gate").exists():
        assert child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert sorted(finished.remote.rglob("*")) == before
    monkeypatch.setenv("TOY_S", "0")
    monkeypatch.setenv("TOY_GATE", str(Path("gate").absolute()))
    assert not finished.run("last").restored
    outs = [unpack([one])["last"]["outs"] for one in (part, finished.parts["last"])]
    assert outs[0] == outs[1]


def test_outputs_missing_in_the_remote_are_made_again(finished):
    """A run-cache entry whose outputs were deleted does not count: never a green run with a hole in it."""
    shutil.rmtree(finished.remote / "files")
    assert not finished.run("first").restored
    assert finished.ran() == ["first crack"]
    assert [path for path in (finished.remote / "files").rglob("*") if path.is_file()]


def test_a_lock_part_that_names_a_missing_file_is_refused(finished):
    """The sentence names the parent."""
    shutil.rmtree(finished.remote / "files")
    with pytest.raises(InputError, match="outputs of first cannot be pulled"):
        finished.run("double@a")


def test_another_graph_than_compiled_is_refused(toy):
    """The message names the stages that came, went, or read something else."""
    graph = as_text(derive(toy.checkout, toy.params))
    toy.params = toy.params.replace("b: {n: 2}", "c: {n: 2}")
    with pytest.raises(InputError, match=r"double@b, double@c, last"):
        toy.run("first", graph=graph)
    text = (toy.checkout / "dvc.yaml").read_text()
    (toy.checkout / "dvc.yaml").write_text(text.replace("deps: [out/last]", "deps: [data/first]"))
    toy.params = toy.params.replace("c: {n: 2}", "b: {n: 2}")
    with pytest.raises(InputError, match=r"with other inputs: act\."):
        toy.run("first", graph=graph)
    assert toy.ran() == []


def test_an_image_of_another_revision_than_compiled_is_refused(toy, monkeypatch):
    """Both revisions are named; the same one, also in its short form, is fine."""
    monkeypatch.setenv("DAMCRACK_REVISION", "abc123")
    with pytest.raises(InputError, match=r"holds revision abc123.*compiled for def456"):
        toy.run("first", revision="def456")
    assert toy.ran() == []
    toy.run("first", revision="abc1")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"stage": "polish"}, r"has no stage 'polish'; it has first, double@a"),
        ({"remote": "relative/folder"}, "expected s3://bucket/prefix or an existing folder's absolute path"),
        ({"params": "first: [a"}, "dvc.yaml cannot be resolved"),
        ({"params": "just words"}, "dvc.yaml cannot be resolved"),
        ({"params": "first: {}"}, "dvc.yaml cannot be resolved"),
        ({"stage": "double@a"}, "reads the outputs of first; their lock parts are missing"),
        ({"stage": "double@a", "lock_parts": ["zzz"]}, "got 'zzz'..., expected a lock part"),
        ({"stage": "double@a", "lock_parts": [pack({})[:-4]]}, "expected a lock part"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(toy, changed, says):
    """One sentence: what, got, expected."""
    task = toy.task("first", [])
    with pytest.raises(InputError, match=says) as caught:
        run_task(type(task)(**{**task.__dict__, **changed}))
    assert "\n" not in str(caught.value)
    assert toy.ran() == []


def test_a_stage_for_torch_is_refused_by_the_image_without(finished, monkeypatch):
    """Before any data is fetched."""
    monkeypatch.setenv("DAMCRACK_IMAGE", "cpu")
    with pytest.raises(InputError, match="needs the image 'train', this is 'cpu'"):
        finished.run("double@a")


def test_a_failing_command_fails_the_task_and_pushes_nothing(toy):
    """The sentence names the stage."""
    graph = toy.checkout / "dvc.yaml"
    graph.write_text(graph.read_text().replace("echo ${first.word} > data/first", "false"))
    with pytest.raises(InputError, match=r"stage first failed: .*'first'"):
        toy.run("first")
    assert not list(toy.remote.rglob("*"))


def test_a_killed_dvc_fails_the_task_with_its_last_words(toy):
    """It names no error; what the stage said last tells more than what it said first."""
    graph = toy.checkout / "dvc.yaml"
    said = "seq 1000 1500; kill -9 $PPID"
    graph.write_text(graph.read_text().replace("echo ${first.word} > data/first", said))
    with pytest.raises(InputError, match=r"stage first failed: .* 1499 1500$"):
        toy.run("first")


@pytest.mark.parametrize("scratch", [False, True])
def test_a_task_sends_the_records_that_would_end_with_it(tmp_path, monkeypatch, scratch):
    """Those in a scratch folder, which outlives it, can wait."""
    pytest.importorskip("mlflow", reason='needs pip install "damcrack[track]"')
    monkeypatch.chdir(tmp_path)
    for name, value in {"DAMCRACK_TRACK": "later", "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAMCRACK_SCRATCH", str(tmp_path) if scratch else "")
    with start_run("tile", None, {}, {}):
        pass
    record_in_mlflow()
    assert len(pending_runs()) == scratch


def test_snapshots_enter_as_values(toy):
    """A snapshot that is handed in takes the place of the image's, and is a changed input."""
    (toy.checkout / "snapshots").mkdir()
    (toy.checkout / "snapshots/first.csv").write_text("old\n")
    graph = yaml.safe_load((toy.checkout / "dvc.yaml").read_text())
    graph["stages"]["first"]["deps"].append("snapshots/first.csv")
    (toy.checkout / "dvc.yaml").write_text(yaml.safe_dump(graph))
    assert not toy.run("first").restored
    assert not toy.run("first", snapshots={"first": "new\n"}).restored
    assert toy.run("first", snapshots={"first": "old\n"}).restored


def test_what_a_command_prints_is_shown_and_no_secret_of_the_environment(finished, monkeypatch, capfd):
    """The log of a task holds the stage's own lines, whether it ends well or not."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    graph = finished.checkout / "dvc.yaml"
    graph.write_text(graph.read_text().replace("mkdir -p out && cp", "echo epoch 1 && mkdir -p out && cp"))
    finished.run("act")
    graph.write_text(graph.read_text().replace("cp out/last out/act", "false"))
    with pytest.raises(InputError) as caught:
        finished.run("act")
    out, err = capfd.readouterr()
    assert "\nepoch 1\n" in out and "s3cr3t" not in out + err + str(caught.value)


HEAVY = {
    "torch",
    "torchvision",
    "mlflow",
    "kfp",
    "cv2",
    "numpy",
    "scipy",
    "onnxruntime",
    "matplotlib",
    "pydantic",
}


def test_a_restored_stage_loads_no_heavy_library(finished, capfd):
    """No process of it, DVC's own included, imports one that takes more than a moment."""
    code = f"{IMPORTS}; assert run_task({finished.task('first', [])!r}).restored"
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    lines = "".join(capfd.readouterr()).splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert {"dvc", "dvc.repo"} <= imported
    assert not imported & HEAVY
