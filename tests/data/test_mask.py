import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from damcrack.data.photo import decode_mask, encode_mask
from damcrack.files import PhotoError

MEGAPIXEL = 10**6


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_stored_masks_are_one_bit_pngs_and_come_back_exactly(seed: int, height: int, width: int) -> None:
    """Of any size."""
    mask = np.random.default_rng(seed).integers(0, 2, (height, width), dtype=np.uint8) * np.uint8(255)
    file = encode_mask(mask)
    assert Image.open(io.BytesIO(file)).mode == "1"
    assert np.array_equal(decode_mask(file, MEGAPIXEL), mask)


def test_damage_to_a_stored_mask_never_changes_it_silently() -> None:
    """Whichever byte changes or wherever the file ends, the same mask comes out or an error."""
    mask = np.random.default_rng(3).integers(0, 2, (21, 37), dtype=np.uint8) * np.uint8(255)
    file = encode_mask(mask)
    changed = [file[:at] + bytes([file[at] ^ 16]) + file[at + 1 :] for at in range(len(file))]
    refused = 0
    for damaged in changed + [file[:end] for end in range(len(file))]:
        try:
            assert np.array_equal(decode_mask(damaged, MEGAPIXEL), mask)
        except PhotoError:
            refused += 1
    assert refused > len(file)


def test_a_mask_over_the_limit_is_refused() -> None:
    """The size is read before the content."""
    mask = np.full((21, 37), 255, np.uint8)
    with pytest.raises(PhotoError, match="megapixels"):
        decode_mask(encode_mask(mask), 21 * 37 - 1)
