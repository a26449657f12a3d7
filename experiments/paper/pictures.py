"""Pictures of four test tiles: feature maps of a network's first stages (paper, table 3), and threshold masks.

Shape suffixes: N tiles, H and W pixels, C channels of a stage, K the strongest of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from damcrack.data.imageset import CLASSES, ImageSet
from damcrack.evaluate.drawing import GREEN, RED
from damcrack.evaluate.scored import TileClassifier
from damcrack.scores.thresholds import adaptive_dark, otsu_dark
from damcrack.train.weights import load_model
from experiments.paper.claims import OURS, Answers, Study

RESIDUAL = ("stem", "first residual stage", "second residual stage")
# Their modules: torchvision's ResNets, timm's EfficientNets, and either as the encoder under a pixel head.
MODULES = (
    ("maxpool", "layer1", "layer2"),
    ("bn1", "blocks.0", "blocks.1"),
    ("encoder.pool", "encoder.stages.0", "encoder.stages.1"),
    ("encoder.stem", "encoder.blocks.0", "encoder.blocks.1"),
)
PLAIN = ("first pooling", "second pooling", "third pooling")
STRONGEST = 4
TILE_IN, TITLE_IN, WORDS_IN = 2.2, 0.3, 0.35
FRAMES = "Green frame: right; red frame: wrong."
# the baselines whose dark pixels make a picture; one level for all tiles does not
MASKS = {"otsu_threshold": ("Otsu", otsu_dark), "adaptive_threshold": ("local mean", adaptive_dark)}

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


def tile_figures(study: Study, tiles: ImageSet) -> Iterator[tuple[str, Figure, str]]:
    """Feature maps and threshold masks of the same tiles, looked at by the network with most labels, first seed."""
    cell, answers = (study.cells(OURS, max(study.labels)) or study.answered)[0]
    numbers = examples(study.tiles.labels, answers)
    pixels = _pixels(tiles, np.array(tiles.where("test"))[numbers])
    if stages := feature_maps(cell.model.folder, pixels):
        caption = (
            f"Feature maps of the first stages of {cell.method} (the paper's table 3): the {STRONGEST} channels with "
            "the highest mean absolute activation over these tiles, dark (low) to bright, on one scale in all rows. "
            f"{FRAMES}"
        )
        yield (
            "feature_maps",
            _maps(study.tiles.labels[numbers], answers.probs()[numbers], pixels, stages),
            caption,
        )
    caption = (
        "Threshold segmentation of the same tiles: black is what Otsu's level, or the mean of the surroundings, "
        f"calls dark; below it the verdict of the rule fitted on the training tiles. {FRAMES}"
    )
    yield "threshold_segmentation", _segmentations(study, answers, numbers, pixels), caption


def examples(labels: Ints, answers: Answers) -> Ints:
    """Numbers of two found cracks, a true negative and an error, each the most confident; fewer if there are none."""
    confidence, verdicts = np.abs(answers.probs() - 0.5), answers.predicted
    kinds = (labels & verdicts, (1 - labels) & (1 - verdicts), labels ^ verdicts)
    chosen = []
    for kind, num in zip(kinds, (2, 1, 1), strict=True):
        numbers = np.flatnonzero(kind)
        chosen.append(numbers[np.argsort(-confidence[numbers], kind="stable")][:num])
    return np.concatenate(chosen)


def _pixels(tiles: ImageSet, rows: Ints) -> Pixels:
    wanted = set(rows.tolist())
    found = {row: jpeg for row, jpeg in tiles.encoded() if row in wanted}
    decoded = [
        cv2.imdecode(np.frombuffer(found[row], np.uint8), cv2.IMREAD_COLOR_RGB) for row in rows.tolist()
    ]
    return np.stack([np.asarray(tile, np.uint8) for tile in decoded])


class StageMaps(NamedTuple):
    """A stage's strongest channels: maps (N, K, H, W) in 0..1 at the tiles' size, computed at `size_hw`.

    A channel is scaled over all tiles together, so that its brightness compares between them.
    """

    stage: str
    channels: Sequence[int]
    num_channels: int
    size_hw: tuple[int, int]
    maps_NKHW: npt.NDArray[np.float32]


def first_stages(network: nn.Module) -> dict[str, nn.Module]:
    """Stem and first two stages of a residual network; else the first three poolings, if it has any."""
    modules = dict(network.named_modules())
    for names in MODULES:
        if set(names) <= set(modules):
            return {stage: modules[name] for stage, name in zip(RESIDUAL, names, strict=True)}
    poolings = [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]
    return dict(zip(PLAIN, poolings, strict=False))


def feature_maps(model: Path, tiles_NHWC: Pixels) -> list[StageMaps]:
    """Maps of raw uint8 RGB tiles by the float32 network in folder `model`; empty where there are no stages."""
    network, info = load_model(model)
    outputs = _outputs(
        TileClassifier(network, info).eval(), first_stages(network), torch.from_numpy(tiles_NHWC)
    )
    return [_strongest(stage, maps_NCHW, tiles_NHWC.shape[1:3]) for stage, maps_NCHW in outputs.items()]


@torch.inference_mode()
def _outputs(
    detector: TileClassifier, stages: Mapping[str, nn.Module], tiles_NHWC: Tensor
) -> dict[str, Tensor]:
    """The output (N, C, h, w) of each stage in one pass."""
    outputs: dict[str, Tensor] = {}
    hooks = [module.register_forward_hook(partial(_keep, outputs, stage)) for stage, module in stages.items()]
    try:
        detector(tiles_NHWC)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _keep(
    outputs: dict[str, Tensor], stage: str, _module: nn.Module, _inputs: object, output: Tensor
) -> None:
    outputs[stage] = output.clone()  # later layers may write over it


def _strongest(stage: str, maps_NCHW: Tensor, tile_hw: tuple[int, int]) -> StageMaps:
    """Choose by mean absolute activation over the tiles, the first of equally strong ones."""
    strength_C = maps_NCHW.abs().mean(dim=(0, 2, 3))
    channels_K = strength_C.argsort(descending=True, stable=True)[:STRONGEST]
    maps_NKHW = maps_NCHW[:, channels_K]
    low, high = (f(maps_NKHW, dim=(0, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    scaled_NKHW = (maps_NKHW - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    large_NKHW = F.interpolate(scaled_NKHW, size=tile_hw, mode="bilinear")
    size_hw = maps_NCHW.shape[2], maps_NCHW.shape[3]
    return StageMaps(stage, channels_K.tolist(), maps_NCHW.shape[1], size_hw, large_NKHW.numpy())


def _grid(rows: int, columns: int, header_in: float) -> tuple[Figure, npt.NDArray[np.object_]]:
    """Places for square pictures with two lines of words below each."""
    size = (TILE_IN * columns, header_in + (TILE_IN + WORDS_IN) * rows)
    figure = Figure(figsize=size, layout="constrained")
    grid: npt.NDArray[np.object_] = figure.subplots(rows, columns, squeeze=False)
    return figure, grid


def _show(
    axes: Axes, picture: npt.NDArray[np.generic], words: str = "", is_right: bool | None = None
) -> None:
    """Show a picture, uint8 RGB or 0..1 with NaN for nothing, above its words, framed if there is a verdict."""
    axes.imshow(picture, cmap="viridis", vmin=0, vmax=1)
    axes.set_anchor("N")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(words, fontsize=8.5, loc="left")
    axes.spines[:].set(visible=is_right is not None, linewidth=2.5, edgecolor=GREEN if is_right else RED)


def _show_tile(axes: Axes, tile: Pixels, label: int, prob: float) -> None:
    _show(axes, tile, f"truth: {CLASSES[label]}\nnetwork: {prob:.1%} crack", (prob > 0.5) == label)


def _maps(
    labels: Ints, probs: npt.NDArray[np.float64], pixels: Pixels, stages: Sequence[StageMaps]
) -> Figure:
    figure, grid = _grid(len(pixels), 1 + len(stages), 2 * TITLE_IN)
    for row, places in enumerate(grid):
        _show_tile(places[0], pixels[row], int(labels[row]), float(probs[row]))
        for axes, stage in zip(places[1:], stages, strict=True):
            _show(axes, _two_by_two(stage.maps_NKHW[row]))
    for axes, stage in zip(grid[0, 1:], stages, strict=True):
        height, width = stage.size_hw
        channels = ", ".join(map(str, stage.channels))
        title = f"{stage.stage}\n{stage.num_channels} channels, {height} x {width} px\nshown: {channels}"
        axes.set_title(title, loc="left", fontsize=8.5)
    return figure


def _two_by_two(maps_KHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """At most four maps as one picture, row by row, with a gap of nothing between them."""
    _, height, width = maps_KHW.shape
    gap = max(1, height // 25)
    picture = np.full((2 * height + gap, 2 * width + gap), np.nan, dtype=np.float32)
    for place, one_HW in enumerate(maps_KHW):
        y, x = (place // 2) * (height + gap), (place % 2) * (width + gap)
        picture[y : y + height, x : x + width] = one_HW
    return picture


def _segmentations(study: Study, answers: Answers, numbers: Ints, pixels: Pixels) -> Figure:
    figure, grid = _grid(1 + len(MASKS), len(numbers), 0)
    for column, number, tile in zip(grid.T, numbers.tolist(), pixels, strict=True):
        label = int(study.tiles.labels[number])
        _show_tile(column[0], tile, label, float(answers.probs()[number]))
        for axes, (name, (title, find)) in zip(column[1:], MASKS.items(), strict=True):
            dark = find(np.asarray(cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY), np.uint8))
            verdict = int(study.baselines[name][number])
            words = f"{title}: {dark.mean():.1%} dark\nverdict: {CLASSES[verdict]}"
            white = np.where(dark, np.uint8(0), np.uint8(255))[..., None].repeat(3, axis=2)
            _show(axes, white, words, verdict == label)
    return figure
