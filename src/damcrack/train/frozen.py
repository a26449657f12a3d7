"""Networks that no longer learn: teachers, run as fast as they go, and their stored answers.

Shape suffixes: N training images, B images of a batch, V views, C classes, H rows, W columns.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from damcrack.files import InputError, one_at_a_time, sha256_bytes
from damcrack.train.batches import DeviceImages
from damcrack.train.hardware import compiled
from damcrack.train.networks import Forward, answer, forward_of
from damcrack.train.pixels import PixelNetwork
from damcrack.train.weights import load_tensors, save_tensors

BATCH_SIZE = 64


class Frozen:
    """A network in evaluation mode, without gradient, that answers in float32.

    With `bfloat16` it is a copy with bfloat16 weights and, but for a network with a pixel head, folded batch norms
    (Jacob et al. 2018); without, the network itself, to the bit. `compile` changes the way it is run.
    """

    def __init__(self, network: nn.Module, bfloat16: bool) -> None:
        network.eval().requires_grad_(False)
        self._dtype = torch.bfloat16 if bfloat16 else torch.float32
        if bfloat16:  # torch.fx, which `fuse` is built on, follows the plain networks only
            network = deepcopy(network) if isinstance(network, PixelNetwork) else fuse(network)
        self._network = network.to(self._dtype)
        self._network.to(memory_format=torch.channels_last)
        self._forward: Forward = forward_of(self._network)

    def compile(self, device: torch.device) -> None:
        """Run in compiled form from now on."""
        self._forward = compiled(forward_of(self._network), device)

    def __call__(self, images_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Answer (B, C) to a batch, and the pixels' (B, H, W) of a pixel head; it may enter a loss."""
        with torch.no_grad(), torch.autocast(images_BCHW.device.type, enabled=False):
            said = self._forward(images_BCHW.to(self._dtype))
        # Copied: a CUDA graph writes its next answer in the same place.
        if isinstance(said, Tensor):
            return said.to(torch.float32, copy=True)
        return said[0].to(torch.float32, copy=True), said[1].to(torch.float32, copy=True)


def answers(network: Frozen, images: DeviceImages) -> Tensor:
    """What `network` says of every fixed view of every training image: float32 (V, N, C) on the device."""
    assert images.views is not None
    views = [
        torch.cat([answer(network, batch.inputs).tile_BC for batch in images.view(number, BATCH_SIZE)])
        for number in range(images.views)
    ]
    return torch.stack(views)


def soft_target_table(
    teacher: Frozen, images: DeviceImages, inputs: Mapping[str, object], cache: Path
) -> Tensor:
    """The teacher's logits (V, N, C) for every fixed view, from an earlier call with equal `inputs` if there was one.

    `inputs` name all that the logits are a function of; the table is CACHE/HASH.safetensors. Of several
    processes one asks the teacher, the others wait.
    """
    name = sha256_bytes(json.dumps(inputs, sort_keys=True).encode())[:32]
    path = cache / f"{name}.safetensors"
    with one_at_a_time(path):
        try:
            return load_tensors(path)["logits"].to(images.device)
        except (InputError, KeyError):  # none yet, or damaged
            logits = answers(teacher, images)
        save_tensors(path, {"logits": logits})
    return logits
