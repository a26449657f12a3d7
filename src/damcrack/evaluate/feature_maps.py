"""What the first stages of a network make of a tile (paper, table 3).

Shape suffixes: N tiles, H and W pixels, C channels of a stage, K the strongest of them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from damcrack.train.classifier import TileClassifier
from damcrack.train.weights import load_model

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

Pixels = npt.NDArray[np.uint8]


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
