"""Two processes that train together, by gloo on the CPU, against one; this file is also what each of them runs."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from damcrack.engine.augment import Augmentation
from damcrack.engine.batches import DeviceImages
from damcrack.engine.checkpoint import FolderCheckpoint
from damcrack.engine.decoded import DecodedSet
from damcrack.engine.frozen import Frozen
from damcrack.engine.networks import build_network
from damcrack.engine.objectives import Distillation, Objective, Supervised, Teaching
from damcrack.engine.processes import check_shares, joined, rank, size
from damcrack.engine.shared import share_batch_norms
from damcrack.engine.training import TrainingConfig, train
from damcrack.engine.weights import save_tensors
from damcrack.errors import InputError
from damcrack.math.temperature import TemperatureConfig

CASES = ("supervised", "distilled", "resnet18", "interrupted")
# Neither 19 nor 9 divides by two: shares differ in size, and the last validation share of one process is empty.
NUM_TRAIN, NUM_VAL = 19, 9
CONFIG = TrainingConfig(
    epochs=3,
    warmup_epochs=1,
    batch_size=8,
    learning_rate=0.02,
    momentum=0.9,
    weight_decay=5e-4,
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


def noise() -> DeviceImages:
    """Bright and dark noise in two classes."""
    labels = np.arange(NUM_TRAIN + NUM_VAL) % 2
    random = np.random.default_rng(0)
    pixels = random.integers(0, 128, (len(labels), 32, 32, 3)) + 100 * labels[:, None, None, None]
    rows = np.arange(len(labels))
    rows_of = {"train": rows[:NUM_TRAIN], "val": rows[NUM_TRAIN:], "test": rows[:0]}
    decoded = DecodedSet(pixels.astype(np.uint8), labels, rows_of, ("no crack", "crack"), "digest")
    statistics = ((0.5,) * 3, (0.25,) * 3)
    return DeviceImages(decoded, statistics, Augmentation("dihedral", 0, 0), torch.device("cpu"))


def small_network(seed: int) -> nn.Module:
    """Convolution, batch norm, head: what a ResNet is made of."""
    torch.manual_seed(seed)
    body = (nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8, 2))


def objective_of(case: str) -> Objective:
    if case == "distilled":
        teaching = Teaching(0.6, "kl", "inside", TemperatureConfig("dynamic", ramp_epochs=2))
        return Distillation(Frozen(small_network(1), bfloat16=False), teaching, CONFIG.epochs)
    return Supervised()


def run_case(case: str, folder: Path) -> None:
    """Train; leave all weights (theta too) and the history in FOLDER/CASE-RANK."""

    def stop(row: dict[str, float]) -> None:
        if case == "interrupted" and row["epoch"] == 2:
            raise KeyboardInterrupt

    checkpoint = FolderCheckpoint(folder / f"checkpoint-{case}-{rank()}", interval_s=0.0)
    network = build_network("resnet18", 2, 0) if case == "resnet18" else small_network(0)
    objective = objective_of(case)
    if case == "interrupted":
        with suppress(KeyboardInterrupt):
            train(small_network(0), objective_of(case), noise(), CONFIG, checkpoint, stop)
    trained = train(network, objective, noise(), CONFIG, checkpoint, lambda row: None)
    out = folder / f"{case}-{rank()}"
    out.mkdir()
    save_tensors(out / "weights.safetensors", trained.last | objective.state_dict())
    (out / "history.json").write_text(json.dumps(trained.history))


def batch_norm_gradients(folder: Path) -> None:
    """Leave the gradients that a shared batch norm gives to this process's rows of a batch."""
    layer = nn.Sequential(nn.BatchNorm2d(3))
    share_batch_norms(layer)
    images = torch.arange(5 * 3 * 4, dtype=torch.float32).view(5, 3, 2, 2).sin()
    mine = torch.tensor_split(images, size())[rank()].clone().requires_grad_()
    layer(mine).pow(3).sum().backward()
    assert mine.grad is not None
    save_tensors(folder / f"norm-{rank()}.safetensors", {"grad": mine.grad} | layer.state_dict())


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left of every case."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder)]
    started = [
        subprocess.Popen(command, env=os.environ | common | {"RANK": number, "LOCAL_RANK": number})
        for number in "01"
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What one process left of every case, with as many threads as each of the two has."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)
    batch_norm_gradients(folder)
    for case in CASES:
        run_case(case, folder)
    yield folder
    torch.set_num_threads(threads)


def weights(folder: Path, case: str, number: int = 0) -> dict[str, Tensor]:
    return load_file(folder / f"{case}-{number}" / "weights.safetensors")


def history(folder: Path, case: str) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((folder / f"{case}-0" / "history.json").read_text())
    return rows


@pytest.mark.parametrize(
    ("case", "tolerance"), [("supervised", 1e-5), ("distilled", 1e-5), ("resnet18", 1e-3)]
)
def test_two_processes_learn_what_one_learns(
    together: Path, alone: Path, case: str, tolerance: float
) -> None:
    """After three epochs all weights, running statistics and theta, and every number of the history, agree."""
    theirs, ours = weights(together, case), weights(alone, case)
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=tolerance, atol=tolerance, msg=name)
    for one, two in zip(history(alone, case), history(together, case), strict=True):
        assert two == pytest.approx(one, rel=10 * tolerance, abs=10 * tolerance)


@pytest.mark.parametrize("case", CASES)
def test_processes_end_with_the_same_bits(together: Path, case: str) -> None:
    """Nothing drifts apart between the processes, the temperature's theta included."""
    first, second = weights(together, case, 0), weights(together, case, 1)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_theta_has_moved_as_one(together: Path) -> None:
    """The temperature was learned in that comparison, not left at its start."""
    assert float(weights(together, "distilled")["temperature.theta"]) != 0


def test_interrupted_processes_go_on_from_the_first_ones_checkpoint(together: Path) -> None:
    """Stopped in epoch 2 and called again they end as if uninterrupted; the second process wrote nothing."""
    whole, resumed = weights(together, "supervised"), weights(together, "interrupted")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history(together, "interrupted") == history(together, "supervised")
    assert (together / "checkpoint-interrupted-0").is_dir()
    assert not (together / "checkpoint-interrupted-1").exists()


def test_shared_batch_norm_differentiates_through_the_statistics(together: Path, alone: Path) -> None:
    """Gradients of the images, and running statistics, are those of one batch norm over the whole batch."""
    whole = load_file(alone / "norm-0.safetensors")
    parts = [load_file(together / f"norm-{number}.safetensors") for number in (0, 1)]
    torch.testing.assert_close(torch.cat([part["grad"] for part in parts]), whole["grad"])
    for name in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
        torch.testing.assert_close(parts[0][name], whole[name])


def test_batches_smaller_than_the_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process may be left without an image; the message says what to change."""
    monkeypatch.setattr("damcrack.engine.processes.size", lambda: 4)
    check_shares(num_train=8, batch_size=4)
    with pytest.raises(InputError, match="4 processes cannot share batches of 3 images"):
        check_shares(num_train=9, batch_size=4)


if __name__ == "__main__":
    with joined():
        batch_norm_gradients(Path(sys.argv[1]))
        for each in CASES:
            run_case(each, Path(sys.argv[1]))
