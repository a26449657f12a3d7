"""Rendered concrete: determinism, crack widths, share of crack tiles, and no easy way out."""

from functools import cache

import cv2
import numpy as np
import pytest

from damcrack.files import InputError
from damcrack.sample.concrete import ConcretePhoto, encode_photo, render_photo
from damcrack.sample.cracks import crack_mask

pytestmark = pytest.mark.slow
DEMO_HW, SMALL_HW = (896, 1120), (224, 280)
TILE_PX, NUM_PHOTOS = 224, 20


@cache
def photo(index: int) -> ConcretePhoto:
    return render_photo(7, index, DEMO_HW)


@cache
def small(index: int) -> ConcretePhoto:
    return render_photo(7, index, SMALL_HW)


@cache
def tiles() -> tuple[np.ndarray, np.ndarray]:
    """Grey tiles (N, 224, 224) of the photos decoded from JPEG, and their crack fractions (N,)."""
    greys, fractions = [], []
    for index in range(NUM_PHOTOS):
        encoded = np.frombuffer(encode_photo(photo(index).rgb, index), np.uint8)
        grey = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
        for y in range(0, DEMO_HW[0], TILE_PX):
            for x in range(0, DEMO_HW[1], TILE_PX):
                box = np.s_[y : y + TILE_PX, x : x + TILE_PX]
                greys.append(grey[box])
                fractions.append((photo(index).mask[box] > 0).mean())
    return np.array(greys), np.array(fractions)


def best_balanced_accuracy(scores: np.ndarray, is_crack: np.ndarray) -> float:
    """The best that any threshold on `scores`, in either direction, reaches on these very tiles."""
    thresholds = np.quantile(scores, np.linspace(0, 1, 201))
    above = scores[None, :] >= thresholds[:, None]
    balanced = (above[:, is_crack].mean(axis=1) + 1 - above[:, ~is_crack].mean(axis=1)) / 2
    return float(max(balanced.max(), 1 - balanced.min()))


def test_photo_is_a_function_of_seed_index_and_size() -> None:
    """The same arguments give the same bytes, in one OpenCV thread or several; another index or seed others."""
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        first = render_photo(3, 5, (200, 260))
        cv2.setNumThreads(4)
        again = render_photo(3, 5, (200, 260))
    finally:
        cv2.setNumThreads(threads)
    assert np.array_equal(first.rgb, again.rgb)
    assert np.array_equal(first.mask, again.mask)
    assert encode_photo(first.rgb, 5) == encode_photo(again.rgb, 5)
    assert not np.array_equal(first.rgb, render_photo(3, 6, (200, 260)).rgb)
    assert not np.array_equal(first.rgb, render_photo(4, 5, (200, 260)).rgb)


@pytest.mark.parametrize("size_hw", [(64, 64), (225, 97), (301, 640)])
def test_any_size_is_drawn(size_hw: tuple[int, int]) -> None:
    """Odd and small sizes give an RGB photo and a 0/255 mask of that size."""
    drawn = render_photo(0, 1, size_hw)
    assert drawn.rgb.shape == (*size_hw, 3)
    assert drawn.rgb.dtype == drawn.mask.dtype == np.uint8
    assert drawn.mask.shape == size_hw
    assert set(np.unique(drawn.mask)) <= {0, 255}


def test_too_small_a_size_is_refused() -> None:
    """A side below 64 px is the user's fault."""
    with pytest.raises(InputError, match="64"):
        render_photo(0, 0, (40, 100))


def test_jpeg_quality_varies() -> None:
    """One picture under different indices is encoded with different strength."""
    sizes = {len(encode_photo(small(0).rgb, index)) for index in range(6)}
    assert len(sizes) > 3


def test_crack_widths_span_hairlines_to_forty_pixels() -> None:
    """No width leaves 0.4 to 40 px, most are a few pixels, and some photos in forty have a wide crack."""
    photos = [small(index) for index in range(40)]
    widths_px = [stroke.width_px for drawn in photos for stroke in drawn.cracks]
    assert 0.4 <= np.concatenate(widths_px).min() < 0.5
    assert np.concatenate(widths_px).max() <= 40
    assert 1 < np.median(np.concatenate(widths_px)) < 5
    wide = sum(max((stroke.width_px.max() for stroke in p.cracks), default=0) > 15 for p in photos)
    assert 2 <= wide <= 12


def test_mask_is_the_cracks_less_what_covers_them() -> None:
    """The mask never leaves the strokes' own mask: marks add nothing, spalls beside a crack neither."""
    covered = 0
    for index in range(30):
        strokes_mask = crack_mask(small(index).cracks, SMALL_HW)
        assert not (small(index).mask & ~strokes_mask).any()
        covered += not np.array_equal(small(index).mask, strokes_mask)
    assert 1 <= covered <= 15


def test_some_photos_have_no_crack() -> None:
    """About a quarter of the photos show sound concrete; however hostile its marks, its mask is empty."""
    sound = [small(index) for index in range(40) if not small(index).cracks]
    assert 4 <= len(sound) <= 18
    assert not any(drawn.mask.any() for drawn in sound)


def test_cracks_are_darker_than_what_is_beside_them() -> None:
    """The mask lies where the picture shows the crack: nearly always darker than 6 to 10 px away, lime aside."""
    differences = []
    for index in range(NUM_PHOTOS):
        mask, grey = photo(index).mask, cv2.cvtColor(photo(index).rgb, cv2.COLOR_RGB2GRAY)
        if mask.any():
            near, far = (cv2.dilate(mask, np.ones((size, size))) for size in (13, 21))
            differences.append(grey[(far > 0) & (near == 0)].mean() - grey[mask > 0].mean())
    assert np.mean(np.array(differences) > 3) >= 0.8
    assert np.median(differences) > 15


def test_share_of_crack_tiles_at_demo_size() -> None:
    """A third of the tiles hold enough crack, more than half none."""
    _, fractions = tiles()
    assert 0.3 < (fractions >= 0.002).mean() < 0.52
    assert (fractions == 0).mean() > 0.38


def test_brightness_thresholding_does_not_solve_the_sample() -> None:
    """Dark-pixel counts under the best global level, a level relative to each tile, or Otsu's stay below 85 %."""
    greys, fractions = tiles()
    clear = (fractions == 0) | (fractions >= 0.002)
    pixels, is_crack = greys[clear].reshape(clear.sum(), -1), fractions[clear] > 0
    medians = np.median(pixels, axis=1, keepdims=True)
    scores = [(pixels < level).mean(axis=1) for level in range(20, 160, 20)]
    scores += [(pixels < share * medians).mean(axis=1) for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
    otsu = [cv2.threshold(tile, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0] for tile in greys[clear]]
    scores.append((pixels <= np.array(otsu)[:, None]).mean(axis=1))
    assert max(best_balanced_accuracy(score, is_crack) for score in scores) < 0.85


def test_larger_photos_have_more_cracks() -> None:
    """The number of cracks grows with the area: four times the wall, about four times the crack."""
    quarters = sum(np.count_nonzero(render_photo(7, index, (448, 560)).mask) for index in range(NUM_PHOTOS))
    whole = sum(np.count_nonzero(photo(index).mask) for index in range(NUM_PHOTOS))
    assert 2 < whole / quarters < 8
