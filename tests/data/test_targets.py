"""What masks of each quality teach, pixel by pixel."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from damcrack.data.targets import (
    CLEAN,
    CRACK,
    FAT_RIM_PX,
    SOMEWHERE,
    UNKNOWN,
    decode_targets,
    encode_targets,
    targets_of,
)

Pixels = npt.NDArray[np.uint8]
CODES = (CLEAN, UNKNOWN, SOMEWHERE, CRACK)
MASKS = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40)).map(
    lambda drawn: blobs(*drawn)
)


def blobs(seed: int, height: int, width: int) -> Pixels:
    """A mask of patches and threads: noise, smoothed and cut."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 1.5)
    return (noise > 0.1).astype(np.uint8) * np.uint8(255)


def bar(thickness: int) -> Pixels:
    """A horizontal bar through the middle of 40 x 40 pixels."""
    mask = np.zeros((40, 40), np.uint8)
    mask[20 : 20 + thickness] = 255
    return mask


@given(mask=MASKS)
def test_exact_masks_teach_every_pixel(mask: Pixels) -> None:
    """Crack where the mask is, clean elsewhere, whatever value marks the crack."""
    assert np.array_equal(targets_of(mask, "exact"), mask)
    assert np.array_equal(targets_of(mask // 255, "exact"), mask)


@given(mask=MASKS)
def test_boxes_say_somewhere(mask: Pixels) -> None:
    """No pixel of a box is known to be crack."""
    assert np.array_equal(targets_of(mask, "boxes"), np.where(mask, SOMEWHERE, CLEAN))


@given(mask=MASKS)
def test_fat_masks_agree_with_distances(mask: Pixels) -> None:
    """Crack deep inside, clean far outside; the rim and what has no core between teach neither."""
    codes, inside = targets_of(mask, "fat"), mask > 0
    to_outside = ndimage.distance_transform_edt(np.pad(inside, 9, mode="edge"))[9:-9, 9:-9]
    to_inside = ndimage.distance_transform_edt(~inside) if inside.any() else np.full(mask.shape, 99.0)
    assert set(np.unique(codes)) <= set(CODES)
    assert ((codes == CRACK) <= inside).all()
    assert (codes[inside & (to_outside > FAT_RIM_PX + 1)] == CRACK).all()
    assert (codes[to_inside > FAT_RIM_PX + 1] == CLEAN).all()
    assert (codes[inside] != CLEAN).all()
    assert (codes[~inside & (to_inside <= FAT_RIM_PX)] == UNKNOWN).all()
    assert ((codes == SOMEWHERE) <= inside).all()


@pytest.mark.parametrize(("thickness", "core_px"), [(5, 1), (6, 2), (11, 7)])
def test_a_fat_bar_keeps_its_middle(thickness: int, core_px: int) -> None:
    """Two pixels at each edge are unknown, inside and outside; the rest is crack or clean."""
    column = targets_of(bar(thickness), "fat")[:, 7]
    expected = np.zeros(40, np.uint8)
    expected[20 - FAT_RIM_PX : 20 + thickness + FAT_RIM_PX] = UNKNOWN
    expected[20 + FAT_RIM_PX : 20 + FAT_RIM_PX + core_px] = CRACK
    assert np.array_equal(column, expected)


@pytest.mark.parametrize("thickness", [1, 4])
def test_a_line_too_thin_for_a_core_is_somewhere(thickness: int) -> None:
    """A mask of up to four pixels has no middle: the crack runs somewhere in it, and no pixel is known."""
    column = targets_of(bar(thickness), "fat")[:, 7]
    assert (column[20 : 20 + thickness] == SOMEWHERE).all()
    assert np.bincount(column, minlength=256)[[UNKNOWN, CRACK]].tolist() == [2 * FAT_RIM_PX, 0]


def test_a_thread_beside_a_patch_is_somewhere_beyond_the_patch_s_rim() -> None:
    """A patch with a core does not speak for the thin line that leaves it."""
    mask = bar(1)
    mask[12:28, :12] = 255
    codes = targets_of(mask, "fat")
    assert codes[20, 5] == CRACK
    assert codes[20, 11] == UNKNOWN
    assert (codes[20, 20:] == SOMEWHERE).all()


def test_an_empty_mask_is_clean() -> None:
    """No crack, nothing unknown, whatever the quality."""
    for quality in ("exact", "fat", "boxes"):
        assert not targets_of(np.zeros((7, 9), np.uint8), quality).any()


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40))
def test_codes_survive_their_file(seed: int, height: int, width: int) -> None:
    """Codes come back exactly, of any size."""
    codes = np.random.default_rng(seed).choice(np.array(CODES, np.uint8), (height, width))
    assert np.array_equal(decode_targets(encode_targets(codes)), codes)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_a_file_cut_short_is_none(share: float) -> None:
    """Wherever it ends, nothing included, there is no picture."""
    file = encode_targets(np.random.default_rng(0).choice(np.array(CODES, np.uint8), (64, 64)))
    assert decode_targets(file[: int(share * len(file))]) is None


def test_a_changed_byte_is_none() -> None:
    """A file with other content than its checksums say is not read."""
    file = bytearray(encode_targets(np.random.default_rng(0).choice(np.array(CODES, np.uint8), (64, 64))))
    file[len(file) // 2] ^= 16
    assert decode_targets(bytes(file)) is None
