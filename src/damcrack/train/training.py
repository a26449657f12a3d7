"""The training loop: one page for pretraining, distillation and fine-tuning.

An epoch is a pure function of the state at its start and of (seed, epoch), so a run resumed from a checkpoint
ends where an uninterrupted one does. Losses stay on the device until the epoch is over.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from damcrack.data.targets import CLEAN, CRACK
from damcrack.files import NonFiniteLossError
from damcrack.train.batches import DeviceImages
from damcrack.train.checkpoint import Checkpoint, Progress
from damcrack.train.config import Precision, TrainingConfig
from damcrack.train.hardware import uses_bfloat16
from damcrack.train.networks import Forward, answer, forward_of, set_training_mode
from damcrack.train.objectives import Objective
from damcrack.train.weights import snapshot_of


@dataclass(frozen=True)
class Trained:
    """Weights of the best epoch (see damcrack.train.checkpoint) and of the last; history."""

    best: dict[str, Tensor]
    last: dict[str, Tensor]
    best_epoch: int
    history: list[dict[str, float]]


def train(
    network: nn.Module,
    objective: Objective,
    images: DeviceImages,
    config: TrainingConfig,
    checkpoint: Checkpoint | None,
    log: Callable[[dict[str, float]], None],
    forward: Forward | None = None,
) -> Trained:
    """Train `network` and the objective's temperature in place; call `log` with each epoch's history row.

    Network, objective and `images` are on the same device. `forward` is what a batch goes through, if not the
    network as it is: its compiled form.

    Raises:
        NonFiniteLossError: the loss stopped being a number.
    """
    forward = forward_of(network) if forward is None else forward
    parts = {"network": network, "objective": objective}
    optimiser = new_optimiser(network, objective, config)
    progress = checkpoint.restore(parts, optimiser) if checkpoint else Progress()
    for epoch in range(progress.epoch + 1, config.epochs + 1):
        row: dict[str, float] = {"epoch": epoch}
        set_training_mode(network)
        row |= _train_epoch(forward, objective, optimiser, images, config, epoch)
        network.eval()
        row |= validate(forward, images, config)
        progress.add(row, network)
        log(row)
        if checkpoint and epoch < config.epochs:
            checkpoint.save(parts, optimiser, progress)
    return Trained(progress.best, snapshot_of(network), progress.best_epoch, progress.history)


def _train_epoch(
    forward: Forward,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    images: DeviceImages,
    config: TrainingConfig,
    epoch: int,
) -> dict[str, float]:
    torch.manual_seed(config.seed * 100_003 + epoch)  # for dropout, where a network has it
    num_steps, rate = images.num_batches("train", config.batch_size), 0.0
    steps = []
    for number, batch in enumerate(images.shuffled(config.batch_size, config.seed, epoch)):
        step = (epoch - 1) * num_steps + number
        rate = learning_rate(step, num_steps, config.epochs, config.warmup_epochs, config.learning_rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with autocast(batch.labels_B.device, config.precision):
            terms = objective(forward, batch, epoch)
        terms.total.backward()
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], config.clip_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        correct = _share(terms.logits_BC.argmax(1) == batch.labels_B, batch.labels_B >= 0)
        steps.append(torch.stack([*terms[:4], correct]).detach())
    return _epoch_row(torch.stack(steps).cpu(), epoch, rate) | objective.state_row(epoch)


def learning_rate(step: int, steps_per_epoch: int, epochs: int, warmup_epochs: int, peak: float) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up to `peak`, then a cosine towards 0.

    Source: paper, section 3.1 (one warm-up epoch, cosine annealing; Loshchilov & Hutter 2017). The last step
    still moves: the cosine would reach 0 one step after it.
    """
    warmup_steps = warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    annealing_steps = max(1, epochs * steps_per_epoch - warmup_steps)
    return peak * (1 + math.cos(math.pi * (step - warmup_steps) / annealing_steps)) / 2


def _epoch_row(steps_S5: Tensor, epoch: int, rate: float) -> dict[str, float]:
    finite_S = steps_S5[:, 0].isfinite()
    if not finite_S.all():
        step = int((~finite_S).nonzero()[0]) + 1
        raise NonFiniteLossError(
            f"the loss was {steps_S5[step - 1, 0]} in epoch {epoch}, step {step} (learning rate {rate:.3g}); "
            "lower learning_rate, lengthen warmup_epochs, or set precision to float32"
        )
    total, hard, soft, temperature, accuracy = steps_S5.double().mean(dim=0).tolist()
    row = {"learning_rate": rate, "train_loss": total, "train_accuracy": accuracy, "hard_loss": hard}
    if not math.isnan(soft):
        row |= {"soft_loss": soft, "temperature": temperature}
    return row


@torch.no_grad()
def validate(forward: Forward, images: DeviceImages, config: TrainingConfig) -> dict[str, float]:
    """Mean cross-entropy and accuracy over the validation split; the caller sets evaluation mode.

    Of a network with a pixel head F1 of the known pixels too, at probability 0.5, if any is known to be crack.
    """
    losses, hits, pixels, count = [], [], [], 0
    for batch in images.in_order("val", config.batch_size):
        count += len(batch.labels_B)
        with autocast(batch.labels_B.device, config.precision):
            said = answer(forward, batch.inputs)
        losses.append(F.cross_entropy(said.tile_BC, batch.labels_B, reduction="sum"))
        hits.append((said.tile_BC.argmax(1) == batch.labels_B).sum())
        if said.pixel_BHW is not None and batch.targets_BHW is not None:
            pixels.append(_pixel_counts(said.pixel_BHW > 0, batch.targets_BHW))
    loss, num_hits = torch.stack(losses).sum(), torch.stack(hits).sum()
    row = {"val_loss": float(loss) / count, "val_accuracy": int(num_hits) / count}
    if pixels:
        right, found, there = torch.stack(pixels).sum(0).tolist()
        if there:
            row["val_pixel_f1"] = 2 * right / (found + there)
    return row


def _pixel_counts(found_BHW: Tensor, targets_BHW: Tensor) -> Tensor:
    """Pixels (3,) that are crack and found, found, and crack, among those that are known."""
    crack_BHW, known_BHW = targets_BHW == CRACK, (targets_BHW == CRACK) | (targets_BHW == CLEAN)
    found_BHW = found_BHW & known_BHW
    return torch.stack([(found_BHW & crack_BHW).sum(), found_BHW.sum(), crack_BHW.sum()])


def _share(which_B: Tensor, of_B: Tensor) -> Tensor:
    return (which_B & of_B).float().sum() / of_B.sum().clamp(min=1)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Bfloat16 forward passes if `precision` says so; the losses are computed in float32 anyway."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bfloat16(precision))


def new_optimiser(network: nn.Module, objective: Objective, config: TrainingConfig) -> torch.optim.Optimizer:
    """Fused SGD with momentum, or AdamW, over what trains; theta is not decayed: that pulls T to the middle."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [{"params": weights, "weight_decay": config.weight_decay}]
    if learned := list(objective.parameters()):
        groups.append({"params": learned, "weight_decay": 0.0})
    if config.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)
