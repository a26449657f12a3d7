"""The training loop: invariants that a refactoring must keep."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from damcrack.files import NonFiniteLossError
from damcrack.train.batches import DeviceImages
from damcrack.train.config import Augmentation, TemperatureConfig
from damcrack.train.networks import build_network, head, replace_head, set_trainable
from damcrack.train.objectives import Objective, Supervised
from damcrack.train.training import train
from damcrack.train.weights import snapshot_of
from trainings import config, distillation, resumed, run, same, small_network

pytestmark = pytest.mark.slow

MakeImages = Callable[..., DeviceImages]


def test_training_twice_gives_the_same_bits(images: MakeImages) -> None:
    """Same seed, same data: weights and history are equal bit for bit."""
    first, second = (
        run(images(), build_network("resnet18", 2, 0), Supervised(), config(epochs=1)) for _ in range(2)
    )
    assert same(first.last, second.last)
    assert first.history == second.history


def test_other_seed_gives_another_order(images: MakeImages) -> None:
    """The seed decides the order and the draws."""
    first, again, other = (
        torch.cat([batch.labels_B for batch in images().shuffled(8, seed, epoch=1)]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_batch_goes_through_what_is_given(images: MakeImages) -> None:
    """Whatever can be called, also where it has no length, as compiled networks have none."""

    class Compiled:
        def __init__(self, network: nn.Module) -> None:
            self.network, self.calls = network, 0

        def __call__(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.network(images_BCHW)  # type: ignore[no-any-return]

        def __len__(self) -> int:
            raise TypeError("ResNet does not support len()")

    network = small_network()
    forward = Compiled(network)
    train(network, Supervised(), images(), config(epochs=1), None, lambda row: None, forward)
    assert forward.calls == 3  # two of training, one of validation


def test_distillation_leaves_the_teacher_as_it_was(images: MakeImages) -> None:
    """The teacher's weights and buffers are bitwise unchanged, and the student's are not."""
    teacher, student = small_network(1), small_network(2)
    teacher_before, student_before = snapshot_of(teacher), snapshot_of(student)
    trained = run(images(), student, distillation(teacher), config(epochs=2))
    assert same(snapshot_of(teacher), teacher_before)
    assert not same(trained.last, student_before)
    assert not teacher.training


def test_dynamic_temperature_moves_and_is_recorded(images: MakeImages) -> None:
    """Temperature, theta and lambda are in every epoch's row; theta has left its start."""
    history = run(images(), small_network(2), distillation(small_network(1)), config(epochs=2)).history
    assert [row["reversal_weight"] for row in history] == pytest.approx([0.5, 1.0])
    assert history[-1]["theta"] != 0
    assert all(3 < row["temperature"] < 5 for row in history)


def test_theta_is_not_decayed_towards_the_middle(images: MakeImages) -> None:
    """With a reversal weight of nearly 0 and strong weight decay theta stays where it is."""
    temperature = TemperatureConfig("dynamic", theta_start=2.0, ramp_epochs=10_000_000)
    objective = distillation(small_network(1), temperature)
    run(images(), small_network(2), objective, config(epochs=1, weight_decay=0.5))
    assert objective.state_row(1)["theta"] == pytest.approx(2.0, abs=1e-6)


def test_last_epochs_run_at_temperature_one(images: MakeImages) -> None:
    """With one epoch at T = 1 of three, the last has T = 1, theta stands still in it, the others are in [3, 5]."""
    temperature = TemperatureConfig("dynamic", ramp="constant", epochs_at_one=1)
    objective = distillation(small_network(1), temperature, epochs=3)
    history = run(images(), small_network(2), objective, config(epochs=3, momentum=0.0)).history
    assert [3 < row["temperature"] < 5 for row in history] == [True, True, False]
    assert history[2]["temperature"] == 1
    assert history[2]["theta"] == history[1]["theta"] != history[0]["theta"]


def test_teacher_trained_at_a_temperature_divides_its_logits(images: MakeImages) -> None:
    """The loss at temperature T is the cross-entropy of logits / T."""
    network = small_network().eval()
    batch = next(iter(images().shuffled(8, 0, 1)))
    with torch.no_grad():
        terms = Supervised(4.0)(network, batch, 1)
    expected = nn.functional.cross_entropy(terms.logits_BC / 4, batch.labels_B)
    assert terms.total.item() == pytest.approx(expected.item())
    assert terms.total.item() != Supervised(1.0)(network, batch, 1).total.item()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("taught", [False, True], ids=["supervised", "distilled"])
def test_resumed_training_ends_like_uninterrupted_training(
    images: MakeImages, tmp_path: Path, taught: bool, layout: torch.memory_format
) -> None:
    """Stopped after two of four epochs and taken up again: weights, best epoch and history are equal."""

    def fresh() -> tuple[nn.Module, Objective]:
        student: nn.Module = small_network(2).to(memory_format=layout)  # type: ignore[call-overload]
        return student, distillation(small_network(1)) if taught else Supervised()

    settings = config(epochs=4)
    whole, found = run(images(), *fresh(), settings), resumed(images(), fresh, settings, tmp_path)
    assert same(found.last, whole.last)
    assert same(found.best, whole.best)
    assert (found.best_epoch, found.history) == (whole.best_epoch, whole.history)


def test_eight_images_can_be_learned_by_heart(images: MakeImages) -> None:
    """The loop optimises: a network fits eight images."""
    data = images(num_train=8, how=Augmentation("none", 0, 0))
    trained = run(data, small_network(), Supervised(), config(epochs=15, learning_rate=0.02))
    assert trained.history[-1]["train_accuracy"] == 1.0


def test_best_epoch_is_the_one_with_highest_validation_accuracy(images: MakeImages) -> None:
    """Best weights belong to the epoch of highest validation accuracy, lowest loss among equals."""
    trained = run(images(), small_network(), Supervised(), config(epochs=4))
    quality = [(row["val_accuracy"], -row["val_loss"]) for row in trained.history]
    assert trained.best_epoch == quality.index(max(quality)) + 1


def test_non_finite_loss_stops_with_epoch_and_step(images: MakeImages) -> None:
    """A diverging run names where it diverged and how to fix it."""
    network = small_network()
    nn.init.constant_(head(network).bias, float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 1 .*learning_rate"):
        run(images(), network, Supervised(), config())


def test_frozen_backbone_trains_the_head_alone(images: MakeImages) -> None:
    """With trainable=head no backbone weight and no batch norm statistic moves."""
    network = small_network()
    replace_head(network, 2, 1)
    set_trainable(network, "head")
    before = snapshot_of(network)
    after = run(images(), network, Supervised(), config(epochs=1)).last
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_bfloat16_follows_float32(images: MakeImages) -> None:
    """Half-precision forward passes train alike: with small steps the losses agree within three percent."""
    exact, halved = (
        run(images(), small_network(), Supervised(), config(epochs=2, learning_rate=1e-4, precision=name))
        for name in ("float32", "bfloat16")
    )
    losses = [[row["train_loss"] for row in trained.history] for trained in (halved, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert losses[0] != losses[1]
