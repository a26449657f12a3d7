"""Tasks over a toy graph of shell commands: real DVC, a folder as remote, a workspace for each task."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from damcrack.files import InputError
from damcrack.kubeflow.derive import as_text, derive
from damcrack.kubeflow.lock_parts import merge, write_lock
from damcrack.kubeflow.task import run_task


def test_a_stage_that_any_machine_has_run_is_not_run_again(toy):
    """The second run restores every stage and runs none."""
    stages = ["first", "double@a", "double@b", "last", "act"]
    assert toy.run_all() == dict.fromkeys(stages, False)
    before = dict(toy.parts)
    assert toy.ran() == ["first crack", "double a", "double b", "last", "act"]
    assert toy.run_all() == dict.fromkeys(stages, True)
    assert toy.ran() == [] and toy.parts == before


def test_a_stage_whose_effect_outside_the_graph_is_gone_acts_again(toy):
    """What its `restore_if` finds is asked each time; the others are restored, the lock is the same."""
    toy.run_all()
    before = dict(toy.parts)
    toy.ran()
    toy.effect.unlink()
    restored = toy.run_all()
    assert [name for name, was in restored.items() if not was] == ["act"] == toy.ran()
    assert toy.parts == before and all(toy.run_all().values())


def test_joined_parts_are_the_lock_of_dvc_itself(toy, tmp_path):
    """`dvc pull` with the joined lock brings the outputs, and `dvc repro` then has nothing to do."""
    toy.run_all()
    toy.ran()
    here = toy.checkout
    (here / "params.yaml").write_text(toy.params)
    write_lock(here / "dvc.lock", merge(toy.parts.values()))
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    for arguments in (
        ["init", "--no-scm", "-q"],
        ["remote", "add", "-q", "-d", "store", str(toy.remote)],
        ["pull", "-q"],
        ["repro", "-q"],
    ):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=here, check=True, env=environment)
    assert (here / "out/last").read_text() == "crack\n" * 4
    assert toy.ran() == []


def test_changed_code_and_changed_values_run_only_what_they_touch(toy):
    """Code is a dependency like any other; a value of one item runs that item and what is made of it."""
    toy.run_all()
    toy.ran()
    toy.params = toy.params.replace("n: 2", "n: 3")
    toy.run_all()
    assert toy.ran() == ["double b"]  # the same bytes came out: `last` is restored
    (toy.checkout / "code.txt").write_text("new code\n")
    toy.run_all()
    assert toy.ran() == ["first crack", "double a", "double b"]


def test_a_killed_task_leaves_nothing_and_its_repetition_ends_with_the_same_lock(toy):
    """SIGKILL in the middle of a command: the remote stays as it was; run again, the part is that of others."""
    toy.run_all()
    part = toy.parts["last"]
    graph = toy.checkout / "dvc.yaml"
    graph.write_text(
        graph.read_text().replace("cat data/double/*", "touch $TOY_GATE && sleep $TOY_S && cat data/double/*")
    )
    code = "import sys; from damcrack.kubeflow.task import Task, run_task; run_task(Task(sys.argv[1], sys.argv[3:], "
    code += "open('params').read(), sys.argv[2]))"
    Path("params").write_text(toy.params)
    names = ["first", "double@a", "double@b"]
    command = [sys.executable, "-c", code, "last", str(toy.remote), *[toy.parts[name] for name in names]]
    before = sorted(toy.remote.rglob("*"))
    environment = os.environ | {"TOY_S": "60", "TOY_GATE": str(Path("gate").absolute())}
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    while not Path("gate").exists():
        assert child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert sorted(toy.remote.rglob("*")) == before
    os.environ |= {"TOY_S": "0", "TOY_GATE": str(Path("gate").absolute())}
    assert not toy.run("last").restored
    outs = [merge([one])["last"]["outs"] for one in (part, toy.parts["last"])]
    assert outs[0] == outs[1]


def test_a_restored_stage_fetches_no_inputs(toy):
    """What a stage made earlier is known by its inputs' hashes: terabytes of photos need not travel for it."""
    toy.run("first")
    toy.run("double@a")
    inputs = merge([toy.parts["first"]])["first"]["outs"]
    for out in inputs:
        (toy.remote / "files/md5" / out["md5"][:2] / out["md5"][2:]).unlink()
    assert toy.run("double@a").restored


