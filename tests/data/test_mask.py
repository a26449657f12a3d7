import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from damcrack.data import mask as module
from damcrack.data.mask import decode_stored_mask, encode_mask
from damcrack.data.photo import decode_mask

MEGAPIXEL = 10**6


def cracks(height: int = 21, width: int = 37) -> np.ndarray:
    """A random mask of 0 and 255, always the same."""
    return np.random.default_rng(3).integers(0, 2, (height, width), dtype=np.uint8) * np.uint8(255)


def as_png(mask: np.ndarray, mode: str, **options: object) -> bytes:
    """Encode with Pillow."""
    file = io.BytesIO()
    Image.fromarray(mask).convert(mode).save(file, "PNG", **options)
    return file.getvalue()


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_stored_masks_are_one_bit_pngs_and_come_back_exactly(seed: int, height: int, width: int) -> None:
    """Of any size: Pillow reads a one-bit image of the same pixels, and so does our own reader."""
    mask = np.random.default_rng(seed).integers(0, 2, (height, width), dtype=np.uint8) * np.uint8(255)
    file = encode_mask(mask)
    opened = Image.open(io.BytesIO(file))
    assert opened.mode == "1"
    assert np.array_equal(np.asarray(opened.convert("L")), mask)
    assert np.array_equal(decode_stored_mask(file, MEGAPIXEL), mask)


def test_every_damage_of_a_stored_mask_is_seen() -> None:
    """Whichever byte changes or wherever the file ends, our own reader does not take it."""
    file = encode_mask(cracks())
    changed = [file[:at] + bytes([file[at] ^ 16]) + file[at + 1 :] for at in range(len(file))]
    assert not [at for at, other in enumerate(changed) if decode_stored_mask(other, MEGAPIXEL) is not None]
    assert not [end for end in range(len(file)) if decode_stored_mask(file[:end], MEGAPIXEL) is not None]
    assert decode_stored_mask(file + b"\0", MEGAPIXEL) is None


@pytest.mark.parametrize(
    "data",
    [
        zlib.compress(bytes(21 * 6 - 1)),
        zlib.compress(bytes(21 * 6 + 1)),
        zlib.compress(bytes(10**6)),
        zlib.compress(b"\1" * 21 * 6),
        zlib.compress(bytes(21 * 6)) + b"more",
        b"no deflate stream",
    ],
)
def test_contents_that_do_not_fit_the_header_are_left_to_others(data: bytes) -> None:
    """Too few or many rows, filtered rows and trailing bytes, under right checksums."""
    assert decode_stored_mask(module._png((21, 37), data), MEGAPIXEL) is None


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_pngs_of_other_writers_are_read_as_before(mode: str) -> None:
    """Pillow's own PNGs, one-bit ones with transparency or metadata too, give the same mask."""
    options = {"transparency": 0} if mode == "1" else {"dpi": (300, 300)}
    file = as_png(cracks(), mode, **options)
    assert decode_stored_mask(file, MEGAPIXEL) is None
    assert np.array_equal(decode_mask(file, MEGAPIXEL), cracks())


def test_a_stored_mask_over_the_limit_is_not_unpacked() -> None:
    """The size is read before the content."""
    assert decode_stored_mask(encode_mask(cracks()), 21 * 37 - 1) is None
    assert decode_stored_mask(encode_mask(cracks()), 21 * 37) is not None
