"""The graph for real: a tiny copy of it run by DVC in its own workspace, and its stages by other callers."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from damcrack.params import stage_config
from damcrack.run import Run
from damcrack.storage.source import open_source
from smallest import smallest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COPIED = ("dvc.yaml", "requirements", "snapshots", "src", ".dvcignore")
pytestmark = pytest.mark.slow


def tiny_params() -> dict[str, Any]:
    """The smallest values, with a student that is taught in the crack stage too."""
    params = smallest(ROOT)
    params["finetune"]["taught"] = {
        "resnet18-dynamic-taught": {"init": "dynamic", "teacher": "resnet50-pretrained", "views": 1}
    }
    return params


def call(workspace: Path, *command: str) -> str:
    """Run a command of the environment in the workspace; return what it printed."""
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(workspace / "src"),
        "DAMCRACK_TRACK": "later",
        "MLFLOW_TRACKING_URI": f"sqlite:///{workspace / 'mlflow.db'}",
    }
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '(.*?)'", output))


def digests(folder: Path) -> dict[str, str]:
    """Hash of every file in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the whole tiny graph has run once."""
    folder = tmp_path_factory.mktemp("graph")
    for name in COPIED:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(
            source, folder / name
        )
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params(), sort_keys=False))
    call(folder, "dvc", "init", "--no-scm", "--quiet")
    call(folder, "dvc", "repro")
    return folder


def change(workspace: Path, section: str, name: str, value: object) -> None:
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params[section][name] = value
    (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def test_graph_ends_with_a_registered_model(workspace: Path) -> None:
    """All stages ran; the registered weights are those of the exported experiment."""
    registered = json.loads((workspace / "results/register/register.json").read_text())
    model = json.loads((workspace / "models/finetune/lite0-detector/model.json").read_text())
    assert registered["weights_sha256"] == model["weights_sha256"]
    assert "<html" in (workspace / "results/evaluate/results.html").read_text()
    assert "lite0-detector" in call(workspace, "damcrack", "summary")


def test_case_study_looks_at_photos_that_no_training_saw(workspace: Path) -> None:
    """Every block of the test photos is judged, the brightness threshold beside it; the report is there."""
    study = json.loads((workspace / "results/inspect/case-study.json").read_text())
    with (workspace / "data/tiles/tiles.csv").open(newline="") as file:
        splits = {(row["photo"], row["split"]) for row in csv.DictReader(file)}
    with (workspace / "results/inspect/photos.csv").open(newline="", encoding="utf-8-sig") as file:
        inspected = {row["photo"] for row in csv.DictReader(file)}
    assert inspected and {split for photo, split in splits if photo in inspected} == {"test"}
    blocks = study["blocks"]["all"]
    assert blocks["network"]["num_blocks"] == blocks["global threshold"]["num_blocks"] > 0
    assert set(study["pixels"]) == {"network", "global threshold", "Otsu", "adaptive"}
    assert (workspace / "results/inspect/report.html").is_file()


def test_lineage_goes_from_hash_to_hash(workspace: Path) -> None:
    """Crack model, distilled student and teacher name each other by the content of their weights."""
    crack, student, teacher = (
        json.loads((workspace / "models" / name / "model.json").read_text())
        for name in ("finetune/resnet18-dynamic", "distill/dynamic", "pretrain/resnet50")
    )
    assert crack["init_sha256"] == student["weights_sha256"]
    assert student["teacher_sha256"] == teacher["weights_sha256"]


def test_stored_soft_targets_serve_the_next_student(workspace: Path) -> None:
    """Fixed and dynamic students of one teacher read one table; the crack stage's teacher has its own."""
    assert len(list((workspace / ".damcrack/soft-targets").glob("*/*.safetensors"))) == 2


def test_second_run_runs_nothing(workspace: Path) -> None:
    """Nothing changed, so nothing is run."""
    assert stages_run(call(workspace, "dvc", "repro")) == set()


def test_python_function_and_command_give_the_bytes_of_dvc(workspace: Path, tmp_path: Path) -> None:
    """For data and training stages, all three callers write identical files."""
    from damcrack.data.tile import tile
    from damcrack.train.finetune import finetune

    params = yaml.safe_load((workspace / "params.yaml").read_text())
    run = Run(tmp_path / "scratch")
    tile(workspace / "data/photos", tmp_path / "tiles", stage_config(params, "tile", None), run)
    item = "resnet18-scratch"
    config = stage_config(params, "finetune", item)
    finetune(tmp_path / "tiles", tmp_path / "model", item, config, run)
    command = ["finetune", "--item", item, "--tiles", "data/tiles", "--out", str(tmp_path / "by-command")]
    call(workspace, "damcrack", *command)
    by_dvc = digests(workspace / "models/finetune" / item)
    assert digests(tmp_path / "tiles") == digests(workspace / "data/tiles")
    assert digests(tmp_path / "model") == by_dvc
    assert digests(tmp_path / "by-command") == by_dvc


def test_photos_function_gives_the_bytes_of_dvc(workspace: Path, tmp_path: Path) -> None:
    """The built-in sample is a function of its seed."""
    from damcrack.data.photos import photos

    config = stage_config(tiny_params(), "photos", None)
    photos(workspace / "snapshots/photos.csv", tmp_path / "photos", config, open_source, Run())
    assert digests(tmp_path / "photos") == digests(workspace / "data/photos")


def test_one_changed_value_runs_only_what_it_touches(workspace: Path) -> None:
    """A value of the page runs the evaluation and what reads it; no training."""
    change(workspace, "evaluate", "worst_tiles", 3)
    assert stages_run(call(workspace, "dvc", "repro")) == {"evaluate", "register"}


def test_one_changed_experiment_leaves_its_siblings(workspace: Path) -> None:
    """A value of one experiment trains that one alone, and what is made of it."""
    change(workspace, "finetune", "scratch", {"resnet18-scratch": {"learning_rate": 0.01}})
    assert stages_run(call(workspace, "dvc", "repro")) == {
        "finetune-scratch@resnet18-scratch",
        "evaluate",
        "register",
    }
