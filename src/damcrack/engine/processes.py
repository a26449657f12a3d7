"""Several processes train one network, each on its share of every batch; all end each step with equal weights.

The global batches, their order and draws are those of one process. Batch norm takes its statistics over the
whole batch, losses are weighted by images, and all gradients (theta's too) are summed, so a step is the same
function of the same images up to the order of float additions. Alone, every function here does nothing.

Shape suffixes: B images of a batch.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from damcrack.errors import InputError


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun has started, if it has; each takes the GPU of its local rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        leave()


def leave() -> None:
    """Be alone from here on."""
    if dist.is_initialized():
        dist.destroy_process_group()


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(whole_B: Tensor) -> Tensor:
    """The part of a batch that is this process's; the parts differ by at most one image."""
    return whole_B if size() == 1 else torch.tensor_split(whole_B, size())[rank()]


def total(numbers: Tensor) -> Tensor:
    """Sum over all processes, the same on each."""
    if size() > 1:
        dist.all_reduce(numbers)
    return numbers


def average_gradients(weights: Iterable[Tensor], num_images: int) -> None:
    """Turn gradients of losses that were weighted by images into that of the mean loss of the whole batch."""
    if size() == 1:
        return
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    count = torch.full((1,), float(num_images), device=gradients[0].device)
    summed = total(torch.cat([*(gradient.flatten() for gradient in gradients), count]))
    means = torch.split(summed[:-1] / summed[-1], [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view(gradient.shape))


def check_shares(num_train: int, batch_size: int) -> None:
    """Refuse batches of which a process would get nothing.

    Raises:
        InputError: the smallest batch has fewer images than there are processes.
    """
    smallest = num_train // -(-num_train // batch_size)
    if smallest < size():
        raise InputError(
            f"{size()} processes cannot share batches of {smallest} images; "
            "set DAMCRACK_PROCESSES to fewer, or raise batch_size"
        )


def has_dropout(network: nn.Module) -> bool:
    """Tell whether chance acts inside the network, whose draws go by batch and so by process."""
    return any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in network.modules())
