"""What the profiler says of a step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from damcrack.engine.batches import DeviceImages
from damcrack.engine.checkpoint import NoCheckpoint
from damcrack.engine.frozen import Frozen
from damcrack.engine.networks import build_network
from damcrack.engine.objectives import Distillation, Teaching
from damcrack.engine.profiling import CountedBytes, Peaks, measured_peaks, profiled_steps
from damcrack.engine.training import TrainingConfig, train
from damcrack.math.temperature import TemperatureConfig

MakeImages = Callable[..., DeviceImages]
CPU = torch.device("cpu")


def test_bytes_are_those_of_reading_and_writing() -> None:
    """A product reads two matrices and writes one; in place counts the target twice; a view moves nothing."""
    one, other = torch.ones(8, 4), torch.ones(4, 2)
    with CountedBytes() as product:
        one @ other
    with CountedBytes() as in_place:
        one.add_(1.0)
    with CountedBytes() as view:
        one.t().reshape(2, 16).permute(1, 0)
    sizes = [one.nbytes + other.nbytes + 8 * 2 * 4, 2 * one.nbytes]
    assert [product.total, in_place.total] == sizes
    assert view.total <= 2 * one.nbytes  # reshape of a transposed matrix copies once


def test_bound_is_the_longer_of_computing_and_moving() -> None:
    """Operations over rate or bytes over bandwidth, whichever takes longer."""
    peaks = Peaks(flops_per_s=100.0, bytes_per_s=10.0)
    assert peaks.bound_s(200, 10) == 2.0
    assert peaks.bound_s(200, 40) == 4.0


def test_measured_peaks_are_those_of_a_machine() -> None:
    """Any machine does more than a million operations a second and moves more than a megabyte."""
    peaks = measured_peaks(CPU, torch.float32, rounds=1)
    assert peaks.flops_per_s > 1e6 and peaks.bytes_per_s > 1e6


@pytest.mark.parametrize("epochs", [50, 3], ids=["ended", "shorter than asked"])
def test_profile_divides_the_time_of_a_training(images: MakeImages, tmp_path: Path, epochs: int) -> None:
    """The training is ended after the steps asked for; parts and rest sum to the whole; operations are counted."""
    teacher, student = build_network("resnet18", 2, 1), build_network("resnet18", 2, 2)
    objective = Distillation(
        Frozen(teacher, False), Teaching(0.6, "kl", "inside", TemperatureConfig("dynamic")), epochs=10
    )
    settings = TrainingConfig(
        epochs=epochs,
        warmup_epochs=1,
        batch_size=8,
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=0.0,
        flips="dihedral",
        rotate_deg=0.0,
        shift_px=0.0,
        scales=(1.0, 1.0),
        appearance=None,
        views=None,
        precision="float32",
        compile="off",
        seed=0,
    )
    seen: list[float] = []
    trace = tmp_path / "trace.json.gz"
    data = images(num_train=24)
    with profiled_steps(6, CPU, trace) as found:
        train(student, objective, data, settings, NoCheckpoint(), lambda row: seen.append(row["epoch"]))
    assert found.num_steps == (6 if epochs == 50 else 4)
    assert sum(found.part_s.values()) == pytest.approx(found.wall_s)
    assert all(found.part_s[name] > 0 for name in ("forward teacher", "forward student", "backward"))
    assert len(seen) < 5
    assert trace.stat().st_size > 1000
    # multiply-adds of ResNet18 at 32 px: 37 million an image; forward twice (teacher), backward twice as much
    assert found.flops_per_step == pytest.approx(8 * 2 * 37e6 * 4, rel=0.1)
    assert found.bytes_per_step > 4 * sum(weight.nbytes for weight in student.parameters())


def test_profiled_training_leaves_no_hook(images: MakeImages, tmp_path: Path) -> None:
    """After a profile other optimisers step unwatched, also when the training failed."""
    with pytest.raises(RuntimeError, match="broken"), profiled_steps(2, CPU, tmp_path / "trace.json.gz"):
        raise RuntimeError("broken")
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(20):
        optimiser.step()
    assert not (tmp_path / "trace.json.gz").exists()
