"""The training loop: one page for pretraining, distillation and fine-tuning.

An epoch is a pure function of the state at its start and of (seed, epoch), so a run resumed from a checkpoint
ends where an uninterrupted one does. Losses stay on the device until the epoch is over.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from damcrack.engine.augment import Augmentation, Flips
from damcrack.engine.batches import DeviceImages
from damcrack.engine.checkpoint import Checkpoint
from damcrack.engine.networks import set_training_mode
from damcrack.engine.objectives import Objective
from damcrack.engine.weights import snapshot_of
from damcrack.errors import NonFiniteLossError
from damcrack.math.schedules import learning_rate

Precision = Literal["auto", "float32", "bfloat16"]
EpochLog = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class TrainingConfig:
    """Fields that every training stage has in its section of params.yaml."""

    epochs: int
    warmup_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    flips: Flips
    rotate_deg: float
    shift_px: float
    precision: Precision
    seed: int

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(
                f"epochs, warmup_epochs: {self.epochs}, {self.warmup_epochs}; expected 0 <= warm-up <= epochs"
            )
        if self.batch_size < 2:
            raise ValueError(f"batch_size: {self.batch_size}; batch norm needs at least 2")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate: {self.learning_rate}; expected more than 0")

    @property
    def augmentation(self) -> Augmentation:
        """The three augmentation fields as one."""
        return Augmentation(self.flips, self.rotate_deg, self.shift_px)


@dataclass(frozen=True)
class Trained:
    """Weights of the best epoch (highest validation accuracy, then lowest loss) and of the last; history."""

    best: dict[str, Tensor]
    last: dict[str, Tensor]
    best_epoch: int
    history: list[dict[str, float]]


def best_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def uses_bfloat16(precision: Precision) -> bool:
    """Whether the forward passes run in bfloat16: on request, or with `auto` where the hardware has it."""
    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return _cpu_has_bfloat16()


def _cpu_has_bfloat16() -> bool:
    # Without these instructions mkldnn emulates bfloat16, slower than float32.
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def train(
    network: nn.Module,
    objective: Objective,
    images: DeviceImages,
    config: TrainingConfig,
    checkpoint: Checkpoint,
    log: EpochLog,
) -> Trained:
    """Train `network` and the objective's temperature in place; call `log` with each epoch's history row.

    Network, objective and `images` are on the same device.

    Raises:
        NonFiniteLossError: the loss stopped being a number.
    """
    parts = {"network": network, "objective": objective}
    optimiser = _optimiser(network, objective, config)
    progress = checkpoint.restore(parts, optimiser)
    for epoch in range(progress.epoch + 1, config.epochs + 1):
        row: dict[str, float] = {"epoch": epoch}
        row |= _train_epoch(network, objective, optimiser, images, config, epoch)
        row |= validate(network, images, config)
        progress.add(row, network)
        log(row)
        if epoch < config.epochs:
            checkpoint.save(parts, optimiser, progress)
    return Trained(progress.best, snapshot_of(network), progress.best_epoch, progress.history)


def _train_epoch(
    network: nn.Module,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    images: DeviceImages,
    config: TrainingConfig,
    epoch: int,
) -> dict[str, float]:
    seed = config.seed * 100_003 + epoch
    torch.manual_seed(seed)  # for dropout, where a network has it
    set_training_mode(network)
    num_steps, steps, rate = images.num_batches("train", config.batch_size), [], 0.0
    for batch, (images_BCHW, labels_B) in enumerate(
        images.shuffled(config.batch_size, config.augmentation, seed)
    ):
        step = (epoch - 1) * num_steps + batch
        rate = learning_rate(step, num_steps, config.epochs, config.warmup_epochs, config.learning_rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with autocast(images_BCHW.device, config.precision):
            terms = objective(network, images_BCHW, labels_B, epoch)
        optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        optimiser.step()
        correct = (terms.logits_BC.argmax(1) == labels_B).float().mean()
        steps.append(torch.stack([*terms[:4], correct]).detach())
    return _epoch_row(torch.stack(steps).cpu(), epoch, rate) | objective.state_row(epoch)


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
def validate(network: nn.Module, images: DeviceImages, config: TrainingConfig) -> dict[str, float]:
    """Mean cross-entropy and accuracy over the validation split, in evaluation mode."""
    network.eval()
    losses, hits, count = [], [], 0
    for images_BCHW, labels_B in images.in_order("val", config.batch_size):
        with autocast(images_BCHW.device, config.precision):
            logits_BC = network(images_BCHW).float()
        losses.append(F.cross_entropy(logits_BC, labels_B, reduction="sum"))
        hits.append((logits_BC.argmax(1) == labels_B).sum())
        count += len(labels_B)
    loss, accuracy = float(torch.stack(losses).sum()) / count, int(torch.stack(hits).sum()) / count
    return {"val_loss": loss, "val_accuracy": accuracy}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Bfloat16 forward passes if `precision` says so; the losses are computed in float32 anyway."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bfloat16(precision))


def _optimiser(network: nn.Module, objective: Objective, config: TrainingConfig) -> torch.optim.SGD:
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [{"params": weights, "weight_decay": config.weight_decay}]
    if learned := list(objective.parameters()):  # theta: no decay, which would pull T to the middle
        groups.append({"params": learned, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
