"""Seconds of whole processes, in turn: what starting costs beside importing torch.

The stages are run on eight 32-px tiles for one epoch, so nearly all that they take is their fixed cost.

    python -m benchmarks.start_up
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from damcrack.data.imageset import ImageSetWriter
from damcrack.data.photo import encode_jpeg

IMPORT = "`python -c 'import torch, torchvision'`"
HELP = "`damcrack --help`"
PARAMS = Path("params/demo.yaml")


def write_set(root: Path, index: str) -> None:
    """Eight images of noise for training and validation."""
    random, writer = np.random.default_rng(0), ImageSetWriter(root)
    for number in range(8):
        encoded = encode_jpeg(random.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        writer.add(f"{number}.jpg", encoded, label=number % 2, split="train" if number < 6 else "val")
    writer.finish(index, ("no crack", "crack"), (32, 32))


def commands(root: Path) -> dict[str, list[str]]:
    """Process by title; the first is what the others are compared with."""
    params = yaml.safe_load(PARAMS.read_text())
    for section in ("pretrain", "finetune"):
        params[section]["common"] |= {"epochs": 1, "warmup_epochs": 0, "batch_size": 2}
    params["finetune"]["common"]["image_px"] = 32
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    write_set(root / "tiles", "tiles.csv")
    command = [sys.executable, "-c", "from damcrack.cli.main import main; main()"]
    options = ["--params", "params.yaml", "--out", "model"]
    return {
        IMPORT: [sys.executable, "-c", "import torch, torchvision"],
        "`python -c 'import torch'`": [sys.executable, "-c", "import torch"],
        HELP: [*command, "--help"],
        "`import damcrack.data.tile`": [sys.executable, "-c", "import damcrack.data.tile"],
        "`damcrack pretrain`, one step": [
            *command,
            "pretrain",
            "--item",
            "resnet18",
            "--images",
            "tiles",
            *options,
        ],
        "`damcrack finetune`, one step": [
            *command,
            *("finetune", "--item", "resnet18-scratch", "--tiles", "tiles"),
            *options,
        ],
    }


def main(rounds: int = 5) -> str:
    """Return the table of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        processes = commands(Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in processes}
        environment = os.environ | {"DAMCRACK_TRACK": "later"}
        for _ in range(rounds + 1):  # the first warms the disk's cache
            for name, command in processes.items():
                started = time.perf_counter()
                subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
                seconds[name].append(time.perf_counter() - started)
    lines = [
        "| process | seconds, median (min to max) | more than the first, median (min to max) |",
        "| --- | --- | --- |",
    ]
    for name, values in seconds.items():
        more = [value - first for value, first in zip(values[1:], seconds[IMPORT][1:], strict=True)]
        lines.append(f"| {name} | {_spread(values[1:])} | {_spread(more)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    print(main())
