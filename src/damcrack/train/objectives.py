"""What a batch is trained towards: labels alone, or labels and a teacher at a fixed or learned temperature.

Sources: Zhang & Bao 2023 (Water 15, 2839), section 2.2 and Algorithm 1; the method behind it is curriculum
temperature (Li et al., AAAI 2023); gradient reversal is Ganin & Lempitsky 2015.

Shape suffixes: B images, C classes, H rows, W columns.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from damcrack.train.batches import Batch
from damcrack.train.config import Ramp, SoftLoss, TaughtConfig, TemperatureConfig
from damcrack.train.frozen import Frozen
from damcrack.train.losses import PIXEL_WEIGHT, SOFT_LOSSES, TILE_WEIGHT, pixel_divergence, pixel_loss, weigh
from damcrack.train.networks import Answer, Forward, answer


class ReverseGradient(torch.autograd.Function):
    """Identity forward; multiplies the gradient by minus `weight` backward (Ganin & Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


class Temperature(nn.Module):
    """Kind `fixed`: always `value`. Kind `dynamic`: t_min + (t_max - t_min) * sigmoid(theta), one for all samples.

    Theta is behind a reversal layer. Minimising the loss moves the student down it and theta, with `reversal_weight` as
    its strength, up it: one simultaneous backward pass plays the min-max game (paper, Algorithm 1).
    """

    value: Tensor
    theta: nn.Parameter | None

    def __init__(self, config: TemperatureConfig) -> None:
        super().__init__()
        self.config, dynamic = config, config.kind == "dynamic"
        self.register_buffer("value", torch.tensor(config.value, dtype=torch.float32))
        theta = torch.tensor(config.theta_start, dtype=torch.float32)
        self.register_parameter("theta", nn.Parameter(theta) if dynamic else None)

    def forward(self, reversal_weight: float) -> Tensor:
        if self.theta is None:
            return self.value
        theta: Tensor = ReverseGradient.apply(self.theta, reversal_weight)
        return self.config.t_min + (self.config.t_max - self.config.t_min) * torch.sigmoid(theta)


def reversal_weight(epoch: int, ramp_epochs: int, ramp: Ramp = "cosine") -> float:
    """Weight lambda of the reversed gradient in epoch `epoch` (from 1), 1 from epoch `ramp_epochs` on.

    "cosine" rises along half a cosine, (1 - cos(pi * min(i, L) / L)) / 2 with i counted from 1 (curriculum
    temperature, Li et al. 2023); "linear" is min(i, L) / L; "constant" is 1 from the first epoch.
    """
    share = min(epoch, ramp_epochs) / ramp_epochs
    return {"cosine": (1 - math.cos(math.pi * share)) / 2, "linear": share, "constant": 1.0}[ramp]


class StepTerms(NamedTuple):
    """Scalars of one step, and the student's logits; `soft` and `temperature` are NaN without a teacher."""

    total: Tensor
    hard: Tensor
    soft: Tensor
    temperature: Tensor
    logits_BC: Tensor


class Supervised(nn.Module):
    """Cross-entropy with the labels, of logits divided by `temperature`.

    A later teacher may be trained at the temperature at which it teaches (paper, section 2.1); 1 is plain.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Forward, batch: Batch, epoch: int) -> StepTerms:
        """One step's terms; all objectives are called alike."""
        said = answer(student, batch.inputs)
        hard = _hard(said, batch, self.temperature)
        absent = torch.full_like(hard, torch.nan)
        return StepTerms(hard, hard, absent, absent, said.tile_BC)

    def state_row(self, epoch: int) -> dict[str, float]:
        """What else to record of an epoch."""
        return {}


class Distillation(nn.Module):
    """The paper's loss (Algorithm 1): one backward pass trains the student and, reversed, the temperature.

    The teacher is no submodule, so it is never checkpointed; it is not run on batches that bring its answer.
    """

    def __init__(self, teacher: Frozen, config: TaughtConfig) -> None:
        super().__init__()
        self.teacher, self.config = teacher, config
        self.temperature = Temperature(config.temperature)

    def forward(self, student: Forward, batch: Batch, epoch: int) -> StepTerms:
        """One step's terms, with the temperature's gradient reversed as strongly as the epoch says."""
        stored = batch.teacher_logits_BC
        taught = answer(self.teacher, batch.inputs) if stored is None else Answer(stored)
        said = answer(student, batch.inputs)
        how, temperature = self.config, self._temperature(epoch)
        soft, hard = _soft(said, taught, temperature, how.soft_loss), _hard(said, batch)
        total = weigh(hard, soft, temperature, how.alpha, how.temperature_scale)
        return StepTerms(total, hard, soft, temperature.detach(), said.tile_BC)

    def _temperature(self, epoch: int) -> Tensor:
        temperature: Tensor = self.temperature(self._reversal_weight(epoch))
        if epoch > self.config.epochs - self.config.temperature.epochs_at_one:
            return torch.ones_like(temperature)
        return temperature

    def _reversal_weight(self, epoch: int) -> float:
        how = self.config.temperature
        return reversal_weight(epoch, how.ramp_epochs, how.ramp)

    def state_row(self, epoch: int) -> dict[str, float]:
        """Theta and lambda after an epoch; nothing if the temperature is fixed."""
        if self.temperature.theta is None:
            return {}
        theta = float(self.temperature.theta.detach())
        return {"theta": theta, "reversal_weight": self._reversal_weight(epoch)}


def _hard(said: Answer, batch: Batch, temperature: float = 1.0) -> Tensor:
    """What the labels teach: cross-entropy of tiles, and what is known of their pixels; -1 teaches nothing."""
    of_tiles = F.cross_entropy(said.tile_BC / temperature, batch.labels_B, ignore_index=-1)
    if said.pixel_BHW is None:
        return of_tiles
    assert batch.targets_BHW is not None
    return TILE_WEIGHT * of_tiles + pixel_loss(said.pixel_BHW, batch.targets_BHW)


def _soft(said: Answer, taught: Answer, temperature: Tensor, soft_loss: SoftLoss) -> Tensor:
    """What the teacher teaches at T, not yet times T^2: of tiles, and of pixels where both have a pixel head."""
    of_tiles = SOFT_LOSSES[soft_loss](said.tile_BC, taught.tile_BC, temperature)
    if said.pixel_BHW is None or taught.pixel_BHW is None:
        return of_tiles
    of_pixels = pixel_divergence(said.pixel_BHW, taught.pixel_BHW, temperature, soft_loss)
    return TILE_WEIGHT * of_tiles + PIXEL_WEIGHT * of_pixels


Objective = Supervised | Distillation
