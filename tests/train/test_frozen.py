"""Networks that no longer learn, and their stored answers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from damcrack.train.batches import DeviceImages
from damcrack.train.config import Augmentation, TaughtConfig, TemperatureConfig
from damcrack.train.frozen import Frozen, soft_target_table
from damcrack.train.networks import build_network
from damcrack.train.objectives import Distillation
from trainings import config, lively, run, small_network

pytestmark = pytest.mark.slow

MakeImages = Callable[..., DeviceImages]
TURNED = Augmentation("dihedral", 10.0, 2.0)
TAUGHT = TaughtConfig(epochs=4, learning_rate=0.05, temperature=TemperatureConfig("dynamic", ramp_epochs=4))


def small_teacher(seed: int = 1) -> Frozen:
    return Frozen(lively(small_network(seed)), bfloat16=False)


def test_folded_network_answers_like_the_original() -> None:
    """Folding batch norms and rounding to bfloat16 change the logits by a small share of their spread."""
    network = lively(build_network("resnet50", 2, 1))
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = network(images)
    fast = Frozen(network, bfloat16=True)(images)
    assert fast.dtype == torch.float32
    assert not torch.equal(fast, exact)
    assert (fast - exact).abs().max() < 0.05 * exact.std()


def test_exact_frozen_network_is_the_network() -> None:
    """In float32 the answer is the network's own, to the bit, and may enter a differentiated loss."""
    network: nn.Module = lively(small_network(1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)
    answer = Frozen(network, bfloat16=False)(images)
    assert torch.equal(answer, expected)
    weight = torch.ones(2, requires_grad=True)
    (answer * weight).sum().backward()
    assert torch.allclose(weight.grad, answer.sum(0))  # type: ignore[arg-type]


def test_order_is_the_same_with_stored_answers(images: MakeImages) -> None:
    """Stored answers come with the labels and pixels of the epoch that they replace."""
    plain, stored = images(views=2), images(views=2)
    table = torch.arange(2 * 16 * 2, dtype=torch.float32).reshape(2, 16, 2)
    stored.teacher_logits_VNC = table
    for epoch in (1, 2, 3):
        places = torch.cat(plain.order(8, 0, epoch))
        pairs = list(zip(plain.shuffled(8, 0, epoch), stored.shuffled(8, 0, epoch), strict=True))
        assert all(torch.equal(one.inputs, other.inputs) for one, other in pairs)
        assert all(torch.equal(one.labels_B, other.labels_B) for one, other in pairs)
        logits = torch.cat([other.teacher_logits_BC for _, other in pairs])
        assert torch.equal(logits, table[(epoch - 1) % 2, places])


def test_fixed_views_return_and_fresh_ones_do_not(images: MakeImages) -> None:
    """With two views an image looks in epoch 3 as in epoch 1, whatever the seed; drawn again it does not."""

    def seen(views: int | None, seed: int, epoch: int) -> Tensor:
        data = images(how=TURNED, views=views)
        pixels = torch.cat([batch.inputs for batch in data.shuffled(8, seed, epoch)])
        return pixels[torch.cat(data.order(8, seed, epoch)).argsort()]

    assert torch.equal(seen(2, 0, 1), seen(2, 5, 3))
    assert not torch.equal(seen(2, 0, 1), seen(2, 0, 2))
    assert not torch.equal(seen(None, 0, 1), seen(None, 0, 3))


def test_student_of_stored_soft_targets_learns_what_a_live_teacher_teaches(
    images: MakeImages, tmp_path: Path
) -> None:
    """Stored logits give the history, the temperature's included, of a teacher that answers each time."""
    data, histories = images(how=TURNED, views=2), []
    for stored in (False, True):
        teacher = small_teacher()
        if stored:
            data.teacher_logits_VNC = soft_target_table(teacher, data, {"a": 1}, tmp_path)
        objective = Distillation(teacher, TAUGHT)
        histories.append(run(data, small_network(2), objective, config(epochs=4)).history)
    for one, other in zip(*histories, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-7)


def test_soft_targets_are_computed_once_for_equal_inputs(images: MakeImages, tmp_path: Path) -> None:
    """A second student reads the first one's table; another teacher, named by its inputs, gets its own."""
    data = images(views=2)
    first = soft_target_table(small_teacher(), data, {"teacher": "a"}, tmp_path)

    class Asleep(Frozen):
        def __call__(self, images_BCHW: Tensor) -> Tensor:
            raise AssertionError("the teacher was asked again")

    asleep = Asleep(small_network(1), False)
    again = soft_target_table(asleep, data, {"teacher": "a"}, tmp_path)
    other = soft_target_table(small_teacher(7), data, {"teacher": "b"}, tmp_path)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(AssertionError, match="asked again"):
        soft_target_table(asleep, data, {"teacher": "c"}, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_damaged_soft_targets_are_computed_again(images: MakeImages, tmp_path: Path) -> None:
    """A file that was cut, or is gone."""
    data = images(views=2)
    first = soft_target_table(small_teacher(), data, {"teacher": "a"}, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    for damage in (lambda: path.write_bytes(path.read_bytes()[:50]), path.unlink):
        damage()
        again = soft_target_table(small_teacher(), data, {"teacher": "a"}, tmp_path)
        assert torch.equal(first, again) and path.is_file()