def test_outputs_missing_in_the_remote_are_made_again(toy):
    """A run-cache entry whose outputs were deleted does not count: never a green run with a hole in it."""
    toy.run("first")
    toy.ran()
    for path in (toy.remote / "files").rglob("*"):
        if path.is_file():
            path.unlink()
    assert not toy.run("first").restored
    assert toy.ran() == ["first crack"]
    assert [path for path in (toy.remote / "files").rglob("*") if path.is_file()]


def test_a_lock_part_that_names_a_missing_file_is_refused(toy):
    """The sentence names the parent and the remote."""
    toy.run("first")
    for path in (toy.remote / "files").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(InputError, match=r"outputs of first cannot be had from .*remote"):
        toy.run("double@a")


def test_of_two_results_for_one_input_all_take_the_same(toy):
    """Machines that round differently may both push: readers agree on one, and a later run adds none."""
    toy.run("first")
    entry = next(path for path in (toy.remote / "files/md5/../..").resolve().rglob("runs/*/*/*"))
    other = entry.with_name("0" * 64)
    other.write_bytes(entry.read_bytes())
    toy.run("first")
    toy.run("first")
    assert sorted(path.name for path in entry.parent.iterdir()) == sorted([entry.name, other.name])


def test_other_matrix_keys_than_compiled_are_refused(toy):
    """The message says which stages came, went, or read something else."""
    graph = as_text(derive(toy.checkout, toy.params))
    toy.params = toy.params.replace("b: {n: 2}", "c: {n: 2}")
    with pytest.raises(
        InputError, match=r"no longer there: double@b; new: double@c; with other inputs: last"
    ):
        toy.run("first", graph=graph)
    assert toy.ran() == []


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"stage": "polish"}, r"has no stage 'polish'; its stages are first, double@a.*Build the image"),
        ({"remote": "relative/folder"}, "expected s3://bucket/prefix or an existing folder's absolute path"),
        ({"params": "first: [a"}, "params is not YAML"),
        ({"params": "just words"}, "params: got str, expected the text of a params.yaml"),
        ({"params": "first: {}"}, r"dvc.yaml cannot be resolved with these values: .*"),
        ({"stage": "double@a"}, "reads the outputs of first, and no lock part was handed in"),
        ({"stage": "double@a", "lock_parts": ["zzz"]}, "got 'zzz'..., expected a lock part"),
        ({"snapshots": {"../x": ""}}, "expected the name of a stage"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(toy, told, says):
    """One sentence: what, got, expected, how to mend."""
    task = toy.task("first", [])
    with pytest.raises(InputError, match=says) as caught:
        run_task(type(task)(**{**task.__dict__, **told}))
    assert "\n" not in str(caught.value) or "YAML" in str(caught.value)
    assert toy.ran() == []


def test_a_stage_for_torch_is_refused_by_the_image_without(toy, monkeypatch):
    """Said before any data is fetched."""
    toy.run("first")
    monkeypatch.setenv("DAMCRACK_IMAGE", "cpu")
    toy.run("first")
    with pytest.raises(InputError, match="needs the image 'train', this is 'cpu' without torch"):
        toy.run("double@a")


def test_a_failing_command_fails_the_task_and_pushes_nothing(toy):
    """The sentence names the stage."""
    graph = toy.checkout / "dvc.yaml"
    graph.write_text(graph.read_text().replace("echo ${first.word} > data/first", "false"))
    with pytest.raises(InputError, match="stage first failed: failed to reproduce 'first'"):
        toy.run("first")
    assert not list(toy.remote.rglob("*"))


def test_parts_of_different_runs_are_not_mixed(toy):
    """Two parts that say different things of one stage are refused."""
    toy.run("first")
    one = toy.parts["first"]
    toy.params = toy.params.replace("crack", "joint")
    toy.run("first")
    with pytest.raises(InputError, match="contradict each other about first"):
        merge([one, toy.parts["first"]])


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
