"""Batches that bring codes of pixels: what their labels say, and the unlabelled images among them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from damcrack.data.targets import CLEAN, CRACK, SOMEWHERE, UNKNOWN
from damcrack.train.batches import Batch, DeviceImages
from damcrack.train.config import Augmentation
from damcrack.train.decoded import DecodedSet

MakeTiles = Callable[..., DecodedSet]
STATISTICS = ((0.5,) * 3, (0.25,) * 3)
AS_IT_IS = Augmentation("none", 0, 0)
CROPPED = Augmentation("dihedral", 0, 0, (0.3, 0.5), view_px=32)


def batches_of(
    tiles: DecodedSet, how: Augmentation, num_unlabelled: int = 0, **options: object
) -> DeviceImages:
    return DeviceImages(
        tiles,
        STATISTICS,
        how,
        torch.device("cpu"),
        num_unlabelled=num_unlabelled,
        **options,  # type: ignore[arg-type]
    )


def epoch(images: DeviceImages, seed: int = 0, number: int = 1, batch_size: int = 8) -> list[Batch]:
    return list(images.shuffled(batch_size, seed, number))


def test_codes_arrive_with_their_images(tiles: MakeTiles) -> None:
    """Unchanged views bring pixels, label and codes of one tile, for training and for validation."""
    found = tiles(12, 6)
    images = batches_of(found, AS_IT_IS)
    assert found.targets_NHW is not None
    for batch in [*epoch(images), *images.in_order("val", 4)]:
        assert batch.targets_BHW is not None
        greys = (batch.inputs * 0.25 + 0.5) * 255
        for grey, label, codes in zip(greys, batch.labels_B, batch.targets_BHW, strict=True):
            away = np.abs(found.images_NHWC - grey.permute(1, 2, 0).numpy()).max(axis=(1, 2, 3))
            row = int(away.argmin())
            assert away[row] < 0.01
            assert np.array_equal(codes, found.targets_NHW[row])
            assert label == found.labels_N[row]


@pytest.mark.parametrize(
    ("num", "sizes"), [(2, [2]), (3, [3]), (5, [2, 3]), (7, [2, 2, 3]), (8, [2, 2, 2, 2])]
)
def test_no_image_is_alone_in_a_training_batch(tiles: MakeTiles, num: int, sizes: list[int]) -> None:
    """Batch norm has nothing to compare it with."""
    batches = epoch(batches_of(tiles(num_train=num), Augmentation()), batch_size=2)
    assert sorted(len(batch.labels_B) for batch in batches) == sizes


def test_an_epoch_shows_every_labelled_tile_once(tiles: MakeTiles) -> None:
    """Whatever joins a batch, the labelled tiles are divided as without it."""
    found = tiles(13, 4, 5)
    for num in (0, 3):
        batches = epoch(batches_of(found, AS_IT_IS, num), batch_size=4)
        assert [int((batch.labels_B >= 0).sum()) for batch in batches] == [4, 3, 3, 3]
        assert [len(batch.labels_B) for batch in batches] == [4 + num, 3 + num, 3 + num, 3 + num]
        assert sum(int((batch.labels_B == 1).sum()) for batch in batches) == 6


def test_unlabelled_tiles_join_each_batch_without_label_or_codes(tiles: MakeTiles) -> None:
    """They are those of the set, all of them in the course of time, and carry -1 and nothing known."""
    images = batches_of(tiles(8, 4, 5), AS_IT_IS, 3)
    seen = set()
    for number in range(1, 9):
        for batch in epoch(images, number=number, batch_size=4):
            assert batch.targets_BHW is not None
            unlabelled = batch.labels_B == -1
            assert unlabelled.tolist() == [False] * 4 + [True] * 3
            assert (batch.targets_BHW[unlabelled] == UNKNOWN).all()
            assert (batch.inputs[unlabelled][:, :, :8, :8] < -1.5).all()  # the dark square
            seen |= {image.numpy().tobytes() for image in batch.inputs[unlabelled]}
    assert len(seen) == 5
    assert all((batch.labels_B >= 0).all() for batch in images.in_order("val", 4))


@pytest.mark.parametrize("resident", [True, False])
def test_the_seed_decides_all_of_an_epoch(tiles: MakeTiles, resident: bool) -> None:
    """The same seed and epoch give the same bits, wherever the pixels are kept; others give others."""
    found = tiles(8, 4, 5)
    here, there = batches_of(found, CROPPED, 3), batches_of(found, CROPPED, 3, resident=resident)
    first = epoch(here)
    pairs = zip([*first, *here.in_order("val", 3)], [*epoch(there), *there.in_order("val", 3)], strict=True)
    for one, other in pairs:
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.labels_B, other.labels_B)
        assert one.targets_BHW is not None and other.targets_BHW is not None
        assert torch.equal(one.targets_BHW, other.targets_BHW)
    for seed, number in ((1, 1), (0, 2)):
        assert not torch.equal(epoch(here, seed, number)[0].inputs, first[0].inputs)


def test_a_view_without_crack_is_labelled_so(tiles: MakeTiles) -> None:
    """Of tiles whose pixels are known the view decides: what lies beside the crack is no crack."""
    images = batches_of(tiles(40, 4), CROPPED)
    labels, cracked = [], []
    for number in (1, 2):
        for batch in epoch(images, number=number):
            assert batch.targets_BHW is not None
            assert batch.targets_BHW.shape[1:] == (32, 32)
            labels.append(batch.labels_B)
            cracked.append((batch.targets_BHW == CRACK).flatten(1).any(1))
    assert torch.equal(torch.cat(labels), torch.cat(cracked).long())
    assert 5 < int(torch.cat(labels).sum()) < 39


@pytest.mark.parametrize(
    ("label", "codes", "expected"),
    [
        (1, (CRACK, CLEAN), 1),
        (1, (CRACK, UNKNOWN, SOMEWHERE), 1),
        (1, (CLEAN,), 0),
        (1, (SOMEWHERE,), 1),
        (1, (CLEAN, SOMEWHERE), 1),
        (1, (CLEAN, UNKNOWN), 1),
        (0, (CLEAN,), 0),
        (0, (CLEAN, UNKNOWN), 0),
        (-1, (UNKNOWN,), -1),
    ],
)
def test_label_of_a_view(tiles: MakeTiles, label: int, codes: tuple[int, ...], expected: int) -> None:
    """A known crack says 1, all known to be clean 0; where it is not known the tile's label holds."""
    found = tiles(8, 2)
    targets = np.random.default_rng(0).choice(np.array(codes, np.uint8), (10, 64, 64))
    images = batches_of(replace(found, labels_N=np.full(10, label), targets_NHW=targets), AS_IT_IS)
    (batch,) = epoch(images)
    assert batch.labels_B.tolist() == [expected] * 8


def test_a_set_without_codes_brings_none(tiles: MakeTiles) -> None:
    """Networks without a pixel head get batches of the set's labels, whatever a crop shows."""
    found = replace(tiles(16, 4), targets_NHW=None)
    images = batches_of(found, Augmentation("dihedral", 0, 0, (0.3, 0.5)))
    batches = [*epoch(images), *images.in_order("val", 4)]
    assert all(batch.targets_BHW is None for batch in batches)
    assert sum(int(batch.labels_B.sum()) for batch in batches) == 10
