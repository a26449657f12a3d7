"""Augmentation and normalisation."""

import pytest
import torch

from damcrack.engine.augment import Augmentation, augment, draw, normalise

IMAGES = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)


def turn(batch: torch.Tensor, how: Augmentation, seed: int = 0) -> torch.Tensor:
    return augment(batch, how, draw(len(batch), how, seed))


def turned(flips: str, num: int = 400) -> set[bytes]:
    result = turn(IMAGES[:1].repeat(num, 1, 1, 1), Augmentation(flips, 0, 0))  # type: ignore[arg-type]
    return {image.numpy().tobytes() for image in result}


@pytest.mark.parametrize(("flips", "count"), [("none", 1), ("horizontal", 2), ("dihedral", 8)])
def test_flips_reach_exactly_their_symmetries(flips: str, count: int) -> None:
    """All and only the symmetries of the choice appear: one, two, or the square's eight."""
    image = IMAGES[0]
    square = [turned for k in range(4) for turned in (image.rot90(k, (1, 2)), image.rot90(k, (1, 2)).flip(2))]
    allowed = {symmetry.numpy().tobytes() for symmetry in square}
    seen = turned(flips)
    assert len(seen) == count
    assert seen <= allowed


def test_images_draw_for_themselves() -> None:
    """Two copies of an image in one batch are turned differently somewhere."""
    batch = IMAGES[:1].repeat(32, 1, 1, 1)
    result = turn(batch, Augmentation("dihedral", 0, 0), seed=1)
    assert len({image.numpy().tobytes() for image in result}) > 1


def test_no_rotation_and_shift_keep_the_pixels_exact() -> None:
    """Without resampling the type and all grey values stay."""
    result = turn(IMAGES, Augmentation("none", 0, 0))
    assert torch.equal(result, IMAGES)


def test_whole_pixel_shift_moves_the_picture() -> None:
    """A resampling shift moves content by pixels, not by fractions of the image."""
    image = torch.zeros(64, 1, 33, 33)
    image[:, :, 16, 16] = 1
    result = turn(image, Augmentation("none", 0, 4.0), seed=0)
    columns = torch.arange(33.0)
    centre = (result.sum(dim=(1, 2)) * columns).sum(dim=1) / result.sum(dim=(1, 2, 3))
    assert (centre - 16).abs().max() <= 4.01
    assert (centre - 16).abs().max() > 2


def test_normalised_channels_have_the_wanted_scale() -> None:
    """Grey value 255 * mean becomes 0, one deviation above becomes 1."""
    mean, std = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.1, 0.2, 0.3])
    image = ((mean + std) * 255)[None, :, None, None]
    assert torch.allclose(normalise(image, mean, std), torch.ones(1, 3, 1, 1), atol=1e-5)


def test_an_image_keeps_its_draws_in_any_batch() -> None:
    """Draws belong to the image, not to its place in a batch: cut into other batches it looks the same."""
    how = Augmentation("dihedral", 10.0, 2.0)
    draws, order = draw(4, how, seed=3), torch.tensor([2, 0, 3, 1])
    batch = torch.rand(4, 3, 16, 16) * 255
    whole = augment(batch, how, draws)
    parts = [augment(batch[rows], how, draws.of(rows)) for rows in order.split(2)]
    assert torch.equal(torch.cat(parts), whole[order])
