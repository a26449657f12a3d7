"""What can be read as a checkpoint is taken up; anything else is none, and stands in nobody's way."""

from pathlib import Path

import pytest
import torch
from torch import nn

from damcrack.train.checkpoint import Checkpoint, Progress
from damcrack.train.weights import load_tensors, save_tensors

ROW = {"epoch": 1.0, "val_accuracy": 0.5, "val_loss": 1.0}


def trained(weight: float) -> tuple[dict[str, nn.Module], torch.optim.Optimizer, Progress]:
    """A network of one weight after one epoch."""
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, weight)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 1)).sum().backward()
    optimiser.step()
    progress = Progress()
    progress.add(ROW, network)
    return {"network": network}, optimiser, progress


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x00" * 100, "cut", "tensors alone"])
def test_a_damaged_checkpoint_is_none(tmp_path: Path, content: bytes | str | None) -> None:
    """A file that is missing, damaged, or holds something else: training begins again."""
    path = tmp_path / "key.safetensors"
    checkpoint = Checkpoint(path, interval_s=0)
    checkpoint.save(*trained(1.0))
    if content == "tensors alone":
        save_tensors(path, load_tensors(path))
    elif content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if content == "cut" else content)
    parts, optimiser, _ = trained(2.0)
    before = {key: value.clone() for key, value in parts["network"].state_dict().items()}
    assert checkpoint.restore(parts, optimiser).epoch == 0
    assert all(torch.equal(value, before[key]) for key, value in parts["network"].state_dict().items())
    checkpoint.save(*trained(3.0))
    assert checkpoint.restore(parts, optimiser).epoch == 1
    checkpoint.remove()
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
