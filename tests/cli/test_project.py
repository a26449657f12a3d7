"""`damcrack init`: the repository's own graph and values, for a project without its code."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from damcrack.cli.main import cli
from damcrack.cli.project import TEACHER, VERSIONS, graph_without_code
from damcrack.params import check_params, read_params
from damcrack.stage_table import STAGES

ROOT = Path(__file__).parents[2]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def init(folder: Path) -> str:
    done = CliRunner().invoke(cli, ["init", str(folder)])
    assert done.exit_code == 0, done.output
    return done.output


def test_values_are_those_of_the_repository(tmp_path: Path) -> None:
    """Every copied file has the repository's bytes, and its values are valid."""
    init(tmp_path / "own")
    for name in ("params.yaml", "imagery.yaml", "snapshots/photos.csv", ".dvcignore", ".dvc/config"):
        assert (tmp_path / "own" / name).read_bytes() == (ROOT / name).read_bytes()
    check_params(read_params(tmp_path / "own/params.yaml"), list(STAGES))
    assert (tmp_path / "own/photos/masks").is_dir()


def test_the_graph_differs_in_the_code_alone(tmp_path: Path) -> None:
    """Same stages, commands, values and outputs; of the inputs, code and locked versions are one file."""
    own = yaml.safe_load(graph_without_code((ROOT / "dvc.yaml").read_text()))["stages"]
    assert list(own) == list(GRAPH)
    for name, stage in own.items():
        mine, theirs = stage.get("do", stage), GRAPH[name].get("do", GRAPH[name])
        assert mine["cmd"] == theirs["cmd"].replace("src/damcrack/shipped/training", TEACHER)
        assert (mine["outs"], mine["params"]) == (theirs["outs"], theirs["params"])
        data = [dep for dep in theirs["deps"] if not dep.startswith(("src/", "requirements/"))]
        assert [dep for dep in mine["deps"] if dep not in (VERSIONS, TEACHER)] == data
        assert VERSIONS in mine["deps"]


def test_what_is_there_stays_and_an_update_is_an_input(tmp_path: Path) -> None:
    """Own values survive a second call, which renews the versions and nothing else, and names what differs."""
    init(tmp_path)
    (tmp_path / "params.yaml").write_text("mine: 1\n")
    (tmp_path / VERSIONS).write_text("damcrack==0.0.1\n")
    assert str(tmp_path / "params.yaml") in init(tmp_path)
    assert (tmp_path / "params.yaml").read_text() == "mine: 1\n"
    assert (tmp_path / VERSIONS).read_text() != "damcrack==0.0.1\n"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "file").touch()
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "file/own")])
    assert done.exit_code == 1 and "cannot write" in str(done.exception)


@pytest.mark.slow
@pytest.mark.parametrize("git", [True, False])
def test_dvc_reads_the_project(tmp_path: Path, git: bool) -> None:
    """In a git repository and without one, and the first stage runs."""
    pytest.importorskip("dvc")
    if git:
        subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    init(tmp_path)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["photos"] |= {"sample_photos": 2, "sample_size_hw": [256, 320]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    environment = os.environ | {"DAMCRACK_TRACK": "live" if git else "later"}
    call = ["dvc", "repro", "photos"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "data/photos").rglob("*.jpg"))) == 2


@pytest.mark.slow
def test_a_downloaded_archive_needs_no_git(tmp_path: Path) -> None:
    """In a tree without .git, in a path with a space, the make targets of the graph set DVC up to run without git."""
    pytest.importorskip("dvc")
    tree = tmp_path / "a b"
    (tree / ".dvc").mkdir(parents=True)
    for name in ("Makefile", ".dvc/config"):
        shutil.copy(ROOT / name, tree / name)
    (tree / "dvc.yaml").write_text("stages: {a: {cmd: echo a >b, outs: [b]}}\n")
    assert (
        ".dvc/config.local" in (ROOT / "Makefile").read_text().partition("\nrepro: .venv")[2].split("\n")[0]
    )
    subprocess.run(["make", ".dvc/config.local"], cwd=tree, check=True)
    done = subprocess.run(["dvc", "repro"], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
