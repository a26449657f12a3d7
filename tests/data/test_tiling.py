import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damcrack.data.tiling import crack_fractions, tile_boxes_xyxy
from damcrack.files import PhotoError


@st.composite
def sizes(draw: st.DrawFn) -> tuple[tuple[int, int], int]:
    """Height and width of a photo from one tile upwards, and its tile size."""
    tile_px = draw(st.integers(1, 24))
    return (draw(st.integers(tile_px, 70)), draw(st.integers(tile_px, 70))), tile_px


@given(sizes())
def test_every_pixel_is_in_a_tile(size: tuple[tuple[int, int], int]) -> None:
    """Without overlap and with one."""
    size_hw, tile_px = size
    for overlap in (0.0, 0.5):
        covered = np.zeros(size_hw, bool)
        for x0, y0, x1, y1 in tile_boxes_xyxy(size_hw, tile_px, overlap):
            covered[y0:y1, x0:x1] = True
        assert covered.all()


@given(sizes())
def test_boxes_are_whole_tiles_inside_the_photo_in_reading_order(size: tuple[tuple[int, int], int]) -> None:
    """Every box is tile_px square, inside the photo, no two are equal, and rows have equally many."""
    (height, width), tile_px = size
    boxes = tile_boxes_xyxy((height, width), tile_px)
    assert (boxes[:, 2:] - boxes[:, :2] == tile_px).all()
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= (width, height)).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    grid = boxes.reshape(-1, -(-width // tile_px), 4)
    assert (grid[:, :, 1] == grid[:, :1, 1]).all()
    assert (np.diff(grid[:, :, 0], axis=1) > 0).all()


@given(sizes(), st.integers(0, 99))
@settings(max_examples=30)
def test_crack_fractions_are_the_means_of_the_tiles(size: tuple[tuple[int, int], int], seed: int) -> None:
    """Counting gives what averaging each tile of the mask gives."""
    size_hw, tile_px = size
    mask = np.where(np.random.default_rng(seed).random(size_hw) > 0.7, np.uint8(255), np.uint8(0))
    boxes = tile_boxes_xyxy(size_hw, tile_px)
    expected = [(mask[y0:y1, x0:x1] > 0).mean() for x0, y0, x1, y1 in boxes]
    assert np.array_equal(crack_fractions(mask, boxes), expected)


def test_a_twelve_megapixel_photo_gives_18_by_14_tiles() -> None:
    """4032x3024 at 224 px is 252 tiles; the last row is shifted inward to end at the last pixel."""
    boxes = tile_boxes_xyxy((3024, 4032), 224)
    assert boxes.shape == (252, 4)
    assert len(np.unique(boxes[:, 0])) == 18
    assert boxes[0].tolist() == [0, 0, 224, 224]
    assert boxes[-1].tolist() == [3808, 2800, 4032, 3024]


@pytest.mark.parametrize("size_hw", [(10, 9), (9, 10), (0, 0)])
def test_a_photo_smaller_than_a_tile_is_refused(size_hw: tuple[int, int]) -> None:
    """Either side below tile_px is an error that names both sizes."""
    with pytest.raises(PhotoError, match=f"{size_hw[1]}x{size_hw[0]} px is smaller than one tile of 10"):
        tile_boxes_xyxy(size_hw, 10)
