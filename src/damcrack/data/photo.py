"""Read photographs and masks of every kind that cameras and annotators write, strictly.

The content says what a file is, not its name. Pillow is the reader because it refuses truncated files; OpenCV fills
them with grey. 16-bit values keep their high byte, so the whole range of the file maps to the whole range of 8 bits.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageSequence, PngImagePlugin, UnidentifiedImageError

from damcrack.data import tiff
from damcrack.data.colour import in_srgb, to_srgb
from damcrack.data.jpeg import plain_jpeg
from damcrack.data.names import HEIF_BRANDS
from damcrack.files import InputError, PhotoError

# Pillow's process-wide limit gives way to the callers' max_pixels, checked before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # colour profiles; text is left out
# They tell of damaged EXIF, which does not concern the pixels, and name no photo.
warnings.filterwarnings("ignore", module=r"PIL\.")

PNG_START = b"\x89PNG\r\n\x1a\n"
# Suffix of each format that is read, as Pillow calls it.
SUFFIX_OF = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "JPEG2000": ".jp2",
    "AVIF": ".avif",
    "HEIF": ".heic",
}
WANTED = "a JPEG, PNG or TIFF (WebP, BMP, JPEG 2000, HEIC and AVIF are read too)"
MASK_CUT = 127
MAX_CLASSES = 4  # a mask with more values has soft edges
LOSSY, LOSSY_NOISE = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF"), 16
ANY_SIZE = 2**31 - 1  # for photos that were checked against the user's limit when they were taken in
WIDE_GREY = ("I;16", "I;16B", "I;16L", "I;16N")

# The most pixels that a byte can hold: in JPEG a bit per block of 8 x 8, in PNG deflate's ratio and a bit per pixel.
# WebP, JPEG 2000 and AVIF have no bound for flat pictures; no photo comes near this one.
_PIXELS_PER_BYTE = {"JPEG": 512, "MPO": 512, "PNG": 1032 * 8, "BMP": 128}
_OTHER_PIXELS_PER_BYTE = 8000

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def decode_photo(encoded: bytes, max_pixels: int) -> Pixels:
    """Decode a photo to uint8 RGB of shape (height, width, 3), turned upright by its EXIF.

    Transparent parts become white, as a viewer shows them on a page.

    Raises:
        PhotoError: no such file, truncated, corrupt, over `max_pixels`, or of a colour mode with no fixed
            range (32-bit, LAB).
    """
    return decode_with_gaps(encoded, max_pixels)[0]


def decode_with_gaps(encoded: bytes, max_pixels: int) -> tuple[Pixels, Mask | None]:
    """As `decode_photo`, with where (height, width) the file holds no picture: transparent, or nodata of a GeoTIFF.

    None if there is no such place.
    """
    with _opened(encoded) as image:
        _check_size(image, len(encoded), max_pixels)
        rgb, gaps = plain_jpeg(image, encoded), None
        if rgb is None:
            image.load()
            rgb, gaps = _rgb(image, encoded)
        rgb = in_srgb(rgb, image)
        orientation = _orientation(image)
        turned = None if gaps is None else _turned(gaps.view(np.uint8), orientation).view(np.bool_)
        return _turned(rgb, orientation), turned


def decode_mask(encoded: bytes, max_pixels: int) -> Pixels:
    """Decode a crack mask to uint8 of shape (height, width), 255 = crack, 0 = none; cut above 127 of 255.

    Any mode goes in; colours count by their brightness, transparent parts as no crack.

    Raises:
        PhotoError: unreadable as in `decode_photo`, or marks would be lost: they are black on a transparent ground, too
            dark to count (class numbers 0 and 1), or of few values of which one is too dark (0, 1 and 255).
    """
    with _opened(encoded) as image:
        _check_size(image, len(encoded), max_pixels)
        image.load()
        grey, orientation = np.asarray(_grey(image)), _orientation(image)
        _check_marks(image, grey)
    crack = grey > np.iinfo(grey.dtype).max // 255 * MASK_CUT
    return _turned(np.negative(crack.view(np.uint8)), orientation)  # modulo 256: 1 becomes 255


def _check_marks(image: Image.Image, grey: npt.NDArray[Any]) -> None:
    """Refuse a mask of which some marks would count as no crack by mistake."""
    full, marks = np.iinfo(grey.dtype).max, grey[grey > 0]
    fix = f"save it with 0 for no crack and {full} for crack"
    if not marks.size:
        opacity = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else np.zeros(1)
        if opacity.min() < opacity.max():
            raise PhotoError(f"mask: its marks are black on a transparent ground, expected white; {fix}")
        return
    cut, lossy = full // 255 * MASK_CUT, image.format in LOSSY
    if (LOSSY_NOISE if lossy else 0) < marks.max() <= cut:
        raise PhotoError(
            f"mask: its brightest value is {marks.max()}, expected white ({full}) for crack; {fix}"
        )
    values = [0, *np.unique(marks).tolist()] if not lossy and marks.min() <= cut else []
    if 0 < len(values) <= MAX_CLASSES:
        raise PhotoError(f"mask: it holds the values {values}, expected 0 and {full}; {fix}")


def decode_file(path: Path, decode: Callable[[bytes, int], Pixels]) -> Pixels:
    """Read a photo or mask that the photos stage has checked.

    Raises:
        InputError: it is gone or damaged since.
    """
    try:
        return decode(path.read_bytes(), ANY_SIZE)
    except (OSError, PhotoError) as error:
        raise InputError(f"{path}: {error}; run the photos stage again") from error


def photo_size_hw(encoded: bytes) -> tuple[int, int]:
    """Height and width in pixels of the upright photo, from the header alone.

    Raises:
        PhotoError: no image that is read.
    """
    with _opened(encoded) as image:
        sideways = image.format != "TIFF" and _orientation(image) >= 5  # Pillow turns a TIFF's size itself
        return (image.width, image.height) if sideways else (image.height, image.width)


def num_photos(encoded: bytes) -> int:
    """How many photos a file holds, of which the first is read: pages of a TIFF, pictures of a burst in one file.

    Smaller pictures in it, thumbnails and such, are none.

    Raises:
        PhotoError: no image that is read.
    """
    if encoded.startswith(PNG_START):
        return 1
    with _opened(encoded) as image:
        if image.format == "TIFF":
            return tiff.num_photos(encoded)
        size = image.size
        several = ImageSequence.Iterator(image) if image.format in ("MPO", "HEIF") else [image]
        return sum(one.size == size for one in several)


def suffix_of(encoded: bytes) -> str:
    """The suffix that fits the content.

    Raises:
        PhotoError: no image that is read.
    """
    with _opened(encoded) as image:
        return SUFFIX_OF[str(image.format)]


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


def encode_jpeg(rgb: Pixels, quality: int = 95, full_colour: bool = False) -> bytes:
    """Encode uint8 RGB of shape (height, width, 3); the same pixels give the same bytes.

    `full_colour` stores colour at every pixel, not at every fourth, which would smear coloured stains.
    """
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if full_colour:
        settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), settings)
    assert done
    return bytes(encoded)


def encode_mask(mask: Pixels) -> bytes:
    """Encode a mask of shape (height, width), non-zero = crack, as a one-bit grey PNG, white = crack."""
    file = io.BytesIO()
    Image.fromarray(mask != 0).save(file, "PNG")
    return file.getvalue()


class MemoryShortError(PhotoError):
    """A photo that may be whole, but too large for this machine as it is now."""


@contextmanager
def within_memory() -> Iterator[None]:
    """Turn what a lack of memory raises, by whatever library, into a PhotoError: the next photo may be smaller."""
    try:
        yield
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryShortError(
            "it takes more memory than there is; scale it down, or close other programs and try again"
        ) from error


@contextmanager
def _opened(encoded: bytes) -> Iterator[Image.Image]:
    """Open an image, and turn whatever its decoder raises, now or later, into one PhotoError."""
    if not encoded:
        raise PhotoError(f"the file is empty (0 bytes), expected {WANTED}; copy it again")
    try:
        with within_memory():
            if encoded.startswith(tiff.STARTS):
                image = tiff.open_tiff(encoded)
            else:
                image = Image.open(io.BytesIO(_picture_chunks(encoded)), formats=_formats(encoded))
            image.info.pop("xmp", None)  # Pillow takes its copy of the orientation, which viewers overlook
            yield image
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(_unidentified(encoded)) from error
    except Exception as error:  # on damaged bytes, decoders raise anything from KeyError to RuntimeError
        raise PhotoError(
            f"truncated or corrupt ({error}), expected a whole image; copy or export it again"
        ) from error


def _picture_chunks(encoded: bytes) -> bytes:
    """A PNG without the chunks that no pixel needs, as one damaged chunk makes Pillow refuse the file.

    Other content as it is.
    """
    if not encoded.startswith(PNG_START):
        return encoded
    kept, at = [PNG_START], len(PNG_START)
    while at + 12 <= len(encoded):
        (size,) = struct.unpack_from(">I", encoded, at)
        end = at + 12 + size
        kind, checksum = encoded[at + 4 : at + 8], encoded[end - 4 : end]
        whole = checksum == struct.pack(">I", zlib.crc32(encoded[at + 4 : end - 4]))
        needed = kind[:1].isupper()  # as the format has it
        if needed or kind == b"tRNS" or (kind in (b"eXIf", b"iCCP") and whole):
            kept.append(encoded[at:end])
        at = end
    return b"".join([*kept, encoded[at:]])


def _formats(encoded: bytes) -> list[str]:
    Image.init()
    if encoded[4:8] == b"ftyp" and encoded[8:12] in HEIF_BRANDS:
        try:
            from pillow_heif import register_heif_opener
        except ImportError as error:
            raise PhotoError(
                'HEIC needs pillow-heif; run pip install "damcrack[heif]", or export it as JPEG'
            ) from error
        register_heif_opener()
    return [name for name in SUFFIX_OF if name in Image.OPEN]


def _unidentified(encoded: bytes) -> str:
    if (
        encoded.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"))
        or encoded[4:11] == b"ftypcrx"
    ):
        return tiff.RAW_ADVICE
    known = {
        b"\xff\xd8": "a damaged JPEG",
        b"\x89P": "a damaged PNG",
        b"II": "a damaged TIFF",
        b"MM": "a damaged TIFF",
    }
    what = known.get(encoded[:2], f"the content starts with {encoded[:8]!r}")
    return f"{what}, expected {WANTED}; convert or copy it again"


def _check_size(image: Image.Image, num_bytes: int, max_pixels: int) -> None:
    num_pixels = image.width * image.height
    if num_pixels > max_pixels:
        raise PhotoError(
            f"{image.width} x {image.height} pixels, expected at most {max_pixels / 1e6:g} megapixels; "
            "scale it down or raise max_megapixels"
        )
    bound = _PIXELS_PER_BYTE.get(str(image.format), _OTHER_PIXELS_PER_BYTE)
    if image.format != "TIFF" and num_pixels > bound * num_bytes:
        raise PhotoError(
            f"truncated or corrupt: {image.width} x {image.height} pixels in {num_bytes} bytes; copy or export it again"
        )


def _orientation(image: Image.Image) -> int:
    """EXIF's number of how the camera was held; of a TIFF only once loaded, because loading already turns it."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # its parser raises anything on damaged EXIF; the photo itself may well be whole
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(stored: Pixels, orientation: int) -> Pixels:
    """Orientations 5 to 8 are 1 to 4 after swapping rows and columns."""
    if orientation >= 5:
        stored = np.asarray(cv2.transpose(stored), np.uint8)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return np.asarray(cv2.flip(stored, flips[orientation]) if orientation in flips else stored, np.uint8)


