"""Learning rate and reversal weight at informative points."""

import math

import pytest

from damcrack.train.config import Ramp
from damcrack.train.objectives import reversal_weight
from damcrack.train.training import learning_rate


def test_learning_rate_at_informative_points() -> None:
    """Ten steps an epoch, five epochs, one of warm-up: first, last warm-up, peak, middle, last step."""
    rates = [learning_rate(step, 10, 5, 1, 0.1) for step in range(50)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[9] == rates[10] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0.05)
    assert rates[49] == pytest.approx(0.1 * (1 + math.cos(math.pi * 39 / 40)) / 2)
    assert all(rate > 0 for rate in rates)


def test_learning_rate_falls_after_warm_up() -> None:
    """Every step after the warm-up is at most as large as the one before."""
    rates = [learning_rate(step, 7, 4, 1, 1.0) for step in range(28)]
    assert rates[7:] == sorted(rates[7:], reverse=True)


def test_no_warm_up_starts_at_the_peak() -> None:
    """With no warm-up epoch the first step has the peak rate."""
    assert learning_rate(0, 10, 5, 0, 0.1) == pytest.approx(0.1)


def test_reversal_weight_rises_from_near_zero_to_one() -> None:
    """Half a cosine over the ramp, then one: values listed for a ramp of four epochs."""
    weights = [reversal_weight(epoch, 4) for epoch in range(1, 7)]
    assert weights == pytest.approx([0.1464466, 0.5, 0.8535534, 1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("ramp", "weights"),
    [("linear", [0.25, 0.5, 0.75, 1.0, 1.0]), ("constant", [1.0, 1.0, 1.0, 1.0, 1.0])],
)
def test_other_ramps(ramp: Ramp, weights: list[float]) -> None:
    """Values listed for a ramp of four epochs."""
    assert [reversal_weight(epoch, 4, ramp) for epoch in range(1, 6)] == weights
