"""What several training processes have in common beside gradients: batch statistics, and one checkpoint.

Shape suffixes: B images of a batch, C channels, H rows, W columns.
"""

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from damcrack.engine.checkpoint import Checkpoint, Progress
from damcrack.engine.processes import rank, size, total


class _Sum(torch.autograd.Function):
    """Sum over all processes; a gradient is that of the sum of their losses."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor) -> Tensor:
        return total(numbers.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0].clone())


def _sum(numbers: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(numbers)
    return summed


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm with the statistics of the batches of all processes; torch has this for GPUs alone."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Normalise by the whole batch's mean and deviation while training, else by the running ones."""
        if not self.training:
            return super().forward(images_BCHW)
        x_BCHW = images_BCHW.float()
        here = torch.full((1,), x_BCHW.numel() / x_BCHW.shape[1], device=x_BCHW.device)
        summed = _sum(torch.cat([x_BCHW.sum(dim=(0, 2, 3)), here]))
        count = summed[-1].detach()
        mean_C = summed[:-1] / count
        centred_BCHW = x_BCHW - mean_C[:, None, None]
        variance_C = _sum(centred_BCHW.square().sum(dim=(0, 2, 3))) / count
        self._remember(mean_C.detach(), (variance_C * count / (count - 1)).detach())
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None], centred_BCHW, scale_C[:, None, None]).to(
            images_BCHW.dtype
        )

    def _remember(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.momentum is not None and self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C, self.momentum)


def share_batch_norms(network: nn.Module) -> None:
    """Let all batch norms of a network see whole batches, in place; weights and their names stay."""
    if size() == 1:
        return
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            network.set_submodule(name, _shared(layer))


def _shared(layer: nn.BatchNorm2d) -> nn.Module:
    kind = nn.SyncBatchNorm if layer.weight.is_cuda else SharedBatchNorm
    new = kind(layer.num_features, layer.eps, layer.momentum)
    new.weight, new.bias = layer.weight, layer.bias
    for name, value in layer.named_buffers():
        setattr(new, name, value)
    new.train(layer.training)
    return new


class SharedCheckpoint:
    """A checkpoint that the first process alone reads and writes; the others are told what it read."""

    def __init__(self, kept: Checkpoint) -> None:
        self._kept = kept

    def restore(self, parts: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> Progress:
        progress = self._kept.restore(parts, optimiser) if rank() == 0 else Progress()
        if size() == 1:
            return progress
        device = next(parts["network"].parameters()).device
        told = json.loads(_tell(json.dumps([progress.history, progress.best_epoch]).encode(), device))
        tensors = [tensor for part in parts.values() for tensor in part.state_dict().values()]
        if told[0]:
            network = parts["network"].state_dict()
            best = progress.best or {name: torch.empty_like(value) for name, value in network.items()}
            progress = Progress(told[0], best, told[1])
            tensors += _momentum(optimiser) + [best[name] for name in network]
        for tensor in tensors:
            _send(tensor, device)
        return progress

    def save(self, parts: dict[str, nn.Module], optimiser: torch.optim.Optimizer, progress: Progress) -> None:
        if rank() == 0:
            self._kept.save(parts, optimiser, progress)


def _momentum(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """All momentum buffers; one that is not there yet is made, of zeros, which is the same."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    return [
        optimiser.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight)) for weight in weights
    ]


def _tell(content: bytes, device: torch.device) -> bytes:
    """The first process's bytes, on every process."""
    length = torch.tensor([len(content)], device=device)
    dist.broadcast(length, 0)
    told = torch.zeros(int(length), dtype=torch.uint8, device=device)
    if rank() == 0:
        told.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    dist.broadcast(told, 0)
    return bytes(told.cpu().numpy())


def _send(tensor: Tensor, device: torch.device) -> None:
    """The first process's values, on every process."""
    values = tensor.detach().to(device).contiguous()
    dist.broadcast(values, 0)
    with torch.no_grad():
        tensor.copy_(values)
