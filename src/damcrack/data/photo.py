"""Read photographs and masks of every kind that cameras and annotators write, strictly.

JPEG, PNG and TIFF only. Pillow is the reader because it refuses truncated files; OpenCV fills them with grey.
Plain JPEGs go through simplejpeg: the same pixels, 35 instead of 115 ms for 12 megapixels, most of which Pillow
spends on fresh memory.
Of a TIFF with several pages the first is the photo. 16-bit values keep their high byte, so the whole range of
the file maps to the whole range of 8 bits.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from damcrack.files import PhotoError

# Pillow's process-wide limit gives way to the callers' max_pixels, checked before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
MASK_CUT = 127
WIDE_GREY = ("I;16", "I;16B", "I;16L", "I;16N")

_WHITE, _BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
# What Pillow's decoders raise on damaged files, found by flipping bytes in valid ones.
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error)

Pixels = npt.NDArray[np.uint8]


def decode_photo(encoded: bytes, max_pixels: int, memory: Pixels | None = None) -> Pixels:
    """Decode a JPEG, PNG or TIFF to uint8 RGB of shape (height, width, 3), turned upright by its EXIF.

    Transparent parts become white, as a viewer shows them on a page. The result may lie in `memory` (flat, at
    least 3 * height * width), and holds until that is used again.

    Raises:
        PhotoError: not such a file, truncated, corrupt, over `max_pixels`, or of a colour mode with no fixed
            range (32-bit, LAB).
    """
    with _opened(encoded) as image:
        _check_size(image, max_pixels)
        rgb = _plain_jpeg(image, encoded, memory)
        if rgb is None:
            image.load()
            rgb = np.asarray(_rgb(image))
        return _turned(rgb, _orientation(image))


def decode_mask(encoded: bytes, max_pixels: int) -> Pixels:
    """Decode a crack mask to uint8 of shape (height, width), 255 = crack, 0 = none; cut above 127 of 255.

    Any mode goes in; colours count by their brightness, transparent parts as no crack.

    Raises:
        PhotoError: unreadable as in `decode_photo`, or a lossless mask whose marks are all too dark to count
            (class numbers 0 and 1 instead of 0 and 255): taken as it is, it would hide every crack.
    """
    with _opened(encoded) as image:
        _check_size(image, max_pixels)
        image.load()
        grey, orientation = np.asarray(_grey(image)), _orientation(image)
    full = np.iinfo(grey.dtype).max
    crack = grey > full // 255 * MASK_CUT
    lossless = image.format in ("PNG", "TIFF")
    if lossless and grey.any() and not crack.any():
        raise PhotoError(
            f"mask: its brightest value is {grey.max()}, expected white ({full}) for crack; "
            f"save it with 0 for no crack and {full} for crack"
        )
    return _turned(np.negative(crack.view(np.uint8)), orientation)  # modulo 256: 1 becomes 255


def photo_size_hw(encoded: bytes) -> tuple[int, int]:
    """Height and width in pixels of the upright photo, from the header alone.

    Raises:
        PhotoError: not a JPEG, PNG or TIFF.
    """
    with _opened(encoded) as image:
        sideways = image.format != "TIFF" and _orientation(image) >= 5  # Pillow turns a TIFF's size itself
        return (image.width, image.height) if sideways else (image.height, image.width)


def is_plain_jpeg(encoded: bytes) -> bool:
    """Tell whether the file is an upright 8-bit RGB JPEG, which needs no re-encoding."""
    with _opened(encoded) as image:
        return image.format == "JPEG" and image.mode == "RGB" and _orientation(image) == 1


def centre_square(rgb: Pixels, side_px: int) -> Pixels:
    """Scale the shorter side to `side_px` (area-averaged down, cubic up) and cut the middle square."""
    height, width = rgb.shape[:2]
    scale = side_px / min(height, width)
    scaled_wh = max(side_px, round(width * scale)), max(side_px, round(height * scale))
    scaled = cv2.resize(rgb, scaled_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (scaled.shape[0] - side_px) // 2, (scaled.shape[1] - side_px) // 2
    return np.ascontiguousarray(scaled[top : top + side_px, left : left + side_px], dtype=np.uint8)


def encode_jpeg(rgb: Pixels, quality: int = 95) -> bytes:
    """Encode uint8 RGB of shape (height, width, 3); the same pixels give the same bytes."""
    done, encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(encoded)


def encode_mask(mask: Pixels) -> bytes:
    """Encode a mask of shape (height, width), non-zero = crack, as a one-bit grey PNG, white = crack."""
    file = io.BytesIO()
    Image.fromarray(mask != 0).save(file, "PNG")
    return file.getvalue()


def _plain_jpeg(image: Image.Image, encoded: bytes, memory: Pixels | None) -> Pixels | None:
    """RGB as stored; None if the file is no undamaged 8-bit grey or RGB JPEG, and Pillow has to judge it."""
    if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
        return None
    try:
        rgb: Pixels = simplejpeg.decode_jpeg(encoded, "RGB", strict=True, buffer=memory)
    except ValueError:
        return None
    return rgb if rgb.shape[:2] == (image.height, image.width) else None


@contextmanager
def _opened(encoded: bytes) -> Iterator[Image.Image]:
    if not encoded:
        raise PhotoError("the file is empty (0 bytes), expected a JPEG, PNG or TIFF; copy it again")
    try:
        yield Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG", "TIFF"))
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"the content starts with {encoded[:8]!r}, expected a JPEG, PNG or TIFF; convert it"
        ) from error
    except _DAMAGED as error:
        raise PhotoError(
            f"truncated or corrupt ({error}), expected a whole image; copy or export it again"
        ) from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise PhotoError(
            f"{image.width} x {image.height} pixels, expected at most {max_pixels / 1e6:g} megapixels; "
            "scale it down or raise max_megapixels"
        )


def _orientation(image: Image.Image) -> int:
    """EXIF's number of how the camera was held; of a TIFF only once loaded, because loading already turns it."""
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(stored: Pixels, orientation: int) -> Pixels:
    """Orientations 5 to 8 are 1 to 4 after swapping rows and columns."""
    if orientation >= 5:
        stored = np.asarray(cv2.transpose(stored), np.uint8)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return np.asarray(cv2.flip(stored, flips[orientation]) if orientation in flips else stored, np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in WIDE_GREY:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        return _on(image, _WHITE)
    _refuse_unbounded(image)
    return image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    if image.mode in WIDE_GREY:
        return image
    if image.has_transparency_data:
        return _on(image, _BLACK).convert("L")
    if image.mode in ("1", "L"):
        return image.convert("L")
    _refuse_unbounded(image)
    return image.convert("RGB").convert("L")


def _on(image: Image.Image, background: tuple[int, int, int, int]) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")


def _refuse_unbounded(image: Image.Image) -> None:
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise PhotoError(f"pixel mode {image.mode}, expected grey, RGB or CMYK of 8 or 16 bits; export it so")
