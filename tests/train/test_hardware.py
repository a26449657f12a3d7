"""The next best path where the machine lacks something, and the line that says so."""

import shutil

import pytest
import torch
from torch import nn

from damcrack.train import hardware
from damcrack.train.hardware import compiled, plan

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch reports of a GPU with 1 GiB free; nothing is run on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Small GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (2**30, 2**31))
    monkeypatch.setattr(hardware, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("features", "bfloat16", "words"),
    [
        ({"avx512_bf16": True}, True, "bfloat16"),
        ({"amx_bf16": True}, True, "bfloat16"),
        ({"avx2": True}, False, "float32 (no bfloat16 instructions here)"),
    ],
)
def test_bfloat16_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], bfloat16: bool, words: str
) -> None:
    """`auto` asks the processor, and says when it lacks the instructions."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    here = plan("auto", "auto", 10**12, 10**6)
    assert (here.device, here.bfloat16, here.compiled, here.resident) == (CPU, bfloat16, False, True)
    assert words in here.words
    assert "no GPU" in here.words


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("groups", "bfloat16"), [(1, True), (4, False)])
def test_depthwise_convolutions_stay_in_float32(
    monkeypatch: pytest.MonkeyPatch, groups: int, bfloat16: bool
) -> None:
    """On a CPU with bfloat16 they are slower in it, unless it is asked for."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=groups))
    assert plan("auto", "off", 0, 1, network).bfloat16 is bfloat16
    assert plan("bfloat16", "off", 0, 1, network).bfloat16
    assert ("depthwise" in plan("auto", "off", 0, 1, network).words) is not bfloat16


@pytest.mark.usefixtures("no_gpu")
def test_exact_mode_is_float32_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision float32 is kept on a machine that has bfloat16."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert not plan("float32", "off", 0, 1).bfloat16


@pytest.mark.usefixtures("no_gpu")
def test_one_core_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one core the line says one core."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert "1 CPU core (no GPU)" in plan("auto", "auto", 0, 1).words


@pytest.mark.usefixtures("no_gpu")
def test_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation asked for without a compiler: training goes on without, and says why."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    here = plan("float32", "on", 0, 1)
    assert not here.compiled
    assert "no C++ compiler" in here.words


@pytest.mark.usefixtures("small_gpu")
@pytest.mark.parametrize(("gib", "resident"), [(0.4, True), (0.6, False)])
def test_pixels_stay_on_the_gpu_only_if_they_fit(gib: float, resident: bool) -> None:
    """Half of the free memory is the limit; above it they are fetched ahead, and the line says so."""
    here = plan("auto", "off", int(gib * 2**30), 1)
    assert here.resident == resident
    assert ("do not fit on the GPU" in here.words) != resident


@pytest.mark.usefixtures("small_gpu")
@pytest.mark.parametrize(("num_steps", "told"), [(100, False), (10_000, True)])
def test_short_trainings_are_not_compiled(num_steps: int, told: bool) -> None:
    """A long training would be compiled, and is told that triton is missing; a short one need not know."""
    here = plan("auto", "auto", 0, num_steps)
    assert not here.compiled
    assert ("no triton" in here.words) == told


@pytest.mark.slow
def test_compiled_network_answers_and_learns_alike() -> None:
    """The compiled form has the outputs and gradients of the network."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    images = torch.randn(4, 3, 8, 8)
    results = []
    for forward in (network, compiled(network, CPU)):
        network.zero_grad()
        outputs = forward(images)
        outputs.square().sum().backward()
        results.append([outputs.detach(), *(weight.grad.clone() for weight in network.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
