"""The temperature that is learned against the student."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from damcrack.train.config import TemperatureConfig
from damcrack.train.losses import soft_divergence, weigh
from damcrack.train.objectives import ReverseGradient, Temperature

STUDENT = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.4, -2.0]], dtype=torch.float64)
TEACHER = torch.tensor([[3.0, 1.0, -0.5], [-1.0, 2.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


def dynamic(t_min: float = 3.0, t_max: float = 5.0, theta: float = 0.0) -> Temperature:
    return Temperature(TemperatureConfig("dynamic", t_min=t_min, t_max=t_max, theta_start=theta))


def loss_of(student: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    hard = torch.nn.functional.cross_entropy(student, LABELS)
    return weigh(hard, soft_divergence(student, TEACHER, temperature), temperature, 0.6, "inside")


def loss_at(theta: torch.Tensor) -> torch.Tensor:
    temperature = 3 + 2 * torch.sigmoid(theta)
    return loss_of(STUDENT, temperature)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_theta_receives_the_reversed_gradient_of_scheduled_size(weight: float) -> None:
    """The gradient at theta is minus lambda times the true slope of the loss, by finite differences."""
    temperature = dynamic(theta=0.3).double()
    loss_of(STUDENT, temperature(weight)).backward()
    step = 1e-6
    theta = temperature.theta.detach()
    slope = (loss_at(theta + step) - loss_at(theta - step)) / (2 * step)
    assert temperature.theta.grad is not None
    assert slope.item() != 0
    assert temperature.theta.grad.item() == pytest.approx(-weight * slope.item(), rel=1e-6, abs=1e-12)


def test_reversal_is_the_identity_forward() -> None:
    """Values pass the reversal layer unchanged."""
    x = torch.tensor([1.5, -2.0])
    assert torch.equal(ReverseGradient.apply(x, 0.7), x)


def test_one_backward_pass_moves_student_down_and_temperature_up() -> None:
    """One simultaneous step lowers the loss by the student's part and raises it by theta's part."""
    student = STUDENT.clone().requires_grad_()
    temperature = dynamic().double()
    before = loss_of(student, temperature(1.0))
    before.backward()
    assert student.grad is not None and temperature.theta.grad is not None
    moved_student = (student - 0.01 * student.grad).detach()
    moved_theta = (temperature.theta - 0.01 * temperature.theta.grad).detach()
    by_student = loss_of(moved_student, temperature(1.0))
    assert by_student < before
    assert loss_at(moved_theta) > before


@given(theta=st.floats(-1e3, 1e3), t_min=st.floats(0.5, 5), width=st.floats(0.5, 10))
def test_temperature_stays_in_its_interval(theta: float, t_min: float, width: float) -> None:
    """Whatever theta becomes, T is between t_min and t_max."""
    value = dynamic(t_min, t_min + width, theta)(1.0).item()
    assert t_min - 1e-5 <= value <= t_min + width + 1e-5


def test_default_start_is_the_middle() -> None:
    """Theta starts at 0: T = 4 for [3, 5]."""
    assert Temperature(TemperatureConfig("dynamic"))(0.0).item() == 4.0


def test_fixed_temperature_has_nothing_to_learn() -> None:
    """A fixed temperature has its value and no parameter."""
    fixed = Temperature(TemperatureConfig("fixed", value=2.5))
    assert fixed(1.0).item() == 2.5
    assert not list(fixed.parameters())


@pytest.mark.parametrize(
    "wrong", [{"value": 0.0}, {"t_min": 5.0, "t_max": 3.0}, {"t_min": -1.0}, {"ramp_epochs": 0}]
)
def test_impossible_temperatures_are_refused(wrong: dict[str, float]) -> None:
    """The config names the field that cannot be."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TemperatureConfig("dynamic", **wrong)  # type: ignore[arg-type]
    assert not math.isnan(TemperatureConfig("dynamic").value)
