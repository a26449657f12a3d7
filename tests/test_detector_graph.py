"""`make detector` for real: a tiny copy of its graph run by DVC, killed while it trains, run again, packed."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from damcrack.cracks.detector import OnnxDetector
from damcrack.files import sha256_file
from damcrack.train.weights import ModelInfo, load_model

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
EPOCHS = 3
pytestmark = pytest.mark.slow


def tiny_params() -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((ROOT / "experiments/detector/params.yaml").read_text())
    params["photos"] |= {"sample_photos": 8, "sample_size_hw": [448, 672]}
    params["tile"] |= {"tile_px": 224, "val_fraction": 0.25}
    params["finetune"]["common"] |= {"image_px": 224, "view_px": 64, "pixel_channels": 8, "batch_size": 4}
    params["finetune"]["common"]["network"] = "resnet18"  # an EfficientNet takes half a minute to export
    params["finetune"]["scratch"]["first"] |= {"epochs": EPOCHS, "encoder_weights": None}
    params["finetune"]["longer"]["detector"]["epochs"] = 1
    params["export"] |= {"parity_tiles": 8}
    return params


def start(where: Path, *command: str) -> subprocess.Popen[str]:
    root = where if (where / "src").is_dir() else where.parents[1]
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
        "DAMCRACK_TRACK": "later",
    }
    return subprocess.Popen(
        [str(BIN / command[0]), *command[1:]],
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def output_of(where: Path, *command: str) -> str:
    process = start(where, *command)
    said = process.communicate()[0]
    assert process.returncode == 0, said[-3000:]
    return said


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("detector")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    made = shutil.ignore_patterns("data", "models", "results", "snapshots", ".damcrack", "__pycache__")
    shutil.copytree(ROOT / "experiments/detector", root / "experiments/detector", ignore=made)
    # The detector of before is another network than this tiny one, and lies in the history of the checkout.
    graph = root / "experiments/detector/dvc.yaml"
    before = re.sub(r"git -C .*", "cp models/first/* models/earlier/", graph.read_text())
    graph.write_text(
        before.replace("    outs: [models/earlier]", "    deps: [models/first]\n    outs: [models/earlier]")
    )
    # Epochs as short as these are not worth a checkpoint each.
    checkpoint = root / "src/damcrack/train/checkpoint.py"
    often = checkpoint.read_text().replace("interval_s: float = 20.0", "interval_s: float = 0.0")
    assert often != checkpoint.read_text()
    checkpoint.write_text(often)
    for name in (".dvcignore", "experiments/__init__.py"):
        shutil.copy(ROOT / name, root / name)
    (root / "experiments/detector/params.yaml").write_text(yaml.safe_dump(tiny_params(), sort_keys=False))
    output_of(root, "dvc", "init", "--no-scm", "--quiet")
    output_of(root / "experiments/detector", "damcrack", "snapshot", "photos")
    return root


def test_a_killed_run_resumes_and_its_detector_is_packed(checkout: Path) -> None:
    """The second call trains the epochs that are missing; what it packs inspects, teaches and has its card."""
    graph = checkout / "experiments/detector"
    process = start(graph, "dvc", "repro")
    assert process.stdout is not None
    assert any(line.startswith("epoch 2/") for line in process.stdout)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    said = output_of(graph, "dvc", "repro")
    assert (
        f"epoch 1/{EPOCHS}" not in said
        and f"epoch {EPOCHS}/{EPOCHS}" in said
        and "Running stage 'tile" not in said
    )
    with (graph / "models/first/history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]

    longer, earlier, mean = (
        load_model(graph / "models" / name)[0].state_dict() for name in ("longer", "earlier", "detector")
    )
    halfway = {name: (longer[name] + earlier[name]) / 2 for name in mean}
    moved = {name for name in mean if not torch.equal(mean[name], halfway[name])}
    statistics = {name for name in mean if name.endswith(("running_mean", "running_var"))}
    assert statistics <= moved
    assert all(name.endswith("num_batches_tracked") for name in moved - statistics - {"pixel_head.bias"})

    output_of(checkout, "python", "-m", "experiments.detector")
    shipped = checkout / "src/damcrack/shipped"
    assert sorted(path.name for path in shipped.iterdir()) == [
        "CARD.md",
        "model.json",
        "model.onnx",
        "training",
    ]
    described = json.loads((shipped / "model.json").read_text())
    assert described["onnx_sha256"] == OnnxDetector.load(shipped).sha256
    assert described["weights_sha256"] == ModelInfo.read(graph / "models/detector").weights_sha256
    info = load_model(shipped / "training")[1]
    assert info.weights_sha256 == sha256_file(shipped / "training/weights.safetensors")
    assert "Running stage" not in output_of(graph, "dvc", "repro")
