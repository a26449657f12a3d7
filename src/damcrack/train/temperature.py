"""Distillation temperature: fixed, or learned against the student behind a gradient-reversal layer.

Sources: Zhang & Bao 2023 (Water 15, 2839), section 2.2 and Algorithm 1; the method behind it is curriculum
temperature (Li et al., AAAI 2023); gradient reversal is Ganin & Lempitsky 2015.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from damcrack.train.schedules import Ramp


@dataclass(frozen=True)
class TemperatureConfig:
    """How the temperature behaves: kind `fixed` uses `value`; `dynamic` uses the fields from t_min to ramp.

    In the `epochs_at_one` last epochs either is 1 (paper, section 2.1: the student's last phase).
    """

    kind: Literal["fixed", "dynamic"]
    value: float = 4.0
    t_min: float = 3.0
    t_max: float = 5.0
    theta_start: float = 0.0
    ramp_epochs: int = 10
    ramp: Ramp = "cosine"
    epochs_at_one: int = 0

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise ValueError(f"value: {self.value}; a temperature is greater than 0")
        if not 0 < self.t_min < self.t_max:
            raise ValueError(f"t_min, t_max: {self.t_min}, {self.t_max}; expected 0 < t_min < t_max")
        if self.ramp_epochs < 1:
            raise ValueError(f"ramp_epochs: {self.ramp_epochs}; expected at least 1")
        if self.epochs_at_one < 0:
            raise ValueError(f"epochs_at_one: {self.epochs_at_one}; expected 0 or more")


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
