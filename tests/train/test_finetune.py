"""Fine-tuning on few labels: which tiles are kept."""

from pathlib import Path

import numpy as np
import pytest

from damcrack.files import InputError
from damcrack.params import read_params, stage_config
from damcrack.train.decoded import DecodedSet
from damcrack.train.finetune import few_labels, with_enough_epochs

pytestmark = pytest.mark.slow


def tiles() -> DecodedSet:
    """30 + 30 training, 10 + 10 validation and 6 test tiles, classes mixed."""
    labels = np.tile([0, 1], 43).astype(np.int64)
    rows = np.random.default_rng(0).permutation(80)
    train = np.sort(np.concatenate([rows[labels[rows] == label][:30] for label in (0, 1)]))
    rows_of = {"train": train, "val": np.setdiff1d(np.arange(80), train), "test": np.arange(80, 86)}
    return DecodedSet(np.zeros((86, 2, 2, 3), np.uint8), labels, rows_of, ("no crack", "crack"), "digest")


@pytest.mark.parametrize("num", [10, 50])
def test_few_labels_are_balanced_and_split_8_to_2(num: int) -> None:
    """Half of them are cracks in training and validation, a fifth is for validation, tests are untouched."""
    images = tiles()
    kept = few_labels(images, num, seed=3)
    for split, share in (("train", 0.8), ("val", 0.2)):
        labels = images.labels_N[kept.rows_of[split]]
        assert np.bincount(labels).tolist() == [round(num * share / 2)] * 2
        assert set(kept.rows_of[split]) <= set(images.rows_of[split])
    assert np.array_equal(kept.rows_of["test"], images.rows_of["test"])


def test_more_labels_than_there_are_is_refused() -> None:
    """100 labels need 40 training tiles of each class; there are 30."""
    with pytest.raises(
        InputError, match=r"labelled_tiles: 100 needs 40 train tiles of each class, there are 30"
    ):
        few_labels(tiles(), 100, 0)


def test_more_labels_keep_the_fewer() -> None:
    """The tiles of a smaller number are among those of a larger, so that a curve adds labels; seeds differ."""
    few, more, other = (few_labels(tiles(), num, seed) for num, seed in ((10, 1), (40, 1), (10, 2)))
    for split in ("train", "val"):
        assert set(few.rows_of[split]) <= set(more.rows_of[split])
    assert set(few.rows_of["train"]) != set(other.rows_of["train"])


@pytest.mark.parametrize(("num_train", "epochs"), [(40, 40), (160, 12), (1000, 6)])
def test_few_tiles_get_more_epochs(num_train: int, epochs: int) -> None:
    """At batches of 16 and min_steps 120: 3 steps an epoch ask for 40 epochs, 10 for 12; 63 keep the 6."""
    params = read_params(Path(__file__).parents[2] / "params" / "demo.yaml")
    changed = {"min_steps": 120, "epochs": 6, "batch_size": 16}
    config = stage_config(params, "finetune", "resnet18-scratch", changed)
    assert with_enough_epochs(config, num_train).epochs == epochs
