"""The paper's experiments for real: a tiny copy of their graph run by DVC, with one cell that cannot be trained."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
REPORT = ("python", "-m", "experiments.paper.report")
pytestmark = pytest.mark.slow

CELLS = {
    "pretraining_seeds": [0],
    "pretrain": ["resnet18", "resnet50"],
    "distill": ["dynamic"],
    "init_seed": 0,
    "seeds": [0],
    "labels": [20],
    "scratch": ["resnet18"],
    "pretrained": ["resnet18"],
    "distilled": ["dynamic"],
}
OTHERS = ["option_seeds", "pretrain_more", "distill_more", "distill_under_soft_teacher", "more_seeds"]
OTHERS += ["most_labels", "more_scratch", "more_pretrained", "head", "taught"]


def tiny_params() -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((ROOT / "experiments/paper/params.yaml").read_text())
    params["photos"] |= {"sources": {"sample": "sample"}, "sample_photos": 12, "sample_size_hw": [448, 672]}
    params["miniimagenet"] |= {
        "source": "sample",
        "sample_classes": 3,
        "sample_per_class": 10,
        "image_px": 32,
    }
    params["tile"] |= {"tiles_per_class": None, "test_sources": [], "test_tiles_per_class": None}
    for section in ("pretrain", "distill", "finetune"):
        params[section]["common"] |= {"epochs": 1, "batch_size": 8}
    params["pretrain"]["items"]["resnet50"] |= {"epochs": 1, "network": "resnet18"}  # a small teacher
    params["finetune"]["common"] |= {"image_px": 32, "min_steps": 2}
    return params


class Folder:
    """A checkout with the experiments' graph in it."""

    def __init__(self, root: Path) -> None:
        self.root, self.cells = root, root / "experiments/paper"

    def call(self, where: Path, *command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "DAMCRACK_TRACK": "later",
        }
        words = [str(BIN / command[0]), *command[1:]]
        return subprocess.run(words, cwd=where, env=environment, capture_output=True, text=True, check=False)

    def write_params(self, scratch_rate: float) -> None:
        params = tiny_params()
        params["finetune"]["scratch"]["resnet18-scratch"]["learning_rate"] = scratch_rate
        (self.cells / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The graph after a run in which the network from scratch had a learning rate that ends in NaN."""
    made = Folder(tmp_path_factory.mktemp("study"))
    for name in ("src", "requirements"):
        shutil.copytree(ROOT / name, made.root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (made.cells / "snapshots").mkdir(parents=True)
    shutil.copy(ROOT / "experiments/__init__.py", made.root / "experiments")
    for module in (ROOT / "experiments/paper").glob("*.py"):
        shutil.copy(module, made.cells)
    for name in ("photos", "miniimagenet"):
        shutil.copy(ROOT / f"snapshots/{name}.csv", made.cells / "snapshots")
    shutil.copy(ROOT / ".dvcignore", made.root)
    shutil.copy(ROOT / "experiments/paper/dvc.yaml", made.cells)
    (made.cells / "cells.yaml").write_text(yaml.safe_dump({"cells": CELLS | {name: [] for name in OTHERS}}))
    made.write_params(scratch_rate=1e30)
    assert made.call(made.root, "dvc", "init", "--no-scm", "--quiet").returncode == 0
    done = made.call(made.cells, "dvc", "repro", "--keep-going")
    assert done.returncode != 0 and "finetune-scratch@resnet18-20-0" in done.stdout + done.stderr
    return made


def test_one_failure_loses_no_other_cell_and_is_listed(folder: Folder) -> None:
    """The others are in the tables; the failed one is listed with its reason, and the command ends in error."""
    done = folder.call(folder.root, *REPORT, "--markdown", "results.md")
    written = (folder.root / "results.md").read_text()
    assert done.returncode == 1
    assert "1 cells are missing" in done.stderr and "NonFiniteLossError" in done.stderr
    for method, published in (("dynamic", "99.85"), ("pretrained", "96.07")):
        assert re.search(rf"^\| resnet18-{method} \| [\d.]+ \| {published} \|", written, re.MULTILINE)
    assert "`models/finetune/resnet18-scratch/20/0`: NonFiniteLossError: the loss was" in written


def test_a_second_run_fills_only_the_hole_and_a_third_does_nothing(folder: Folder) -> None:
    """With the rate fixed one cell is trained, the report is whole, and then nothing is left to do."""
    folder.write_params(scratch_rate=0.02)
    done = folder.call(folder.cells, "dvc", "repro", "--keep-going")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Running stage") == 1
    written = folder.call(folder.root, *REPORT)
    assert written.returncode == 0, written.stderr[-3000:]
    assert "pretraining helps the ResNet18" in written.stdout
    assert (folder.root / "results/paper/results.html").is_file()
    again = folder.call(folder.cells, "dvc", "repro", "--keep-going")
    assert again.returncode == 0 and "Running stage" not in again.stdout