def _rgb(image: Image.Image, encoded: bytes) -> tuple[Pixels, Mask | None]:
    """RGB of a loaded image, and where it is transparent or holds no data."""
    gaps: Mask | None = None
    clear: Mask
    if image.format == "TIFF":
        gaps = tiff.nodata_gaps(image, encoded)
        image = tiff.eight_bits(image, encoded)
    elif image.mode in WIDE_GREY:
        wide = np.asarray(image)
        clear = wide == image.info.get("transparency", -1)
        image, gaps = Image.fromarray(tiff.scaled(wide, 16)), clear if clear.any() else None
    elif image.format == "JPEG2000" and (bits := _jpeg2000_bits(encoded)) > 8:
        image = Image.fromarray(tiff.scaled(_wide_jpeg2000(encoded), bits))
    elif image.format == "PNG" and encoded[24] == 16:  # bits per value
        tiff.check_range(np.asarray(image)[..., :3])
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        clear = np.asarray(rgba.getchannel("A")) < 128
        if clear.any():
            gaps = clear if gaps is None else clear | gaps
        image = _on(rgba, "white")
    _refuse_unbounded(image)
    if image.mode == "CMYK" and (transform := to_srgb(image, "CMYK")):
        image = transform.apply(image)
    rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # which copies
    return rgb if gaps is None else np.where(gaps[..., None], np.uint8(255), rgb), gaps


