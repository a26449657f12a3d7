"""Augmentation and normalisation."""

from collections.abc import Callable

import pytest
import torch

from damcrack.train.augment import augment, draw, normalise
from damcrack.train.config import Appearance, Augmentation

IMAGES = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)


def turn(batch: torch.Tensor, how: Augmentation, seed: int = 0) -> torch.Tensor:
    return augment(batch, how, draw(len(batch), how, seed))[0]


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


def test_a_crop_shows_a_part_and_a_wider_view_shows_mirrors() -> None:
    """At scale s a view spans s of the side: a ramp rises by that much; beyond the border it turns back."""
    ramp = torch.arange(64.0).expand(8, 1, 64, 64)
    for scale in (0.5, 0.75):
        view = turn(ramp, Augmentation("none", 0, 0, (scale, scale)))
        rise = (view[:, 0, 32, 63] - view[:, 0, 32, 0]) / 63
        assert torch.allclose(rise, torch.full((8,), scale), atol=1e-4)
    wide = turn(ramp, Augmentation("none", 0, 0, (2.0, 2.0)))
    assert torch.allclose(wide[0, 0, 32, :16].flip(0), wide[0, 0, 32, 16:32], atol=1e-3)


def test_crops_reach_all_of_the_image_and_never_leave_it() -> None:
    """Crops lie anywhere inside: corners are reached, and no mirrored border is shown."""
    ramp = torch.arange(64.0).expand(400, 1, 64, 64)
    view = turn(ramp, Augmentation("none", 0, 0, (0.5, 1.0)))[:, 0, 32]
    assert view.min() < 2
    assert view.max() > 61
    assert (view[:, 1:-1].diff(dim=1) > 0.45).all()  # a border pixel may lie half outside


def test_appearance_keeps_the_geometry_and_the_range() -> None:
    """Light, colour, focus and grain change values by their size; an edge stays where it is, grey loses all colour."""
    half = torch.zeros(64, 3, 32, 32)
    half[:, :, :, 16:] = torch.tensor([200.0, 150.0, 100.0])[:, None, None]
    plain = turn(half, Augmentation("none", 0, 0, appearance=Appearance(0, 0, 0, 0)))
    assert torch.allclose(plain, half, atol=1e-3)
    grey = turn(half, Augmentation("none", 0, 0, appearance=Appearance(0, 1, 0, 0)))
    assert torch.allclose(grey[:, 0], grey[:, 2], atol=1e-3)
    luma = 0.299 * 200 + 0.587 * 150 + 0.114 * 100
    assert torch.allclose(grey[0, 0, 0, 20], torch.tensor(luma), atol=1e-2)
    changed = turn(half, Augmentation("none", 0, 0, appearance=Appearance(0.4, 0.2, 0.5, 10.0)))
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert (changed[:, :, :, 20:].mean(dim=(1, 2, 3)) > changed[:, :, :, :12].mean(dim=(1, 2, 3))).all()


@pytest.mark.parametrize(("jitter", "noise"), [(0.3, 0.0), (0.0, 12.0)])
def test_strengths_are_what_they_say(jitter: float, noise: float) -> None:
    """Jitter moves the mean within its share of it; grain has a deviation up to `noise` in grey values."""
    flat = torch.full((500, 3, 24, 24), 120.0)
    changed = turn(flat, Augmentation("none", 0, 0, appearance=Appearance(jitter, 0, 0, noise)))
    means, deviations = changed.mean(dim=(1, 2, 3)), changed.std(dim=(1, 2, 3))
    assert (means / 120 - 1).abs().max() <= jitter + 0.02
    assert means.std() > 0.8 * 120 * jitter / 3**0.5 - 0.1
    assert deviations.max() <= 1.1 * noise + 1e-3
    assert deviations.mean() > 0.4 * noise - 1e-3


def test_grain_differs_between_images_and_draws_are_the_same_again() -> None:
    """Two images of one batch have other grain; the same seed gives the same pixels."""
    flat = torch.full((8, 3, 24, 24), 120.0)
    how = Augmentation("none", 0, 0, appearance=Appearance(0, 0, 0, 9.0))
    first = turn(flat, how)
    assert not torch.allclose(first[0] - 120, first[1] - 120, atol=1.0)
    assert torch.equal(first, turn(flat, how))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Augmentation("none", 0, 0, (1.0, 0.5)), "smaller first"),
        (lambda: Augmentation(scales=(0.0, 1.0)), "scales"),
        (lambda: Appearance(jitter=1.2, grey=0, blur=0, noise=0), "jitter"),
        (lambda: Appearance(jitter=0, grey=0, blur=0, noise=-1), "noise"),
        (lambda: Augmentation(view_px=16), "view_px"),
        (lambda: Augmentation(view_px=100), "multiple of 32"),
        (lambda: Augmentation(focus=1.5), "focus"),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], object], word: str) -> None:
    """A wrong strength says which one it is."""
    with pytest.raises(ValueError, match=word):
        make()
