"""Run the benchmarks and write docs/performance.md.

python -m benchmarks                  # training, tiling of 20 photos, start-up: about five minutes
python -m benchmarks --photos 458     # tiling at the paper's scale: renders 3 GB of photos under .bench/ first
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import torch
import torchvision

from benchmarks import training

PAGE = Path("docs/performance.md")


def machine() -> str:
    """Processor features and versions that the numbers belong to."""
    capabilities = torch.cpu.get_capabilities()
    features = [name for name in ("avx2", "avx512_bf16", "avx512_vnni", "amx_bf16") if capabilities.get(name)]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{os.cpu_count()} CPU cores ({', '.join(features)}), {gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, OpenCV {cv2.__version__}."
    )


def start_up(rounds: int = 5) -> str:
    """Seconds of whole processes, in turn: bare import of torch, help, and a stage's import."""
    commands = {
        "`python -c 'import torch, torchvision'`": "import torch, torchvision",
        "`damcrack --help`": "import sys; sys.argv[1:] = ['--help']; from damcrack.edges.cli import main; main()",
        "`import damcrack.stages.tile`": "import damcrack.stages.tile",
        "`import damcrack.stages.finetune`": "import damcrack.stages.finetune",
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, code in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
            seconds[name].append(time.perf_counter() - started)
    lines = ["| process | seconds, median (min to max) |", "| --- | --- |"]
    lines += [
        f"| {n} | {statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f}) |" for n, s in seconds.items()
    ]
    return "\n".join(lines)


def tiling(photos: int) -> str:
    """The tiling benchmark in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "benchmarks/tile.py", "--photos", str(photos)]
    subprocess.run([*command, "--render-only"], check=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    """Write the page."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--photos", type=int, default=20, help="how many 12-megapixel photos to tile")
    options = parser.parse_args()
    sections = [
        "# Performance",
        f"Written by `python -m benchmarks --photos {options.photos}`. Machine: {machine()}",
        "Variants run in turn in one process; ratios are taken pair by pair, because machines drift.",
        "## Training step: ResNet18, 224 px, batches of 32",
        str(training.__doc__).split("\n\n", 1)[1].strip(),
        training.main(),
        f"## Tiling: {options.photos} photos of 4032x3024",
        tiling(options.photos),
        "The peak of memory counts this page's own process at the fork; run benchmarks/tile.py by itself for its own.",
        "## Start-up",
        start_up(),
    ]
    PAGE.write_text("\n\n".join(sections) + "\n")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
