"""Training tiles and pixels together, by labels and by a teacher."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from damcrack.data.targets import CLEAN, CRACK, SOMEWHERE, UNKNOWN
from damcrack.train.batches import Batch, DeviceImages
from damcrack.train.checkpoint import Progress
from damcrack.train.config import Augmentation, TaughtConfig, TemperatureConfig, TrainingConfig
from damcrack.train.decoded import DecodedSet
from damcrack.train.frozen import Frozen
from damcrack.train.losses import PIXEL_WEIGHT, TILE_WEIGHT, pixel_divergence, pixel_loss, soft_divergence
from damcrack.train.networks import build_network, forward_of
from damcrack.train.objectives import Distillation, Objective, Supervised
from damcrack.train.pixels import PixelNetwork
from damcrack.train.training import validate
from damcrack.train.weights import snapshot_of
from trainings import DYNAMIC, config, distillation, resumed, run, same, small_network

pytestmark = pytest.mark.slow

MakeTiles = Callable[..., DecodedSet]
GOLDEN = Path(__file__).parents[1] / "golden/pixel_losses.json"
STATISTICS = ((0.5,) * 3, (0.5,) * 3)
AS_IT_IS = Augmentation("none", 0, 0)
VIEWS = Augmentation("dihedral", 5.0, 1.0, (0.5, 1.2), view_px=32, focus=0.5)


def adamw(**values: object) -> TrainingConfig:
    settings = {"optimiser": "adamw", "learning_rate": 0.002, "weight_decay": 0.01, "clip_norm": 5.0}
    return config(**{**settings, **values})


def batches(tiles: DecodedSet, how: Augmentation = AS_IT_IS, num_unlabelled: int = 0) -> DeviceImages:
    return DeviceImages(tiles, STATISTICS, how, torch.device("cpu"), num_unlabelled=num_unlabelled)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums are added up in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_cracks_of_eight_tiles_can_be_learned_by_heart(tiles: MakeTiles) -> None:
    """The loop finds the pixels of drawn lines: F1 above 0.8 of what it was trained on, and all tiles are right."""
    found = tiles(8, 8, side=32)
    found.rows_of["val"] = found.rows_of["train"]
    settings = adamw(epochs=24, batch_size=4, learning_rate=0.02)
    trained = run(batches(found), small_network(0, 16), Supervised(), settings)
    assert trained.history[-1]["val_pixel_f1"] > 0.8
    assert trained.history[-1]["train_accuracy"] == 1
    scores = [row["val_pixel_f1"] for row in trained.history]
    assert scores[0] < 0.5
    assert trained.best_epoch == scores.index(max(scores)) + 1


def test_resumed_training_ends_like_uninterrupted_training(tiles: MakeTiles, tmp_path: Path) -> None:
    """With AdamW, a teacher of both heads, a learned temperature and unlabelled tiles: equal to the bit."""
    images, settings = batches(tiles(8, 4, 3, side=32), VIEWS, 2), adamw(epochs=4, batch_size=4)

    def fresh() -> tuple[nn.Module, Objective]:
        student: nn.Module = small_network(2, 16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return student, distillation(small_network(1, 16))

    whole, found = run(images, *fresh(), settings), resumed(images, fresh, settings, tmp_path)
    assert same(found.last, whole.last)
    assert same(found.best, whole.best)
    assert (found.best_epoch, found.history) == (whole.best_epoch, whole.history)
    assert len({row["theta"] for row in whole.history}) == 4


def test_distillation_leaves_the_teacher_as_it_was(tiles: MakeTiles) -> None:
    """Weights and buffers of both heads are bitwise unchanged, and the student's are not."""
    teacher, student = small_network(1, 16), small_network(2, 16)
    teacher_before, student_before = snapshot_of(teacher), snapshot_of(student)
    images = batches(tiles(4, 4, 2, side=32), VIEWS, 1)
    trained = run(images, student, distillation(teacher), adamw(epochs=1, batch_size=4))
    assert same(snapshot_of(teacher), teacher_before)
    assert not teacher.training
    changed = [name for name, value in trained.last.items() if not torch.equal(value, student_before[name])]
    assert {"tile_head.weight", "pixel_head.weight", "encoder.stem.0.weight"} <= set(changed)


