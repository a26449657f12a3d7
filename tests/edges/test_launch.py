"""One training command over several processes: it launches them itself, and they end as one."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from damcrack.edges.launch import launched, wanted_processes
from damcrack.errors import InputError
from damcrack.images.imageset import ImageSetWriter
from damcrack.images.tiles import encode_tile

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in two classes, and values for one short epoch."""
    folder = tmp_path_factory.mktemp("launch")
    writer = ImageSetWriter(folder / "images")
    random = np.random.default_rng(0)
    for number in range(12):
        tile = random.integers(0, 256, (32, 32, 3), np.uint8)
        split = "val" if number < 4 else "train"
        writer.add(f"{number}.jpg", encode_tile(tile, 90), label=number % 2, split=split)
    writer.finish("images.csv", ("a", "b"), (32, 32))
    params = yaml.safe_load((ROOT / "params" / "demo.yaml").read_text())
    params["pretrain"]["common"] |= {"epochs": 1, "batch_size": 4}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def pretrain(workspace: Path, images: str, out: str) -> subprocess.CompletedProcess[str]:
    """Run the command with two processes."""
    command = [str(Path(sys.executable).parent / "damcrack"), "pretrain", "--item", "resnet18"]
    settings = {"DAMCRACK_PROCESSES": "2", "DAMCRACK_TRACK": "later", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [*command, "--images", images, "--out", out],
        cwd=workspace,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_leave_one_model_and_one_record(workspace: Path) -> None:
    """The command is the same; model, journal and summary are there once."""
    done = pretrain(workspace, "images", "model")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1/1") == done.stderr.count("pretrain@resnet18 done") == 1
    assert "in 2 processes" in done.stderr
    with (workspace / "model/history.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 1
    (journal,) = (workspace / ".damcrack/journal").glob("*.jsonl")
    assert json.loads(journal.read_text().splitlines()[-1])["status"] == "FINISHED"
    assert not any((workspace / ".damcrack/checkpoints").glob("*"))


def test_failure_of_processes_is_one_sentence(workspace: Path) -> None:
    """What both processes found wrong is said once, without torchrun's pages, and nothing is left."""
    (workspace / "no-images").mkdir(exist_ok=True)
    done = pretrain(workspace, "no-images", "failed")
    assert done.returncode == 1
    assert done.stderr.startswith("damcrack: error: no-images is not an image set")
    assert done.stderr.count("\n") == 1
    assert not (workspace / "failed").exists()


@pytest.mark.parametrize("text", ["two", "0", "-1", "1.5", ""])
def test_number_of_processes_is_checked(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Anything but a number from 1 is refused before anything is started."""
    monkeypatch.setenv("DAMCRACK_PROCESSES", text)
    with pytest.raises(InputError, match="DAMCRACK_PROCESSES: got"):
        wanted_processes()


def test_one_process_is_launched_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one process, or inside one that torchrun started, the command simply runs."""
    monkeypatch.setenv("DAMCRACK_PROCESSES", "1")
    assert not launched()
    monkeypatch.setenv("DAMCRACK_PROCESSES", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "some")
    assert not launched()
