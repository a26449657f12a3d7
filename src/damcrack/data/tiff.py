"""Choose the photo in a TIFF file, refuse what Pillow cannot read rightly, and bring the rest to 8 bits.

Pillow reads through libtiff, also where nothing is compressed: its own reader mixes up planes of 16 bits.
"""

import ctypes
import io
import struct
import sys
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL
import simplejpeg
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from damcrack.data.jpeg import LOST
from damcrack.files import PhotoError

TiffImagePlugin.READ_LIBTIFF = True

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RAW_ADVICE = "a camera's raw file; export it as JPEG or TIFF"
# Tags of TIFF 6.0, TIFF/EP and GDAL.
_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_PHOTOMETRIC, _BANDS, _MAX_VALUE, _COLOR_MAP, _SUB_IFDS = 262, 277, 281, 320, 330
_EXTRA_BANDS, _SAMPLE_FORMAT, _S_MAX_VALUE, _NODATA, _DNG_VERSION = 338, 339, 341, 42113, 50706
_STRIPS, _STRIP_BYTES, _JPEG_TABLES = (273, 324), (279, 325), 347  # of strips, of tiles
_JPEG, _DEFLATE = 7, (8, 32946)
_IFD8, _LONG8 = b"\x12\0", b"\x10\0"  # types of BigTIFF, little-endian
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_RAW = (32803, 34892)  # photometric: colour filter array, linear raw
_INVERTED = "white is zero"  # of values that Pillow reads the other way only
_COLOR_BANDS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, 3: 1, 5: 4, 6: 3}  # palette, CMYK, YCbCr
# What Pillow reads, with the most bytes of pixels that a byte of the file can hold.
_GROWTH = {
    1: 1, 2: 200, 3: 10_000, 4: 10_000, 5: 1400, 7: 2000, 8: 1032, 32773: 64, 32946: 1032, 34925: 8000, 50000: 8000,
}  # fmt: skip
_NAMES = {6: "old JPEG", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL"}
_KINDS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
# Parts of a photo are clipped to black too, but not in squares as wide as this.
NODATA_PX = 31
JPEG_NOISE = 8
NEAR_PX = 7  # and tips of a gap reach no farther out of such squares

Tags = Mapping[int, Any]
Mask = npt.NDArray[np.bool_]


def open_tiff(encoded: bytes) -> Image.Image:
    """Open the photo in a TIFF: the largest page that is neither marked as reduced nor as a mask.

    Raises:
        PhotoError: raw data of a sensor, floats, more bands than colours, or a compression that Pillow lacks.
    """
    _silence_libtiff()
    pages = _pages(encoded)
    if encoded[8:10] == b"CR" or any(
        tags.get(_PHOTOMETRIC) in _RAW or _DNG_VERSION in tags for tags in pages.values()
    ):
        raise PhotoError(RAW_ADVICE)
    shown = _full_size(pages)
    if not shown:
        raise PhotoError("a TIFF without pages; export it again")
    chosen = max(shown, key=lambda at: _num_pixels(shown[at]))
    _refuse_unreadable(shown[chosen], len(encoded))
    inverted = _is_wide(shown[chosen]) and shown[chosen].get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    try:
        image = _opened(encoded, chosen, _BLACK_IS_ZERO if inverted else None)
    except UnidentifiedImageError as error:
        bits, num_bands = shown[chosen].get(_BITS, (1,)), shown[chosen].get(_BANDS, 1)
        raise PhotoError(
            f"a TIFF of {max(bits)}-bit values in {num_bands} bands that Pillow cannot read, or a damaged one; "
            "export it with 8 bits"
        ) from error
    image.info[_INVERTED] = inverted
    return image


def num_photos(encoded: bytes) -> int:
    """How many pages could be a photo: not marked as reduced or as a mask, and not much smaller than the largest."""
    sizes = [_num_pixels(tags) for tags in _full_size(_pages(encoded)).values()]
    return sum(size > max(sizes) / 2 for size in sizes)


def eight_bits(image: Image.Image, encoded: bytes) -> Image.Image:
    """Bring a loaded page to 8 bits per value: the range that the file declares maps to 0 to 255.

    Raises:
        PhotoError: 16 bits of which the file uses no more than 14 and does not say so.
        ValueError, zlib.error: a part of the page is damaged, though libtiff took it.
    """
    tags = image.tag_v2  # type: ignore[attr-defined]
    _check_segments(tags, encoded)
    if image.mode == "P":
        colors = np.array(tags[_COLOR_MAP])
        if colors.max() < 256:  # as libtiff does: some writers scale the palette to 8 bits
            image.putpalette(bytes(colors.reshape(3, -1).T.astype(np.uint8)))
        return image
    if _is_wide(tags):
        image = _narrowed(image, encoded)
    if image.mode == "RGBA" and _EXTRA_BANDS not in tags and _is_picture(image.getchannel("A")):
        return image.convert("RGB")  # the fourth band is infrared, say, for no file says that it is alpha
    return image


def _narrowed(image: Image.Image, encoded: bytes) -> Image.Image:
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = _declared_bits(tags)
    if image.mode.startswith("I;16"):
        grey = scaled(np.asarray(image), bits)
        return Image.fromarray(~grey if image.info[_INVERTED] else grey)
    if bits == 16:
        check_range(np.asarray(image)[..., :3])
        return image
    return Image.fromarray(scaled(_wide_rgb(encoded, image), bits))


def _is_picture(band: Image.Image) -> bool:
    return not set(np.unique(np.asarray(band)).tolist()) <= {0, 255}


def check_range(values: npt.NDArray[np.uint8]) -> None:
    """Refuse the high bytes of 16-bit values that no viewer would show: 10 to 14 bits in the low end.

    Raises:
        PhotoError: all are so low.
    """
    if 0 < values.max() < 64:
        raise PhotoError(
            f"16-bit values of which none is above {256 * int(values.max()) + 255}, "
            "and the file does not say how many bits count; export it over the full range"
        )


def nodata_gaps(image: Image.Image, encoded: bytes) -> Mask | None:
    """True (height, width) where a page holds no picture: by GDAL's value for nodata, or its mask page.

    By value only where it fills squares of 31 px, or lies within 3 px of one: a black crack is no gap.
    """
    tags: Tags = image.tag_v2  # type: ignore[attr-defined]
    mask, value = _mask_page(image, encoded), _nodata_value(tags)
    if mask is not None or value is None:
        return mask
    num_bands = _COLOR_BANDS[tags.get(_PHOTOMETRIC, 0)]
    values = np.asarray(image).reshape(image.height, image.width, -1)[..., :num_bands]
    about = JPEG_NOISE if tags.get(_COMPRESSION) == _JPEG else 0
    equal = np.asarray(((values >= value - about) & (values <= value + about)).all(axis=2), np.uint8)
    padded = np.pad(equal, NODATA_PX, constant_values=1)
    wide = cv2.morphologyEx(padded, cv2.MORPH_OPEN, np.ones((NODATA_PX, NODATA_PX), np.uint8))
    inside = np.ascontiguousarray(wide[NODATA_PX:-NODATA_PX, NODATA_PX:-NODATA_PX])
    near = np.asarray(cv2.dilate(inside, np.ones((NEAR_PX, NEAR_PX), np.uint8)), np.uint8)
    gaps: Mask = (equal & near) > 0
    return gaps if gaps.any() else None


def _pages(encoded: bytes) -> dict[int, Tags]:
    """Tags of every page, and of the pages below it, by where they lie in the file."""
    if encoded[:4] == b"MM\0+":
        raise PhotoError("a BigTIFF in big-endian order, which Pillow cannot read; save it as plain TIFF")
    head = encoded[: 16 if _is_big(encoded) else 8]
    first = TiffImagePlugin.ImageFileDirectory_v2(head)
    file, pages, waiting = io.BytesIO(encoded), dict[int, Tags](), [first.next]
    while waiting:
        at = waiting.pop(0)
        if at in pages or not 0 < at < len(encoded):
            continue
        ifd = TiffImagePlugin.ImageFileDirectory_v2(head)
        with file.getbuffer() as patched:
            for kind in (entry + 2 for entry in _entries(encoded, at)):
                if patched[kind : kind + 2] == _IFD8:  # of a BigTIFF; Pillow knows its twin alone
                    patched[kind : kind + 2] = _LONG8
        file.seek(at)
        ifd.load(file)
        pages[at] = {tag: ifd[tag] for tag in ifd}
        below = pages[at].get(_SUB_IFDS, ())
        waiting += [ifd.next, *(below if isinstance(below, tuple) else (below,))]
    return pages


def _full_size(pages: Mapping[int, Tags]) -> Mapping[int, Tags]:
    return {at: tags for at, tags in pages.items() if not _marks(tags) & (_REDUCED | _MASK)} or pages


def _is_wide(tags: Tags) -> bool:
    return bool(max(tags.get(_BITS, (1,))) > 8)


def _marks(tags: Tags) -> int:
    return int(tags.get(_SUBFILE_TYPE, 0)) or (_REDUCED if tags.get(_OLD_SUBFILE_TYPE) == 2 else 0)


def _num_pixels(tags: Tags) -> int:
    return int(tags.get(_WIDTH, 0)) * int(tags.get(_HEIGHT, 0))


def _refuse_unreadable(tags: Tags, num_bytes: int) -> None:
    kind, compression = tags.get(_SAMPLE_FORMAT, (1,))[0], tags.get(_COMPRESSION, 1)
    bits, photometric = tags.get(_BITS, (1,)), tags.get(_PHOTOMETRIC, 0)
    num_bands = int(tags.get(_BANDS, 1))
    extra = tags.get(_EXTRA_BANDS, ())
    if kind in _KINDS or max(bits) > 16:
        raise PhotoError(
            f"{max(bits)}-bit {_KINDS.get(kind, 'integer')} values, expected 8 or 16 unsigned bits; export it like that"
        )
    if max(bits) not in (1, 2, 4, 8, 16) and (max(bits), num_bands) != (12, 1):
        raise PhotoError(
            f"{max(bits)}-bit values in {num_bands} bands, expected 8 or 16 bits, or 12 of grey; export it like that"
        )
    if compression not in _GROWTH:
        raise PhotoError(
            f"TIFF compression {_NAMES.get(compression, compression)}, "
            "expected none, LZW, deflate or JPEG; export it with one of these"
        )
    if photometric not in _COLOR_BANDS:
        raise PhotoError(
            f"TIFF colours of kind {photometric}, expected grey, RGB, CMYK or YCbCr; export it as one of these"
        )
    wanted = _COLOR_BANDS[photometric]
    known_extra = num_bands == wanted + 1 and (extra in ((1,), (2,)) or photometric == _RGB)
    if num_bands != wanted and not known_extra:
        raise PhotoError(
            f"{num_bands} bands, expected grey or RGB, with or without alpha; export it as one of these"
        )
    size = _num_pixels(tags) * num_bands * bits[0] / 8
    if size > _GROWTH[compression] * num_bytes:
        raise PhotoError(
            f"truncated or corrupt: {size / 1e6:.0f} MB of pixels in a file of {num_bytes} bytes; copy it again"
        )


def _check_segments(tags: Tags, encoded: bytes) -> None:
    """Refuse strips and tiles that libtiff would decode to something all the same.

    Raises:
        ValueError, zlib.error: a checksum does not fit, or a part of a JPEG is lost.
    """
    offsets, counts = (tags.get(strips, tags.get(tiles, ())) for strips, tiles in (_STRIPS, _STRIP_BYTES))
    for offset, count in zip(offsets, counts, strict=True):
        segment = encoded[offset : offset + count]
        if tags.get(_COMPRESSION) in _DEFLATE and segment:
            zlib.decompress(segment)
        elif tags.get(_COMPRESSION) == _JPEG:
            jpeg = tags.get(_JPEG_TABLES, b"\xff\xd8\xff\xd9")[:-2] + segment[2:]
            try:
                simplejpeg.decode_jpeg(jpeg, "GRAY", strict=True)
            except ValueError as error:
                if str(error).startswith(LOST):
                    raise


def _opened(encoded: bytes, at: int, photometric: int | None = None) -> Image.Image:
    """A page with Pillow, as another kind of colours if Pillow does not know its own.

    The file gets it as its first page, because Pillow opens none behind a page that it cannot read.
    """
    order = "<" if encoded[:1] == b"I" else ">"
    start, pointer, value_at = (8, "Q", 12) if _is_big(encoded) else (4, "I", 8)
    file = io.BytesIO(encoded)
    with file.getbuffer() as patched:
        struct.pack_into(order + pointer, patched, start, at)
        for entry in _entries(encoded, at) if photometric is not None else ():
            if struct.unpack_from(order + "H", patched, entry) == (_PHOTOMETRIC,):
                struct.pack_into(order + "H", patched, entry + value_at, photometric)
    return Image.open(file, formats=("TIFF",))


def _is_big(encoded: bytes) -> bool:
    return encoded[2:4] == b"+\0"


def _entries(encoded: bytes, at: int) -> range:
    """Where the entries of a page lie in the file: tag, type, number and value of each."""
    counter, entry_bytes = ("Q", 20) if _is_big(encoded) else ("H", 12)
    (num,) = struct.unpack_from(("<" if encoded[:1] == b"I" else ">") + counter, encoded, at)
    first = at + struct.calcsize(counter)
    num = min(num, (len(encoded) - first) // entry_bytes)
    return range(first, first + num * entry_bytes, entry_bytes)


def _declared_bits(tags: Tags) -> int:
    """How many bits of 9 to 16 the values use, as the file says it."""
    largest = tags.get(_S_MAX_VALUE, tags.get(_MAX_VALUE, 0))
    value = max(largest) if isinstance(largest, tuple) else largest
    bits = int(max(tags[_BITS]))
    return min(bits, max(8, int(value).bit_length())) if value else bits


def scaled(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Bring values of 9 to 16 bits to 8.

    Raises:
        PhotoError: a value has more bits, or all 16-bit ones are so low that the file must mean fewer.
    """
    if values.size and int(values.max()) >= 1 << bits:
        raise PhotoError(
            f"a value of {values.max()}, but the file declares {bits} bits; export it over the full range"
        )
    eight = (values >> (bits - 8)).astype(np.uint8)
    if bits == 16:
        check_range(eight)
    return eight


def _wide_rgb(encoded: bytes, image: Image.Image) -> npt.NDArray[np.uint16]:
    """All 16 bits, of which Pillow gives the high byte: that must agree."""
    file: io.BytesIO = image.fp  # type: ignore[attr-defined]
    packed = np.frombuffer(file.getbuffer(), np.uint8)
    wide: npt.NDArray[Any] | None = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)
    rgb = np.asarray(image)[..., :3]
    if (
        wide is None
        or wide.dtype != np.uint16
        or wide.shape[:2] != rgb.shape[:2]
        or not np.array_equal(wide[..., 2::-1] >> 8, rgb)
    ):
        raise PhotoError("RGB of fewer than 16 bits, stored in a way that is not read; export it with 8 bits")
    return np.asarray(wide[..., 2::-1], np.uint16)


def _nodata_value(tags: Tags) -> float | None:
    try:
        value = float(str(tags[_NODATA]).strip("\0 ").split()[0])
    except (KeyError, ValueError, IndexError):
        return None
    if tags.get(_PHOTOMETRIC) == _RGB and _is_wide(tags):
        return value // 256  # Pillow gives the high byte of RGB
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and not _is_wide(tags):
        return 255 - value  # Pillow has turned it
    return value


def _mask_page(image: Image.Image, encoded: bytes) -> Mask | None:
    for at, tags in _pages(encoded).items():
        if _marks(tags) & _MASK and (tags.get(_HEIGHT), tags.get(_WIDTH)) == (image.height, image.width):
            shown = np.asarray(_opened(encoded, at, _BLACK_IS_ZERO).convert("L"))
            return None if shown.all() else shown == 0
    return None


@cache
def _silence_libtiff() -> None:
    """Keep libtiff's own lines off the console: they name no photo, and Pillow raises what matters."""
    folder = Path(PIL.__file__).parent
    for path in (*folder.parent.glob("pillow.libs/libtiff*"), *folder.glob(".dylibs/libtiff*")):
        if sys.platform != "win32":
            with suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(path))
                for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                    getattr(library, name)(None)
