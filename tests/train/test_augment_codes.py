"""Codes of pixels move with their images."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from damcrack.data.targets import CLEAN, CRACK, SOMEWHERE, UNKNOWN
from damcrack.train.augment import Draws, augment, draw
from damcrack.train.config import Appearance, Augmentation

SIDE = 64


def drawn_lines(num: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Black tiles with one white line of 4 px each, and the codes that say so."""
    generator = torch.Generator().manual_seed(5)
    rows, columns = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    angles = torch.rand(num, 1, 1, generator=generator) * 3.14
    ends = torch.rand(num, 2, 1, 1, generator=generator)
    away = (columns - ends[:, 0] * side) * angles.sin() - (rows - ends[:, 1] * side) * angles.cos()
    lines = away.abs() < 2
    assert lines.flatten(1).any(1).all()
    return (lines[:, None] * 255).to(torch.uint8).expand(-1, 3, -1, -1), (lines * CRACK).to(torch.uint8)


def both(images: Tensor, codes: Tensor, how: Augmentation, seed: int = 0) -> tuple[Tensor, Tensor]:
    views, moved = augment(images, how, draw(len(images), how, seed), codes)
    assert moved is not None
    return views, moved


WAYS = {
    "none": Augmentation("none", 0, 0),
    "mirrored": Augmentation("horizontal", 0, 0),
    "all eight symmetries": Augmentation("dihedral", 0, 0),
    "turned and shifted": Augmentation("dihedral", 30.0, 6.0),
    "cropped": Augmentation("dihedral", 0, 0, (0.4, 0.9)),
    "from further away": Augmentation("dihedral", 0, 0, (1.0, 2.0)),
    "smaller views": Augmentation("dihedral", 10.0, 2.0, (0.5, 1.2), view_px=32),
    "larger views": Augmentation("dihedral", 10.0, 2.0, (0.5, 1.2), view_px=96),
    "focused": Augmentation("dihedral", 10.0, 2.0, (0.5, 1.2), view_px=32, focus=1.0),
}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_codes_move_with_the_image(how: Augmentation) -> None:
    """Where the code says crack the picture is bright, where it is bright the code says crack, within a pixel."""
    images, codes = drawn_lines(48)
    views, moved = both(images, codes, how)
    side = how.view_px or SIDE
    assert views.shape == (48, 3, side, side)
    assert moved.shape == (48, side, side)
    assert moved.dtype == torch.uint8
    crack, bright = moved == CRACK, views[:, 0].float()
    near = max_pool2d(crack[:, None].float(), 3, 1, 1)[:, 0] > 0
    assert crack.any()
    assert (bright[~near] < 128).float().mean() > 0.9999
    # Averaged from far away an edge is dim, and its code is the higher one of its pixels.
    assert bright[crack].mean() > 190
    assert bright[~crack].mean() < 3
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    shifted = [(crack.roll(step, (1, 2)) * 255.0 - bright).abs()[:, 2:-2, 2:-2].mean() for step in steps]
    assert min(zip(shifted, steps, strict=True))[1] == (0, 0)


def test_without_resampling_the_images_are_those_of_augment() -> None:
    """The same draws give the same pixels, with codes or without."""
    images, codes = drawn_lines(16)
    for how in (WAYS["all eight symmetries"], WAYS["turned and shifted"], WAYS["from further away"]):
        draws = draw(16, how, 3)
        assert torch.equal(augment(images, how, draws, codes)[0], augment(images, how, draws)[0])


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_codes_are_never_mixed(how: Augmentation) -> None:
    """However a view is resampled, its codes are codes."""
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([CLEAN, UNKNOWN, SOMEWHERE, CRACK], dtype=torch.uint8)
    codes = values[torch.randint(4, (8, SIDE, SIDE), generator=generator)]
    _, moved = both(codes[:, None].expand(-1, 3, -1, -1), codes, how)
    assert set(moved.unique().tolist()) <= set(values.tolist())


def test_appearance_leaves_the_codes() -> None:
    """Light, colour, softness and grain change the picture alone."""
    images, codes = drawn_lines(8)
    plain = Augmentation("dihedral", 10.0, 0, (0.5, 1.0))
    look = Augmentation("dihedral", 10.0, 0, (0.5, 1.0), Appearance(0.4, 0.5, 1.0, 20.0))
    (views, moved), (changed, kept) = both(images, codes, plain), both(images, codes, look)
    assert torch.equal(moved, kept)
    assert not torch.equal(views, changed)


