"""How small and how fast each network is on a CPU, in float32 and in int8.

    python -m benchmarks.compression               # about 4 minutes on two cores
    python -m benchmarks.compression --rounds 2

The weights are random: size and speed do not depend on them, how well int8 detects does, and is not looked at here.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.__main__ import machine
from benchmarks.harness import Timing, Variant, as_table, compare
from damcrack.engine.locator import Locator
from damcrack.engine.networks import NETWORKS, build_network
from damcrack.engine.weights import ModelInfo
from damcrack.sample.concrete import render_photo
from damcrack.stages.export_int8 import to_int8
from damcrack.stages.export_onnx import to_onnx

PAGE = Path("docs/compression.md")
OPSET = yaml.safe_load(Path("params.yaml").read_text())["export"]["opset"]
TILE_PX = 224
GRID = (4, 8)  # tiles of the rendered photo: rows, columns
BATCH_SIZE = 8
ROLES = {"resnet50": "teacher", "resnet18": "student"}
ORDER = (*ROLES, *(name for name in NETWORKS if name not in ROLES))  # the teacher first: the reference

Tiles = npt.NDArray[np.uint8]


class Size(NamedTuple):
    """What a network weighs, in parameters, multiply-adds per tile and bytes of its two files."""

    parameters: int
    multiply_adds: int
    float32_bytes: int
    int8_bytes: int


def title(name: str) -> str:
    """The network's name, with its role in the distillation."""
    return f"{name} ({ROLES[name]})" if name in ROLES else name


def rendered_tiles() -> Tiles:
    """Tiles (N, side, side, 3) of one photo of the built-in sample: they calibrate and they are timed."""
    rows, columns = GRID
    photo = render_photo(seed=0, index=0, size_hw=(rows * TILE_PX, columns * TILE_PX)).rgb
    grid = photo.reshape(rows, TILE_PX, columns, TILE_PX, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(-1, TILE_PX, TILE_PX, 3))


def new_network(name: str) -> nn.Module:
    """Two classes, random weights; residual branches that start at zero are opened, for int8 has no scale for zero."""
    network = build_network(name, 2, 0).eval()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)
    return network


def deployed(name: str, network: nn.Module) -> Locator:
    """The network as it is exported: raw tiles in, crack probability out."""
    info = ModelInfo(
        name=name,
        network=name,
        classes=("no crack", "crack"),
        image_px=TILE_PX,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        data_digest="",
        init_sha256=None,
        teacher_sha256=None,
        best_epoch=0,
        config={},
    )
    return Locator(network, info).eval()


def multiply_adds(name: str) -> int:
    """Those of convolutions and linear layers for one tile."""
    with torch.device("meta"):
        network, tile = build_network(name, 2, 0).eval(), torch.empty(1, 3, TILE_PX, TILE_PX)
    with FlopCounterMode(display=False) as counter:
        network(tile)
    return int(counter.get_total_flops()) // 2


def write_both(name: str, folder: Path, tiles_NHWC: Tiles) -> Size:
    """Write FOLDER/NAME-float32.onnx and FOLDER/NAME-int8.onnx."""
    network = new_network(name)
    float32, int8 = (folder / f"{name}-{precision}.onnx" for precision in ("float32", "int8"))
    float32.write_bytes(to_onnx(deployed(name, network), (TILE_PX, TILE_PX), OPSET))
    int8.write_bytes(to_int8(float32.read_bytes(), tiles_NHWC))
    parameters = sum(weight.numel() for weight in network.parameters())
    return Size(parameters, multiply_adds(name), float32.stat().st_size, int8.stat().st_size)


def scoring(model: Path, tiles_NHWC: Tiles) -> Variant:
    """A portion that scores all tiles in batches, with as many threads as torch would take."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    batches = np.split(tiles_NHWC, len(tiles_NHWC) // BATCH_SIZE)
    return partial(_score, session, batches)


def _score(session: Any, batches: list[Tiles]) -> int:
    return sum(len(session.run(["crack_prob"], {"tiles": batch})[0]) for batch in batches)


def measure(rounds: int) -> tuple[dict[str, Size], list[Timing]]:
    """Sizes by network; rates of float32 and int8 of one network after the other, in turn."""
    tiles_NHWC = rendered_tiles()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {name: write_both(name, Path(folder), tiles_NHWC) for name in ORDER}
        variants = {
            f"{title(name)}, {precision}": scoring(Path(folder) / f"{name}-{precision}.onnx", tiles_NHWC)
            for name in ORDER
            for precision in ("float32", "int8")
        }
        return sizes, compare(variants, rounds)


def overview(sizes: dict[str, Size], timings: list[Timing]) -> str:
    """Markdown: one row for each network; its two timings follow each other."""
    lines = [
        "| network | parameters, M | float32, MB | int8, MB | multiply-adds, G | float32, tiles/s | int8, tiles/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (name, size), float32, int8 in zip(sizes.items(), timings[::2], timings[1::2], strict=True):
        lines.append(
            f"| {title(name)} | {size.parameters / 1e6:.2f} | {size.float32_bytes / 1e6:.1f} "
            f"| {size.int8_bytes / 1e6:.1f} | {size.multiply_adds / 1e9:.2f} "
            f"| {float32.median:.1f} | {int8.median:.1f} |"
        )
    return "\n".join(lines)


def page(sizes: dict[str, Size], timings: list[Timing], rounds: int) -> str:
    """The whole page."""
    versions = f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
    sections = [
        "# Size and speed of the networks",
        f"Written by `python -m benchmarks.compression --rounds {rounds}`. Machine: {machine()[:-1]}, {versions}; "
        f"threads: {torch.get_num_threads()}.",
        f"Networks for two classes as they are exported: tiles of {TILE_PX} px in, crack probability out, ONNX opset "
        f"{OPSET}. Their weights are random: this page is about size and speed, and says nothing of how well a "
        "network detects, in int8 least of all. MB are 10^6 bytes of the ONNX files; multiply-adds are those of "
        "convolutions and linear layers for one tile. int8 is static quantisation by onnxruntime (QDQ, a scale for "
        f"each channel of the weights, activations by their extremes over {np.prod(GRID)} rendered tiles).",
        f"Speed: onnxruntime on the CPU, batches of {BATCH_SIZE}, {np.prod(GRID)} tiles at a time, all rows in turn, "
        f"{rounds} rounds; ratios are taken round by round, because machines drift.",
        overview(sizes, timings),
        as_table(timings),
    ]
    return "\n\n".join(sections) + "\n"


def main() -> None:
    """Write the page."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    options.out.write_text(page(*measure(options.rounds), options.rounds))
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
