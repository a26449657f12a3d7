"""Where a photo shows nothing though its file does not say so: collars of mosaics, turned and fisheye photos."""

import cv2
import numpy as np
import pytest

from damcrack.cracks.gaps import collar
from damcrack.data.photo import decode_photo, encode_jpeg
from walls import concrete, coverage, photo, rgb

SIZE = (603, 805)


WALL = concrete(SIZE, seed=1)


def wall(*covers, **how):
    return rgb(photo(WALL, *covers, **how))


def turned(angle, value):
    """A wall turned by some degrees, and where it is not."""
    turn = cv2.getRotationMatrix2D((SIZE[1] / 2, SIZE[0] / 2), angle, 1.0)
    pixels = cv2.warpAffine(wall(), turn, SIZE[::-1], borderValue=(value,) * 3)
    inside = cv2.warpAffine(np.ones(SIZE, np.uint8), turn, SIZE[::-1])
    return pixels, inside == 0


def fisheye(value):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    outside = np.hypot(x - SIZE[1] / 2, y - SIZE[0] / 2) > 310
    return np.where(outside[..., None], np.uint8(value), wall()), outside


@pytest.mark.parametrize("quality", [None, 95, 75])
@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize(
    "make", [lambda v: turned(12, v), lambda v: turned(3, v), fisheye], ids=["12", "3", "eye"]
)
def test_a_collar_is_found_and_nothing_else(make, value, quality):
    """Turned by much or little, round, black or white, whole or as a JPEG with its noise at the edge."""
    pixels, outside = make(value)
    seen = pixels if quality is None else decode_photo(encode_jpeg(pixels, quality), 10**6)
    found = collar(seen)
    assert found is not None
    assert found[outside].mean() > 0.8  # its thin ends stay
    assert found[~outside].mean() < 0.002


def night(falloff_px):
    """A lamp in the middle of the photo, exactly black far from it."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    light = np.clip(1 - np.hypot(x - 400, y - 300) / falloff_px, 0, 1)[..., None]
    return (wall() * light).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        wall(),
        night(250),
        night(400),
        np.zeros((*SIZE, 3), np.uint8),
        np.full((*SIZE, 3), 255, np.uint8),
        np.clip(wall().astype(int) * 2 - 60, 0, 255).astype(np.uint8),  # overexposed
        wall(coverage(SIZE, [(0, 300), (805, 310)], 24.0), inside=-60),  # a crack across it, clipped to black
        np.zeros((5, 7, 3), np.uint8),
    ],
    ids=["wall", "lamp", "wide lamp", "black", "white", "bright", "crack", "tiny"],
)
def test_what_is_dark_or_bright_by_itself_stays(pixels):
    """Night, clipped light and wide cracks are the photo's own."""
    assert collar(pixels) is None
