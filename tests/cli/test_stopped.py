"""A stopped container, and a machine with little memory: each command ends soon, or goes on with the next photo."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from damcrack.data.config import MiniimagenetConfig
from damcrack.data.miniimagenet import miniimagenet
from damcrack.run import Run
from damcrack.storage.source import open_source
from photo_folders import PhotosDirectory, concrete, half_cracked
from smallest import smallest
from walls import write_darkness_detector

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")]


def start(folder: Path, *command: str) -> "subprocess.Popen[str]":
    code = "import sys; from damcrack.cli.main import main; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "DAMCRACK_TRACK": "later"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code, *command], cwd=folder, env=environment, stderr=pipe, text=True
    )


def walls_in(folder: Path, num: int, side_px: int) -> None:
    """Photos of one wall, each with a corner of its own."""
    folder.mkdir()
    wall = concrete(np.random.default_rng(0), side_px, side_px)
    for number in range(num):
        wall[:8, :8] = 4 * number
        Image.fromarray(wall).save(folder / f"{number}.jpg")


def inspect(root: Path) -> tuple[list[str], str]:
    walls_in(root / "in", 30, 800)
    write_darkness_detector(root / "model.onnx")
    return ["inspect", "in", "--model", "model.onnx", "--out", "out"], "out/photos/*"


def imagery(root: Path) -> tuple[list[str], str]:
    walls_in(root / "in", 60, 800)
    (root / "imagery.yaml").write_text(f"incoming: {root / 'in'}\nstore: {root / 'store'}\n")
    return ["imagery", "take-in"], "store/accepted/photos/*"


def tile(root: Path) -> tuple[list[str], str]:
    photos = PhotosDirectory(root / "photos")
    for number in range(20):
        photos.add(str(number), concrete(np.random.default_rng(number), 900, 900), half_cracked(900, 900))
    params = smallest(ROOT)
    params["tile"] |= {"tile_px": 32, "clean_sources": [], "masks": {}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return ["tile", "--photos", "photos", "--out", "out"], ".out.new/shards/*"


def training(root: Path) -> tuple[list[str], str]:
    params = smallest(ROOT)
    params["pretrain"]["common"] |= {"epochs": 5000}
    params["pretrain"]["items"] = {"small": {"network": "resnet18"}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    config = MiniimagenetConfig(**params["miniimagenet"])
    miniimagenet(root / "none.csv", root / "images", config, open_source, Run())
    return ["pretrain", "--item", "small", "--images", "images", "--out", "out"], "epoch 2/"


@pytest.mark.parametrize("prepare", [inspect, imagery, tile, training])
def test_a_stopped_command_ends_within_seconds(
    tmp_path: Path, prepare: Callable[[Path], tuple[list[str], str]]
) -> None:
    """In the middle of its work, with the exit code of SIGTERM and one sentence."""
    command, begun = prepare(tmp_path)
    process = start(tmp_path, *command)
    assert process.stderr is not None
    if begun.startswith("epoch"):
        assert any(line.startswith(begun) for line in process.stderr)
    while not begun.startswith("epoch") and not list(tmp_path.glob(begun)):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    stopped = time.monotonic()
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 143, text
    assert time.monotonic() - stopped < 20
    assert "Traceback" not in text
    assert not (tmp_path / "out/set.json").exists() and not (tmp_path / "out/survey.json").exists()


def test_a_thread_that_works_for_long_holds_up_nothing() -> None:
    """Neither a long call nor a thread that the end waits for: after a few seconds the process is gone."""
    code = (
        "import sys, time, damcrack.cli.main as cli, damcrack.stage_runner as runner\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def execute(*_):\n"
        "    print('begun', flush=True)\n"
        "    with ThreadPoolExecutor(1) as pool: pool.submit(time.sleep, 60).result()\n"
        "runner.execute, cli.GRACE_S = execute, 1.0\n"
        "sys.argv = ['damcrack', 'photos', '--snapshot', 'none', '--out', 'out', '--params', sys.argv[1]]\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "params/demo.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=40) == 143


@pytest.mark.skipif(sys.platform != "linux", reason="bounds the memory of a process as Linux does")
def test_a_photo_that_memory_does_not_hold_is_set_aside(tmp_path: Path) -> None:
    """The others are inspected; the reason is memory, not damage."""
    walls_in(tmp_path / "in", 3, 300)
    Image.new("L", (9000, 9000), 130).save(tmp_path / "in/large.png")
    write_darkness_detector(tmp_path / "model.onnx")
    code = (
        "import resource, sys, cv2, onnxruntime\n"
        "from damcrack.cli.main import main\n"
        "import damcrack.inspection.inspect, damcrack.data.photo\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 450 * 2**20,) * 2)\n"
        "sys.argv = ['damcrack', 'inspect', 'in', '--model', 'model.onnx', '--out', 'out']\n"
        "main()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out/photos").iterdir())) == 3
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("set aside: large.png")]
    assert "memory" in line and "corrupt" not in line
