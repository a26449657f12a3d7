"""What only a GPU can show: the same results as elsewhere, exact float32, compiled forms, and steps without waiting."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from damcrack.train.batches import DeviceImages
from damcrack.train.config import Appearance, Augmentation, TaughtConfig, TrainingConfig
from damcrack.train.frozen import Frozen, answers
from damcrack.train.hardware import compiled, plan, set_up
from damcrack.train.networks import build_network, set_training_mode
from damcrack.train.objectives import Distillation, Forward, Objective, Supervised
from damcrack.train.training import Trained, autocast, new_optimiser, train
from trainings import DYNAMIC, config, resumed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

MakeImages = Callable[..., DeviceImages]
GPU = torch.device("cuda")
TURNED = Augmentation("dihedral", 10.0, 2.0, (0.7, 1.2), Appearance(0.3, 0.2, 0.5, 5.0))
CONFIG = config(epochs=4, batch_size=16, learning_rate=0.02, precision="bfloat16")


@pytest.fixture(autouse=True)
def settings_restored() -> Iterator[None]:
    """What the library may do is set for the whole process."""
    before = (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32)
    yield
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = before


def student() -> nn.Module:
    network: nn.Module = build_network("resnet18", 2, 0).to(GPU, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def objective_of(kind: str, precision: str = "bfloat16") -> Objective:
    if kind == "labels":
        return Supervised()
    teacher = Frozen(build_network("resnet18", 2, 1).to(GPU), precision == "bfloat16")
    taught = TaughtConfig(epochs=CONFIG.epochs, learning_rate=CONFIG.learning_rate, temperature=DYNAMIC)
    return Distillation(teacher, taught).to(GPU)


def run(
    data: DeviceImages, config: TrainingConfig, kind: str = "labels", compile_it: bool = False
) -> Trained:
    set_up(plan(config.precision, "off", 0, 0))
    network, objective = student(), objective_of(kind, config.precision)
    forward: Forward = compiled(network, GPU) if compile_it else network
    if compile_it and isinstance(objective, Distillation):
        objective.teacher.compile(GPU)
    return train(network, objective, data, config, None, lambda row: None, forward)


@pytest.mark.parametrize("how", [Augmentation("dihedral", 0, 0), TURNED], ids=["flips", "all"])
@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_those_of_the_cpu(images: MakeImages, how: Augmentation, resident: bool) -> None:
    """Order, draws and pixels are the same wherever the pixels stay."""
    here, there = images(how=how), images(how=how, device="cuda", resident=resident)
    for one, other in zip(here.shuffled(8, 0, 1), there.shuffled(8, 0, 1), strict=True):
        assert torch.equal(one.labels_B, other.labels_B.cpu())
        assert torch.allclose(one.inputs, other.inputs.cpu(), atol=2e-3)


def test_compiled_views_are_the_views(images: MakeImages) -> None:
    """Fusing the augmentation into few kernels changes roundings only."""
    one, other = (images(how=TURNED, device="cuda", compile_views=fused) for fused in (False, True))
    for plain, fused in zip(one.shuffled(8, 0, 1), other.shuffled(8, 0, 1), strict=True):
        assert torch.allclose(plain.inputs, fused.inputs, atol=2e-3)


@pytest.mark.parametrize("how", [Augmentation("dihedral", 0, 0), TURNED], ids=["flips", "all"])
@pytest.mark.parametrize("kind", ["labels", "teacher"])
def test_steps_never_wait_for_the_gpu(images: MakeImages, kind: str, how: Augmentation) -> None:
    """After the first step of an epoch nothing is read back or copied in a way that waits."""
    network, objective = student(), objective_of(kind)
    set_training_mode(network)
    optimiser = new_optimiser(network, objective, CONFIG)
    try:
        for number, batch in enumerate(images(64, how=how, device="cuda").shuffled(16, 0, 1)):
            with autocast(GPU, "bfloat16"):
                terms = objective(network, batch, 1)
            terms.total.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if number == 0:
                torch.cuda.set_sync_debug_mode("error")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_float32_is_not_tf32() -> None:
    """In the exact mode convolutions round as float32 does; in bfloat16 mode float32 parts may use TF32."""
    images = torch.randn(4, 64, 32, 32, generator=torch.Generator().manual_seed(0)).to(GPU)
    layer = nn.Conv2d(64, 64, 3).to(GPU)
    with torch.no_grad():
        exact = nn.functional.conv2d(images.double(), layer.weight.double(), layer.bias.double())  # type: ignore[union-attr]
        set_up(plan("float32", "off", 0, 0))
        error = (layer(images) - exact).norm() / exact.norm()
    assert float(error) < 1e-6


@pytest.mark.parametrize("kind", ["labels", "teacher"])
def test_fast_training_follows_the_exact_one(images: MakeImages, kind: str) -> None:
    """Bfloat16, compiled or not, has the losses of float32 within bfloat16's roundings, epoch by epoch."""
    exact, *fast = (
        run(images(256, 64, device="cuda"), replace(CONFIG, precision=precision), kind, compile_it).history  # type: ignore[arg-type]
        for precision, compile_it in (("float32", False), ("bfloat16", False), ("bfloat16", True))
    )
    assert exact[-1]["train_loss"] < exact[0]["train_loss"]
    for history in fast:
        for one, other in zip(exact, history, strict=True):
            assert other["train_loss"] == pytest.approx(one["train_loss"], abs=0.08)
        assert history[-1]["val_accuracy"] == pytest.approx(exact[-1]["val_accuracy"], abs=0.1)


def test_stored_soft_targets_are_the_live_teachers(images: MakeImages) -> None:
    """Answers kept on the GPU, asked in other batches, are the compiled teacher's within bfloat16's roundings."""
    data = images(64, device="cuda", views=2)
    teacher = Frozen(build_network("resnet18", 2, 1).to(GPU), bfloat16=True)
    data.teacher_logits_VNC = answers(teacher, data)
    teacher.compile(GPU)
    for epoch in (1, 2):
        for batch in data.shuffled(16, 0, epoch):
            assert batch.teacher_logits_BC is not None
            live = teacher(batch.inputs)
            assert torch.allclose(batch.teacher_logits_BC, live, atol=0.05 * float(live.std()) + 0.01)


def test_interrupted_training_goes_on(images: MakeImages, tmp_path: Path) -> None:
    """From the last finished epoch, with the history that the uninterrupted one has."""
    data = images(device="cuda")
    whole = run(data, CONFIG).history
    rest = resumed(data, lambda: (student(), Supervised()), CONFIG, tmp_path)
    assert [row["epoch"] for row in rest.history] == [1, 2, 3, 4]
    for one, other in zip(whole, rest.history, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], abs=0.05)


def test_plan_compiles_long_trainings() -> None:
    """With a compiler and triton at hand a long training is compiled and its pixels stay on the card."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler here")
    here = plan("auto", "auto", 2**20, 10**6)
    assert (here.device.type, here.bfloat16, here.compiled, here.resident) == ("cuda", True, True, True)