def _jpeg2000_bits(encoded: bytes) -> int:
    """Bits per value of the first band, as the codestream's SIZ marker says it."""
    return (encoded[encoded.index(b"\xff\x4f\xff\x51") + 42] & 0x7F) + 1


def _wide_jpeg2000(encoded: bytes) -> npt.NDArray[np.uint16]:
    """RGB of more than 8 bits through OpenCV: Pillow rounds the brightest values up to black."""
    wide: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if wide is None or wide.dtype != np.uint16 or wide.shape[2:] != (3,):
        raise PhotoError("JPEG 2000 of more than 8 bits that is neither grey nor RGB; export it with 8 bits")
    return np.asarray(wide[..., ::-1], np.uint16)


def _grey(image: Image.Image) -> Image.Image:
    if image.mode in WIDE_GREY:
        return image
    if image.has_transparency_data:
        return _on(image, "black").convert("L")
    if image.mode in ("1", "L"):
        return image.convert("L")
    _refuse_unbounded(image)
    return image.convert("RGB").convert("L")


def _on(image: Image.Image, background: str) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")


def _refuse_unbounded(image: Image.Image) -> None:
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise PhotoError(
            f"pixel mode {image.mode}, expected grey, RGB or CMYK of 8 or 16 bits; export it as one of these"
        )
