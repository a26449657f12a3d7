"""What a batch is trained towards: labels alone, or labels and a teacher.

Shape suffixes: B images, C channels or classes, H rows, W columns.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from damcrack.math.losses import TemperatureScale, distillation_loss
from damcrack.math.schedules import reversal_weight
from damcrack.math.temperature import DynamicTemperature, TemperatureConfig, build_temperature


class StepTerms(NamedTuple):
    """Scalars of one step, and the student's logits; `soft` and `temperature` are NaN without a teacher."""

    total: Tensor
    hard: Tensor
    soft: Tensor
    temperature: Tensor
    logits_BC: Tensor


class Supervised(nn.Module):
    """Cross-entropy with the labels."""

    def forward(self, student: nn.Module, images_BCHW: Tensor, labels_B: Tensor, epoch: int) -> StepTerms:
        """One step's terms; all objectives are called alike."""
        logits_BC = student(images_BCHW).float()
        hard = F.cross_entropy(logits_BC, labels_B)
        absent = torch.full_like(hard, torch.nan)
        return StepTerms(hard, hard, absent, absent, logits_BC)

    def state_row(self, epoch: int) -> dict[str, float]:
        """What else to record of an epoch."""
        return {}


class Distillation(nn.Module):
    """The paper's loss (Algorithm 1): one backward pass trains the student and, reversed, the temperature.

    The teacher is no submodule: it is in evaluation mode, without gradient, and never checkpointed. The
    caller puts it on the device.
    """

    def __init__(
        self,
        teacher: nn.Module,
        temperature: TemperatureConfig,
        alpha: float,
        temperature_scale: TemperatureScale,
    ) -> None:
        super().__init__()
        self._teacher = (teacher.eval().requires_grad_(False),)
        self.temperature = build_temperature(temperature)
        self.ramp_epochs = temperature.ramp_epochs
        self.alpha = alpha
        self.temperature_scale = temperature_scale

    def forward(self, student: nn.Module, images_BCHW: Tensor, labels_B: Tensor, epoch: int) -> StepTerms:
        """One step's terms, with the temperature's gradient reversed as strongly as the epoch says."""
        with torch.no_grad():
            teacher_logits_BC = self._teacher[0](images_BCHW).float()
        logits_BC = student(images_BCHW).float()
        temperature = self.temperature(reversal_weight(epoch, self.ramp_epochs))
        terms = distillation_loss(
            logits_BC, teacher_logits_BC, labels_B, temperature, self.alpha, self.temperature_scale
        )
        return StepTerms(*terms, temperature.detach(), logits_BC)

    def state_row(self, epoch: int) -> dict[str, float]:
        """Theta and lambda after an epoch; nothing if the temperature is fixed."""
        if not isinstance(self.temperature, DynamicTemperature):
            return {}
        theta = float(self.temperature.theta.detach())
        return {"theta": theta, "reversal_weight": reversal_weight(epoch, self.ramp_epochs)}


Objective = Supervised | Distillation
