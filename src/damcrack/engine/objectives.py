"""What a batch is trained towards: labels alone, or labels and a teacher.

Shape suffixes: B images, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from damcrack.engine.batches import Batch
from damcrack.engine.frozen import Frozen
from damcrack.math.losses import SoftLoss, TemperatureScale, distillation_loss
from damcrack.math.schedules import reversal_weight
from damcrack.math.temperature import DynamicTemperature, TemperatureConfig, build_temperature

Forward = Callable[[Tensor], Tensor]


class StepTerms(NamedTuple):
    """Scalars of one step, and the student's logits; `soft` and `temperature` are NaN without a teacher."""

    total: Tensor
    hard: Tensor
    soft: Tensor
    temperature: Tensor
    logits_BC: Tensor


@dataclass(frozen=True)
class Teaching:
    """How a teacher teaches: weight and kind of the soft loss, and the temperature."""

    alpha: float
    soft_loss: SoftLoss
    temperature_scale: TemperatureScale
    temperature: TemperatureConfig

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: {self.alpha}; expected 0 to 1")


class Supervised(nn.Module):
    """Cross-entropy with the labels, of logits divided by `temperature`.

    A later teacher may be trained at the temperature at which it teaches (paper, section 2.1); 1 is plain.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Forward, batch: Batch, epoch: int) -> StepTerms:
        """One step's terms; all objectives are called alike."""
        logits_BC = student(batch.inputs).float()
        hard = F.cross_entropy(logits_BC / self.temperature, batch.labels_B)
        absent = torch.full_like(hard, torch.nan)
        return StepTerms(hard, hard, absent, absent, logits_BC)

    def state_row(self, epoch: int) -> dict[str, float]:
        """What else to record of an epoch."""
        return {}


class Distillation(nn.Module):
    """The paper's loss (Algorithm 1): one backward pass trains the student and, reversed, the temperature.

    The teacher is no submodule, so it is never checkpointed; it is not run on batches that bring its answer.
    """

    def __init__(self, teacher: Frozen, teaching: Teaching, epochs: int) -> None:
        super().__init__()
        self.teacher = teacher
        self.teaching = teaching
        self.temperature = build_temperature(teaching.temperature)
        self.epochs = epochs

    def forward(self, student: Forward, batch: Batch, epoch: int) -> StepTerms:
        """One step's terms, with the temperature's gradient reversed as strongly as the epoch says."""
        teacher_logits_BC = batch.teacher_logits_BC
        if teacher_logits_BC is None:
            teacher_logits_BC = self.teacher(batch.inputs)
        logits_BC = student(batch.inputs).float()
        how, temperature = self.teaching, self._temperature(epoch)
        terms = distillation_loss(
            logits_BC,
            teacher_logits_BC,
            batch.labels_B,
            temperature,
            how.alpha,
            how.temperature_scale,
            how.soft_loss,
        )
        return StepTerms(*terms, temperature.detach(), logits_BC)

    def _temperature(self, epoch: int) -> Tensor:
        temperature: Tensor = self.temperature(self._reversal_weight(epoch))
        if epoch > self.epochs - self.teaching.temperature.epochs_at_one:
            return torch.ones_like(temperature)
        return temperature

    def _reversal_weight(self, epoch: int) -> float:
        how = self.teaching.temperature
        return reversal_weight(epoch, how.ramp_epochs, how.ramp)

    def state_row(self, epoch: int) -> dict[str, float]:
        """Theta and lambda after an epoch; nothing if the temperature is fixed."""
        if not isinstance(self.temperature, DynamicTemperature):
            return {}
        theta = float(self.temperature.theta.detach())
        return {"theta": theta, "reversal_weight": self._reversal_weight(epoch)}


Objective = Supervised | Distillation
