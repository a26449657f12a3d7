"""What can be read as a checkpoint is taken up; anything else is none, and stands in nobody's way."""

from pathlib import Path

import pytest
import torch
from torch import nn

from damcrack.files import OUTPUT_MARKER
from damcrack.train.checkpoint import FolderCheckpoint, Progress

FILES = ("tensors.safetensors", "progress.json", OUTPUT_MARKER)
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


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x00" * 100])
def test_a_damaged_checkpoint_is_none(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A file that is missing, as a kill in the middle of a removal left it, or damaged: training begins again."""
    checkpoint = FolderCheckpoint(tmp_path / "key", interval_s=0)
    checkpoint.save(*trained(1.0))
    path = tmp_path / "key" / name
    path.unlink() if content is None else path.write_bytes(content)
    parts, optimiser, _ = trained(2.0)
    before = {key: value.clone() for key, value in parts["network"].state_dict().items()}
    assert checkpoint.restore(parts, optimiser).epoch == 0
    assert all(torch.equal(value, before[key]) for key, value in parts["network"].state_dict().items())
    checkpoint.save(*trained(3.0))
    assert checkpoint.restore(parts, optimiser).epoch == 1
    checkpoint.remove()
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
