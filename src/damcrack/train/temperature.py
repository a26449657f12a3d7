"""Distillation temperature: fixed, or learned against the student behind a gradient-reversal layer.

Sources: Zhang & Bao 2023 (Water 15, 2839), section 2.2 and Algorithm 1; the method behind it is curriculum
temperature (Li et al., AAAI 2023); gradient reversal is Ganin & Lempitsky 2015.
"""

from typing import Any

import torch
from torch import Tensor, nn

from damcrack.train.config import TemperatureConfig


class ReverseGradient(torch.autograd.Function):
    """Identity forward; multiplies the gradient by minus `weight` backward (Ganin & Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


class FixedTemperature(nn.Module):
    """The same temperature always."""

    value: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(value, dtype=torch.float32))

    def forward(self, reversal_weight: float) -> Tensor:
        return self.value


class DynamicTemperature(nn.Module):
    """T = t_min + (t_max - t_min) * sigmoid(theta), one theta for all samples, behind a reversal layer.

    Minimising the loss moves the student down it and theta, with `reversal_weight` as its strength, up it:
    one simultaneous backward pass plays the min-max game (paper, Algorithm 1).
    """

    def __init__(self, t_min: float, t_max: float, theta_start: float = 0.0) -> None:
        super().__init__()
        self.t_min, self.t_max = t_min, t_max
        self.theta = nn.Parameter(torch.tensor(theta_start, dtype=torch.float32))

    def forward(self, reversal_weight: float) -> Tensor:
        theta: Tensor = ReverseGradient.apply(self.theta, reversal_weight)
        return self.t_min + (self.t_max - self.t_min) * torch.sigmoid(theta)


def build_temperature(config: TemperatureConfig) -> FixedTemperature | DynamicTemperature:
    """Make the temperature that the config describes."""
    if config.kind == "fixed":
        return FixedTemperature(config.value)
    return DynamicTemperature(config.t_min, config.t_max, config.theta_start)