def dots(num: int, side: int) -> Tensor:
    """Codes with a crack of 3 x 3 px at a place of its own, corners included."""
    codes = torch.zeros(num, side, side, dtype=torch.uint8)
    places = torch.randint(side - 2, (num, 2), generator=torch.Generator().manual_seed(1))
    corners = torch.tensor([[0, 0], [0, side - 3], [side - 3, 0], [side - 3, side - 3]])
    places[: 4 * (num // 8)] = corners.repeat(num // 8, 1)
    for code, (row, column) in zip(codes, places.tolist(), strict=True):
        code[row : row + 3, column : column + 3] = CRACK
    return codes


@pytest.mark.parametrize("view_px", [None, 64])
@pytest.mark.parametrize("rotate_deg", [0.0, 20.0, 180.0])
def test_a_focused_view_shows_a_crack(rotate_deg: float, view_px: int | None) -> None:
    """With focus 1, wherever in the tile the crack lies and however the view is turned and shifted."""
    codes = dots(200, 128)
    how = Augmentation("dihedral", rotate_deg, 5.0, (0.4, 0.9), view_px=view_px, focus=1.0)
    _, moved = both(codes[:, None].expand(-1, 3, -1, -1), codes, how)
    shown = (moved == CRACK).flatten(1).any(1)
    assert shown.all(), f"{int((~shown).sum())} of {len(shown)} views show none"


def test_focus_is_the_share_of_views_laid_around_a_crack() -> None:
    """Without it few small crops meet a small crack; with a half, half of the others do too."""
    codes = dots(400, 64)
    shares = []
    for focus in (0.0, 0.5, 1.0):
        how = Augmentation("none", 0, 0, (0.5, 0.5), focus=focus)
        _, moved = both(codes[:, None].expand(-1, 3, -1, -1), codes, how)
        shares.append((moved == CRACK).flatten(1).any(1).float().mean().item())
    assert shares[0] < 0.5
    assert shares[1] == pytest.approx((shares[0] + 1) / 2, abs=0.06)
    assert shares[2] == 1


def test_focus_keeps_to_the_image_and_leaves_tiles_without_a_crack() -> None:
    """Unturned crops show no mirrored border; where nothing is known to be crack the draw alone decides."""
    codes = dots(200, 128)
    ramp = torch.arange(128.0).expand(200, 3, 128, 128)
    how, plain = (Augmentation("none", 0, 0, (0.3, 0.8), focus=focus) for focus in (1.0, 0.0))
    views, _ = both(ramp, codes, how)
    assert (views[:, 0, 64, 1:-1].diff(dim=1) > 0.25).all()
    somewhere = torch.where(codes > 0, SOMEWHERE, CLEAN).to(torch.uint8)
    assert torch.equal(both(ramp, somewhere, how)[0], both(ramp, somewhere, plain)[0])


def test_focus_reaches_every_part_of_a_crack() -> None:
    """Views are spread along the crack and not always centred on it."""
    codes = torch.zeros(400, 128, 128, dtype=torch.uint8)
    codes[:, 60:64] = CRACK
    ramp = torch.arange(128.0).expand(400, 3, 128, 128)
    views, moved = both(ramp, codes, Augmentation("none", 0, 0, (0.3, 0.3), focus=1.0))
    assert views[:, 0].min() < 2
    assert views[:, 0].max() > 125
    line = (moved == CRACK).float().argmax(dim=1)[:, 64]
    assert line.max() - line.min() > 50


def test_draws_are_the_same_again_and_in_any_batch() -> None:
    """The seed decides every view, and a tile keeps its draws in whatever batch it comes."""
    images, codes = drawn_lines(12)
    how = Augmentation("dihedral", 10.0, 2.0, (0.5, 1.2), Appearance(0.4, 0.2, 0.5, 10.0), 32, 0.5)
    draws, order = draw(12, how, 1), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    whole = augment(images, how, draws, codes)
    parts = [augment(images[rows], how, draws.of(rows), codes[rows]) for rows in order.split(5)]
    for number in (0, 1):
        assert torch.equal(torch.cat([part[number] for part in parts]), whole[number][order])
        assert torch.equal(both(images, codes, how, 1)[number], whole[number])
        assert not torch.equal(both(images, codes, how, 2)[number], whole[number])


def test_focus_is_drawn_last() -> None:
    """A seed's other draws are those of a time without focus."""
    plain, focused = (draw(8, Augmentation("dihedral", 10.0, 2.0, focus=focus), 3) for focus in (0.0, 1.0))
    assert all(torch.equal(one, other) for one, other in zip(plain, focused, strict=True))
    assert Draws._fields[-1] == "focus_N2"
