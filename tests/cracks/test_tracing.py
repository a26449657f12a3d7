"""From the crack map of a photo to its masks and cracks, region by region."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.photo import Rules, Tracing, look_at
from damcrack.cracks.segment import crack_masks
from damcrack.files import InputError
from damcrack.inspection.config import InspectConfig
from damcrack.params import validate
from walls import DARK, concrete, coverage, line, photo, rgb, write_darkness_detector


def rules(**values):
    return replace(Rules.of(InspectConfig(scales=(1.0,))), **values)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return OnnxDetector.load(write_darkness_detector(tmp_path_factory.mktemp("model") / "model.onnx"))


def looked_at(image, detector, how):
    with ThreadPoolExecutor(2) as workers:
        return look_at(image, detector, how, workers)


def scattered(seed, size_hw, num_lines):
    """A crack map with lines of all directions, lengths and probabilities, some close to each other."""
    rng = np.random.default_rng(seed)
    crack_map = np.zeros([-(-length // 2) for length in size_hw], np.float32)
    for _ in range(num_lines):
        x, y, angle, length = rng.uniform((0, 0, 0, 3), (*crack_map.shape[::-1], 2 * np.pi, 60))
        end = (int(x + length * np.cos(angle)), int(y + length * np.sin(angle)))
        cv2.line(crack_map, (int(x), int(y)), end, float(rng.uniform(0.2, 1)), int(rng.integers(1, 5)))
    return crack_map


@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(40, 400), st.integers(40, 400)),
    st.integers(0, 25),
    st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_regions_give_the_masks_of_the_whole_photo(seed, size_hw, num_lines, join_px):
    """Traced part by part, each crack in one part only, the masks are those of the whole map at once."""
    crack_map = scattered(seed, size_hw, num_lines)
    called = (np.random.default_rng(seed).random(size_hw) < 0.001).astype(np.uint8)
    corners = np.argwhere(called)[:, ::-1]
    boxes = np.hstack([corners, corners + 1])
    how = rules(join_px=join_px)
    tracing = Tracing(np.full((*size_hw, 3), 128, np.uint8), crack_map, boxes, how)
    found = np.zeros((2, *size_hw), np.uint8)
    for region in tracing.regions:
        traced = tracing.trace(region)
        x0, y0, x1, y1 = traced.box
        assert not (found[:, y0:y1, x0:x1] & np.stack(traced.masks)).any()
        found[:, y0:y1, x0:x1] |= np.stack(traced.masks)
    full_wh = 2 * crack_map.shape[1], 2 * crack_map.shape[0]
    full = cv2.resize(crack_map, full_wh, interpolation=cv2.INTER_LINEAR)[: size_hw[0], : size_hw[1]]
    np.testing.assert_array_equal(found, np.stack(crack_masks(full, called, how.segmentation)))


@pytest.mark.parametrize("size_hw", [(341, 453), (700, 345), (640, 1040)])
def test_one_crack_across_blocks_and_windows_is_one(detector, size_hw):
    """Its length and width are those that were drawn, in photos of every shape."""
    height, width = size_hw
    ends = line(np.array([width / 2, height / 2]), 30, 0.9 * min(size_hw))
    image = rgb(photo(concrete(size_hw, pores=False), coverage(size_hw, ends, 6.0)))
    (crack,) = looked_at(image, detector, rules()).cracks
    assert crack.length_px == pytest.approx(0.9 * min(size_hw), abs=10)
    assert crack.width_px == pytest.approx(6, abs=0.5)


def test_pieces_that_are_close_are_one_crack(detector):
    """Across a gap of `join_px`, whichever region they are in."""
    size_hw = (300, 500)
    covers = [coverage(size_hw, [(x0, 150), (x0 + 180, 150)], 6.0) for x0 in (50, 244)]
    image = rgb(photo(concrete(size_hw, pores=False), *covers))
    assert len(looked_at(image, detector, rules(join_px=31)).cracks) == 1
    assert len(looked_at(image, detector, rules(join_px=5)).cracks) == 2


def test_a_crack_that_touches_no_cracked_block_is_possible_only(detector):
    """Masks and cracks follow the blocks; a faint line is remembered in every block."""
    size_hw = (224, 448)
    image = rgb(photo(concrete(size_hw, pores=False), coverage(size_hw, [(20, 50), (100, 50)], 8.0)))
    found = looked_at(image, detector, rules(threshold=1 - 1e-7))
    assert found.verdict == "no crack"
    assert found.levels.max() == 1
    assert not found.cracks
    assert looked_at(image, detector, rules()).levels.max() == 2


@pytest.mark.parametrize("grey", [0, 94, 128])
def test_a_photo_of_one_grey_is_no_failure(detector, grey):
    """All crack, all doubt, nothing; widths are finite."""
    found = looked_at(np.full((130, 240, 3), grey, np.uint8), detector, rules())
    assert (found.levels == 2).mean() == (grey < 95)
    assert all(np.isfinite(crack.samples).all() for crack in found.cracks)


def test_a_wall_without_a_crack_has_none(detector):
    """Blotches, pores and grain."""
    found = looked_at(rgb(photo(concrete((400, 600)))), detector, rules())
    assert found.verdict == "no crack"
    assert not found.levels.any()


@pytest.mark.parametrize(
    ("size_hw", "scales"),
    [((1000, 2500), (2.0, 1.0, 0.5)), ((1001, 2500), (1.0, 0.5)), ((1, 1), (2.0, 1.0, 0.5))],
)
def test_a_photo_of_many_pixels_is_not_enlarged(size_hw, scales):
    """Up to 2.5 megapixels it is."""
    assert Rules.of(InspectConfig()).scales_of(size_hw) == scales


def test_a_small_photo_is_looked_at_at_double_size_and_a_large_one_is_not(detector):
    """A line of one pixel, which is averaged away at full size, is found in the one alone."""
    image = np.full((300, 400, 3), DARK + 50, np.uint8)
    image[151] = DARK - 30
    small, large = (
        looked_at(image, detector, rules(scales=(2.0, 1.0), double_megapixels=limit))
        for limit in (0.12, 0.11)
    )
    assert small.levels.any()
    assert not large.levels.any()


@pytest.mark.parametrize("scales", [(), (0.7,), (3.0, 1.0), (1.5, 1.0), (0.0,), (2.0, 0.5), (-1.0,)])
def test_scales_at_which_no_photo_can_be_seen_are_refused(scales):
    """Twice, once, or an even share of it; and twice only beside once, with which it is averaged."""
    with pytest.raises(InputError, match="scales"):
        validate("inspect", {"scales": scales}, InspectConfig)
