"""The mean of detectors: its weights, and where a pixel is called crack."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from damcrack.data.targets import CLEAN, CRACK, UNKNOWN
from damcrack.files import InputError
from experiments.detector.mean import best_cut, mean_of


def test_the_mean_is_halfway_and_counters_are_the_first_ones() -> None:
    """Half precision is no loss: means are taken in single precision."""
    one = {"weight": torch.tensor([1.0, 3.0]), "batches": torch.tensor(5)}
    other = {"weight": torch.tensor([2.0, -1.0]).half(), "batches": torch.tensor(9)}
    found = mean_of([one, other])
    assert found["weight"].tolist() == [1.5, 1.0] and found["weight"].dtype == torch.float32
    assert found["batches"] == 5


def test_different_networks_have_no_mean() -> None:
    """Tensors of other shapes are refused."""
    with pytest.raises(InputError, match="different networks"):
        mean_of([{"weight": torch.zeros(2)}, {"weight": torch.zeros(3)}])


def test_the_cut_is_where_f1_of_the_known_pixels_is_highest() -> None:
    """Cracks lie above 1.5, all but a few clean pixels below; what is unknown does not count."""
    logits = torch.tensor([[[-3.0, -1.0, 0.5, 1.4], [1.6, 2.0, 3.0, 4.0]]])
    targets = torch.tensor(
        [[[CLEAN, CLEAN, CLEAN, CLEAN], [CRACK, CRACK, CRACK, UNKNOWN]]], dtype=torch.uint8
    )
    batch = SimpleNamespace(inputs=logits, targets_BHW=targets)
    network: Any = SimpleNamespace(both=lambda inputs: (None, inputs))
    images: Any = SimpleNamespace(in_order=lambda split, batch_size: [batch] if split == "val" else [])
    assert 1.4 <= best_cut(network, images) <= 1.6