@pytest.mark.parametrize("clip_norm", [0.5, None])
def test_clipping_bounds_the_step(tiles: MakeTiles, clip_norm: float | None) -> None:
    """Plain descent moves the weights by at most the learning rate times the bound; unbounded it is further."""
    network = small_network(0, 16)
    before = torch.cat([weight.detach().flatten().clone() for weight in network.parameters()])
    descent = {"epochs": 1, "warmup_epochs": 0, "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.01}
    images = batches(tiles(8, 4, side=32))
    run(images, network, Supervised(), config(**descent, clip_norm=clip_norm))
    after = torch.cat([weight.detach().flatten() for weight in network.parameters()])
    norm = (after - before).norm().item() / 0.01
    assert norm == pytest.approx(0.5, rel=1e-3) if clip_norm else norm > 1


def test_the_best_epoch_is_the_one_of_the_highest_pixel_f1() -> None:
    """Before accuracy; the lower loss decides among equals. Without a pixel head accuracy decides."""
    rows = [
        {"val_accuracy": 0.9, "val_loss": 0.2, "val_pixel_f1": 0.4},
        {"val_accuracy": 0.6, "val_loss": 0.9, "val_pixel_f1": 0.6},
        {"val_accuracy": 0.7, "val_loss": 0.5, "val_pixel_f1": 0.6},
        {"val_accuracy": 0.8, "val_loss": 0.1, "val_pixel_f1": 0.5},
    ]
    network = nn.Linear(1, 1)
    with_pixels, without = Progress(), Progress()
    for row in rows:
        with_pixels.add(row, network)
        without.add({name: value for name, value in row.items() if name != "val_pixel_f1"}, network)
    assert (with_pixels.best_epoch, without.best_epoch) == (3, 1)


def given_answers(tile: Tensor, pixel: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A network that says the same of every batch of its size."""
    return lambda inputs: (tile[: len(inputs)], pixel[: len(inputs)])


def test_pixel_f1_counts_known_pixels_alone(tiles: MakeTiles) -> None:
    """It agrees with NumPy over the whole split, in batches of any size; unknown pixels are neither hit nor miss."""
    found = tiles(2, 6, side=32)
    random = np.random.default_rng(0)
    codes = random.choice(np.array([CLEAN, UNKNOWN, SOMEWHERE, CRACK], np.uint8), (8, 32, 32))
    found = DecodedSet(found.images_NHWC, found.labels_N, found.rows_of, found.classes, "d", codes)
    logits = torch.tensor(random.normal(0, 1, (6, 32, 32)))
    row = validate(given_answers(torch.zeros(6, 2), logits), batches(found), config(batch_size=6))
    val = codes[2:]
    known, crack, said = (val == CRACK) | (val == CLEAN), val == CRACK, logits.numpy() > 0
    right = (said & crack).sum()
    expected = 2 * right / (2 * right + (said & known & ~crack).sum() + (~said & crack).sum())
    assert row["val_pixel_f1"] == pytest.approx(expected)
    always = given_answers(torch.zeros(6, 2), torch.ones(6, 32, 32))
    halves = [validate(always, batches(found), config(batch_size=size))["val_pixel_f1"] for size in (6, 4)]
    assert halves[0] == halves[1]


def test_without_a_known_crack_there_is_no_pixel_f1(tiles: MakeTiles) -> None:
    """Tiles of which only the labels are known are judged by accuracy, not by a score that is always 0."""
    found = tiles(2, 6, side=32)
    assert found.targets_NHW is not None
    found.targets_NHW[found.targets_NHW == CRACK] = SOMEWHERE
    always = given_answers(torch.zeros(6, 2), torch.ones(6, 32, 32))
    row = validate(always, batches(found), config(batch_size=6))
    assert set(row) == {"val_loss", "val_accuracy"}


def example() -> tuple[Batch, Tensor, Tensor, Tensor, Tensor]:
    """A batch of four labelled and two unlabelled tiles, and what a student and a teacher say of it."""
    random = torch.Generator().manual_seed(0)
    codes = torch.tensor([CLEAN, CRACK, SOMEWHERE, UNKNOWN, UNKNOWN, UNKNOWN], dtype=torch.uint8)
    targets = codes[:, None, None].expand(6, 16, 16).clone()
    targets[1, 8:] = CLEAN
    batch = Batch(torch.zeros(6, 3, 16, 16), torch.tensor([0, 1, 1, 1, -1, -1]), None, targets)
    tile, taught_tile = torch.randn(2, 6, 2, generator=random)
    pixel, taught_pixel = torch.randn(2, 6, 16, 16, generator=random)
    return batch, tile, pixel, taught_tile, taught_pixel


def test_hard_terms_are_of_what_is_known() -> None:
    """0.3 x cross-entropy of labelled tiles and the pixels' loss; unlabelled tiles add nothing."""
    batch, tile, pixel, *_ = example()
    assert batch.targets_BHW is not None
    terms = Supervised()(given_answers(tile, pixel), batch, 1)
    of_tiles = nn.functional.cross_entropy(tile[:4], batch.labels_B[:4])
    expected = TILE_WEIGHT * of_tiles + pixel_loss(pixel[:4], batch.targets_BHW[:4])
    assert terms.total.item() == pytest.approx(expected.item())
    assert torch.equal(terms.logits_BC, tile)


def test_a_teacher_teaches_all_tiles_and_pixels() -> None:
    """Alpha T^2 (0.3 KL of tiles + 4 KL of pixels) over the whole batch, unlabelled tiles included."""
    batch, tile, pixel, taught_tile, taught_pixel = example()
    objective = distillation(nn.Linear(1, 1), TemperatureConfig("fixed", value=2.0))
    objective.teacher = given_answers(taught_tile, taught_pixel)  # type: ignore[assignment]
    terms = objective(given_answers(tile, pixel), batch, 1)
    t = torch.tensor(2.0)
    soft = TILE_WEIGHT * soft_divergence(tile, taught_tile, t)
    soft += PIXEL_WEIGHT * pixel_divergence(pixel, taught_pixel, t)
    hard = Supervised()(given_answers(tile, pixel), batch, 1).total
    assert terms.soft.item() == pytest.approx(soft.item())
    assert terms.total.item() == pytest.approx((0.6 * 4 * soft + 0.4 * hard).item())


def test_a_teacher_of_tiles_teaches_tiles() -> None:
    """Where one of the two has no pixel head the soft loss is that of tiles alone."""
    batch, tile, pixel, taught_tile, taught_pixel = example()
    t = torch.tensor(2.0)
    for student, taught in ((given_answers(tile, pixel), lambda _: taught_tile), (lambda _: tile, None)):
        objective = distillation(nn.Linear(1, 1), TemperatureConfig("fixed", value=2.0))
        objective.teacher = taught or given_answers(taught_tile, taught_pixel)  # type: ignore[assignment]
        soft = objective(student, batch, 1).soft
        assert soft.item() == pytest.approx(soft_divergence(tile, taught_tile, t).item())


def golden_losses(tiles: DecodedSet) -> list[float]:
    """Losses of the six steps of three epochs with a teacher, views, AdamW and unlabelled tiles."""
    teacher, student = (build_network("resnet18", 2, seed, 16) for seed in (1, 2))
    losses = []

    class Noted(Distillation):
        def forward(self, student: object, batch: Batch, epoch: int):  # type: ignore[no-untyped-def]
            terms = super().forward(student, batch, epoch)  # type: ignore[arg-type]
            losses.append(terms.total.item())
            return terms

    taught = TaughtConfig(epochs=4, learning_rate=0.1, temperature=DYNAMIC)
    objective = Noted(Frozen(teacher, bfloat16=False), taught)
    run(batches(tiles, VIEWS, 1), student, objective, adamw(batch_size=4))
    return losses


def test_losses_are_those_on_file(tiles: MakeTiles, one_thread: None) -> None:
    """A refactoring moves no loss; after a wanted change: `REGENERATE=1 pytest tests/train/test_pixel_training.py`."""
    losses = golden_losses(tiles(8, 2, 3, side=32))
    if os.environ.get("REGENERATE"):
        GOLDEN.write_text(json.dumps(losses, indent=2) + "\n")
    assert len(losses) == 6
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4)


def test_forward_of_both_heads_trains() -> None:
    """What a batch goes through by default is the pixel network's pair of heads, a plain network's is itself."""
    network, plain = small_network(0, 16), small_network()
    assert isinstance(network, PixelNetwork)
    assert forward_of(network) == network.both
    assert forward_of(plain) is plain
