"""The simulation behind the table of docs/promotion.md."""

import pytest

from damcrack.registry.config import RegisterConfig
from experiments import promotion

pytestmark = pytest.mark.slow


def test_the_gate_is_stricter_than_a_higher_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model six points better is nearly always higher and mostly promoted, one six points worse never."""
    monkeypatch.setattr(promotion, "CASES", ((20, 6.0, 0.10), (20, -6.0, 0.10)))
    lines = promotion.simulated(20, RegisterConfig()).splitlines()[2:]
    better, worse = ([float(cell.strip("| %")) for cell in line.split(" | ")[3:]] for line in lines)
    gate, higher, _ = better
    assert 50 <= gate <= higher and higher >= 95
    assert worse[0] == 0 and worse[1] <= 5
