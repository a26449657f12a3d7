"""Run the benchmarks and write docs/performance.md: about 15 minutes on two free cores.

python -m benchmarks                  # steps, tiling of 60 photos and its growth, start-up
python -m benchmarks --photos 458     # tiling at the paper's scale: renders 1 GB of photos under .bench/ first
"""

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

import cv2
import torch
import torchvision

from benchmarks import budget, plain, start_up, steps

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


def tiling(photos: int) -> str:
    """The tiling benchmark in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.tile", "--photos", str(photos)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    """Write the page."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--photos", type=int, default=60, help="how many 12-megapixel photos to tile")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    timings = steps.measure(options.rounds)
    sections = [
        "# Performance",
        f"Written by `python -m benchmarks --photos {options.photos} --rounds {options.rounds}`. Machine: {machine()}",
        "Variants run in turn in one process; ratios are taken round by round, because machines drift.",
        "## Training, distillation and transfer at 224 px",
        "The plain loop is the reference. " + str(plain.__doc__).split("\n\n")[1].strip(),
        *(steps.as_section(title, found) for title, found in timings.items()),
        "## The paper's training at full scale, from these speeds",
        str(budget.__doc__).split("\n\n")[2].strip(),
        budget.table(timings),
        f"## Tiling: {options.photos} photos of 4032x3024",
        tiling(options.photos),
        "## Start-up",
        str(start_up.__doc__).split("\n\n")[1].strip(),
        start_up.main(options.rounds),
    ]
    PAGE.write_text("\n\n".join(sections) + "\n")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
