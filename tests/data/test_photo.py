import io
import itertools
import random
import struct
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from damcrack.data.names import PHOTO_SUFFIXES
from damcrack.data.photo import (
    centre_square,
    decode_mask,
    decode_photo,
    decode_with_gaps,
    encode_jpeg,
    encode_mask,
    is_plain_jpeg,
    photo_size_hw,
    suffix_of,
)
from damcrack.files import PhotoError

MEGAPIXEL = 10**6
# What a camera held that way does to the upright picture before it stores it, per EXIF orientation.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """Encode with Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int = 40, width: int = 60, channels: int = 3) -> np.ndarray:
    """Random RGB, always the same."""
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_every_exif_orientation_comes_out_upright(kind, orientation):
    """A photo held in any of the eight ways decodes to the same upright pixels; the header size agrees."""
    upright = np.kron(noise(5, 7), np.ones((8, 8, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    file = encoded(stored, kind, exif=exif, **options)
    decoded = decode_photo(file, MEGAPIXEL)
    assert photo_size_hw(file) == upright.shape[:2] == decoded.shape[:2]
    assert np.abs(decoded.astype(int) - upright).max() <= (4 if kind == "JPEG" else 0)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, "PNG") for mode in ("1", "L", "LA", "P", "I;16")]
    + [("L", "JPEG"), ("CMYK", "JPEG")]
    + [(mode, "TIFF") for mode in ("RGB", "RGBA", "CMYK", "YCbCr", "I;16")],
)
def test_every_common_mode_becomes_rgb(mode, kind):
    """A white photo is white in each mode that cameras and scanners write."""
    if mode == "I;16":
        white = Image.fromarray(np.full((40, 60), 65535, np.uint16))
    else:
        white = Image.new("RGB", (60, 40), "white").convert(mode)
    decoded = decode_photo(encoded(white, kind), MEGAPIXEL)
    assert decoded.shape == (40, 60, 3)
    assert decoded.dtype == np.uint8
    assert decoded.min() >= 254


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".jp2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_clipped(suffix, channels):
    """The whole 16-bit range maps onto the whole 8-bit range, in order."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    stored = ramp if channels == 1 else np.dstack([ramp, ramp[::-1], ramp.T])
    done, file = cv2.imencode(suffix, stored)
    decoded = decode_photo(file.tobytes(), MEGAPIXEL)
    expected = stored[..., None].repeat(3, 2) if channels == 1 else stored[..., ::-1]
    assert done
    assert np.abs(decoded.astype(int) - (expected >> 8)).max() <= (suffix == ".jp2")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_xmp_turns_no_photo(kind):
    """Viewers turn a photo by its EXIF alone; size and pixels agree."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options = {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}
    file = encoded(Image.fromarray(noise()), kind, **options)
    assert photo_size_hw(file) == decode_photo(file, MEGAPIXEL).shape[:2] == (40, 60)


def test_a_transparent_value_of_sixteen_bits_is_a_gap():
    """As GDAL writes nodata into a PNG."""
    wide = np.full((40, 60), 40_000, np.uint16)
    wide[:, :20] = 7
    plain = encoded(Image.fromarray(wide))
    at = plain.index(b"IDAT") - 4
    chunk = b"tRNS" + struct.pack(">H", 7)
    file = plain[:at] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[at:]
    rgb, gaps = decode_with_gaps(file, MEGAPIXEL)
    assert np.array_equal(gaps, wide == 7)
    assert (rgb[gaps] == 255).all()
    assert decode_with_gaps(plain, MEGAPIXEL)[1] is None


def swapped_profile():
    """Of sRGB with red and blue in each other's place."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"b\0\0\0").replace(b"bXYZ", b"rXYZ").replace(b"b\0\0\0", b"bXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "sBGR".encode("utf-16-be"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_colours_go_through_the_files_profile(kind):
    """As viewers show them; one that is damaged, or of other colours than the file's, is overlooked."""
    colour = np.kron(noise(5, 7), np.ones((8, 8, 1), np.uint8))
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    tolerance = 8 if kind == "JPEG" else 2
    grey = Image.fromarray(colour[..., 0])
    for image, profile, shown in (
        (Image.fromarray(colour), swapped_profile(), colour[..., ::-1]),
        (Image.fromarray(colour), b"x" * 200, colour),
        (grey, swapped_profile(), np.repeat(colour[..., :1], 3, 2)),
    ):
        decoded = decode_photo(encoded(image, kind, icc_profile=profile, **options), MEGAPIXEL)
        assert np.abs(decoded.astype(int) - shown).max() <= tolerance


def black_ink_profile():
    """Of a press whose cyan, magenta and yellow leave no mark: lightness by black alone (ICC.1, lut8Type)."""
    ramp = bytes(range(256))
    grid = 8 * bytes([255, 128, 128, 0, 128, 128])  # black varies fastest
    matrix = struct.pack(">9i", *(65536 * (number % 4 == 0) for number in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + grid + 3 * ramp
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    kind = 144 + len(table), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp"
    head = struct.pack(">I4sI4s4s4s12x4s28x3i", *kind, 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + table


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_go_through_the_files_profile(kind):
    """Not by the rule of thumb that Pillow has for CMYK without one."""
    inks = np.zeros((16, 32, 4), np.uint8)
    inks[:, :, 0], inks[:, 16:, 3] = 255, 255
    image = Image.fromarray(inks, "CMYK")
    shown = decode_photo(encoded(image, kind, icc_profile=black_ink_profile()), MEGAPIXEL)
    assert shown[:, :14].min() > 245
    assert shown[:, 18:].max() < 10
    assert decode_photo(encoded(image, kind), MEGAPIXEL)[:, :14, 0].max() < 10


def test_transparent_is_white_in_photos_and_no_crack_in_masks():
    """A fully transparent half counts as paper in a photo, as empty in a mask, whatever colour lies below."""
    rgba = np.full((40, 60, 4), 255, np.uint8)
    rgba[:, :30] = [10, 20, 30, 0]
    file = encoded(Image.fromarray(rgba))
    assert decode_photo(file, MEGAPIXEL).min() == 255
    assert np.array_equal(decode_mask(file, MEGAPIXEL), np.where(rgba[..., 0] == 255, 255, 0))


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "JPEG2000", "AVIF", "MPO"])
def test_other_formats_are_read_with_pillows_pixels(kind):
    """What phones, drones and converters write."""
    file = encoded(Image.fromarray(noise(64, 96)), kind)
    decoded = decode_photo(file, MEGAPIXEL)
    assert np.array_equal(decoded, np.asarray(Image.open(io.BytesIO(file)).convert("RGB")))
    assert suffix_of(file) in PHOTO_SUFFIXES


def test_heic_is_read_through_its_extra(monkeypatch):
    """Without it the message says what to install."""
    pillow_heif = pytest.importorskip("pillow_heif", reason='needs pip install "damcrack[heif]"')
    grey = np.full((64, 96, 3), 128, np.uint8)
    grey[:, :48] = 40
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(grey)).save(file, quality=90)
    assert np.abs(decode_photo(file.getvalue(), MEGAPIXEL)[:, ::16].astype(int) - grey[:, ::16]).max() <= 6
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PhotoError, match=r"damcrack\[heif\]"):
        decode_photo(file.getvalue(), MEGAPIXEL)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("PNG", {}), ("WEBP", {}), ("AVIF", {}), ("JPEG2000", {"quality_layers": [100]})],
)
def test_a_header_beyond_its_file_costs_no_memory(kind, options):
    """Few bytes that declare 400 megapixels are refused before anything is allocated."""
    file = bytearray(encoded(Image.new("RGB", (400, 300)), kind, **options))
    places = {
        "JPEG": lambda: (file.index(b"\xff\xc0") + 5, ">HH", 20000),
        "PNG": lambda: (16, ">II", 20000),
        "WEBP": lambda: (file.index(b"\x9d\x01\x2a") + 3, "<HH", 16383),
        "AVIF": lambda: (file.index(b"ispe") + 8, ">II", 20000),
        "JPEG2000": lambda: (file.index(b"\xff\x51") + 6, ">II", 20000),
    }
    at, form, side = places[kind]()
    struct.pack_into(form, file, at, side, side)
    if kind == "PNG":
        struct.pack_into(">I", file, 29, zlib.crc32(file[12:29]))
    if kind in ("JPEG", "PNG"):  # Pillow's own limit of 179 megapixels does not stand in the way
        assert photo_size_hw(bytes(file)) == (side, side)
        with pytest.raises(PhotoError, match=f"{side} x {side} pixels, expected at most 100 megapixels"):
            decode_photo(bytes(file), 100 * MEGAPIXEL)
    tracemalloc.start()
    with pytest.raises(PhotoError):
        decode_photo(bytes(file), 400 * MEGAPIXEL)
    assert tracemalloc.get_traced_memory()[1] < 10 * MEGAPIXEL
    tracemalloc.stop()


@pytest.mark.parametrize("exif", [b"\0\x08\0\x02\x01\x12\0\x03", b"MM\0*\xff\xff\xff\xff", b"", bytes(200)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_damages_no_pixel(kind, exif):
    """The photo is read as it lies in the file."""
    file = encoded(Image.fromarray(noise()), kind, exif=exif)
    assert np.array_equal(
        decode_photo(file, MEGAPIXEL), np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    )


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"),
        (b"iCCP", b"profile\0\0not deflated"),
        (b"zTXt", b"Raw\0\0" + zlib.compress(bytes(10**8))),
        (b"pHYs", b"\0"),
    ],
)
def test_damaged_notes_of_a_png_damage_no_pixel(kind, content):
    """A wrong checksum or content where no pixel lies."""
    file = encoded(Image.fromarray(noise()))
    chunk = struct.pack(">I", len(content)) + kind + content + b"\0\0\0\0"
    assert np.array_equal(decode_photo(file[:33] + chunk + file[33:], MEGAPIXEL), noise())
    damaged = bytearray(file)
    damaged[file.index(b"IDAT") + 100] ^= 1
    with pytest.raises(PhotoError):
        decode_photo(bytes(damaged), MEGAPIXEL)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_cut_short_anywhere_is_refused(kind):
    """A file cut at a quarter, half or nine tenths never decodes to a photo with a grey rest."""
    file = encoded(Image.fromarray(noise(200, 200)), kind)
    for share in (0.25, 0.5, 0.9):
        with pytest.raises(PhotoError):
            decode_photo(file[: int(len(file) * share)], MEGAPIXEL)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"FUJIFILMCCD-RAW 0201", "raw file; export it"),
        (b"IIRO\x08\0\0\0", "raw file; export it"),  # Olympus
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "raw file; export it"),  # Canon
        (b"IIU\0\x18\0\0\0" + bytes(100), "raw file; export it"),  # Panasonic
        (b"this is a note, not a photo\n", "expected a JPEG"),
        (encoded(Image.fromarray(noise()), "GIF"), "expected a JPEG"),
        (encoded(Image.fromarray(noise()), "PPM"), "expected a JPEG"),
        (b"\xff\xd8\xff", "JPEG"),
        (encoded(Image.new("F", (9, 9)), "TIFF"), "32-bit floating-point"),
        (encoded(Image.new("I", (9, 9)), "TIFF"), "32-bit signed"),
    ],
)
def test_other_content_is_refused_with_its_reason(content, says):
    """Empty files, raw files, text, other formats and unbounded pixel modes are told apart in the message."""
    with pytest.raises(PhotoError, match=says):
        decode_photo(content, MEGAPIXEL)


def by_pillow(file: bytes) -> np.ndarray | None:
    """Pillow's pixels, or None if Pillow refuses the file."""
    try:
        return np.asarray(Image.open(io.BytesIO(file), formats=("JPEG",)).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None


JPEG_KINDS = [
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2},
    {"subsampling": 2, "progressive": True},
    {"subsampling": 2, "restart_marker_blocks": 3, "optimize": True},
]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", JPEG_KINDS)
def test_plain_jpegs_have_pillows_pixels(mode, options):
    """Bit for bit, for each subsampling, in scans or with restarts, with odd sides, at low and high quality."""
    for (height, width), quality in itertools.product([(97, 131), (64, 80), (1, 1)], (20, 95)):
        file = encoded(
            Image.fromarray(noise(height, width)).convert(mode), "JPEG", quality=quality, **options
        )
        assert np.array_equal(decode_photo(file, MEGAPIXEL), by_pillow(file))


@pytest.mark.parametrize("options", JPEG_KINDS[2:])
def test_damaged_jpegs_are_refused_or_have_pillows_pixels(options):
    """With bytes flipped or cut off a JPEG is refused, or gives what Pillow gives, never with the rest in grey."""
    rng = random.Random(2)
    file = encoded(Image.fromarray(noise(48, 64)), "JPEG", quality=80, **options)
    damaged = [file[: len(file) - cut] for cut in range(3, len(file), len(file) // 40)]
    for content in damaged:
        with pytest.raises(PhotoError):
            decode_photo(content, MEGAPIXEL)
    decoded = 0
    for _ in range(150):
        at = rng.randrange(len(file))
        content = file[:at] + bytes([rng.randrange(256)]) + file[at + 1 :]
        try:
            pixels = decode_photo(content, MEGAPIXEL)
        except PhotoError:
            continue
        decoded += 1
        assert np.array_equal(pixels, by_pillow(content))
    assert 10 <= decoded <= 140


def wall_jpeg(**options) -> bytes:
    """A smooth picture, as a photo of a wall is."""
    grey = cv2.GaussianBlur(np.random.default_rng(1).normal(128, 60, (240, 320)), (0, 0), 2)
    return encoded(Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)), "JPEG", quality=90, **options)


def without_middle(jpeg: bytes, put: bytes = b"") -> bytes:
    """The JPEG with another middle third in its coded pixels."""
    start = jpeg.index(b"\xff\xda") + 14
    third = (len(jpeg) - start) // 3
    return jpeg[: start + third] + put * third + jpeg[start + 2 * third :]


@pytest.mark.parametrize("put", [b"", b"\0"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}]
)
def test_a_jpeg_that_lost_its_middle_is_refused(options, put):
    """Pillow and OpenCV decode it, with a clean grey wall where the rest of the photo was."""
    whole = wall_jpeg(**options)
    lost = without_middle(whole, put)
    assert by_pillow(lost) is not None
    assert decode_photo(whole, MEGAPIXEL).shape == (240, 320, 3)
    with pytest.raises(PhotoError, match="truncated or corrupt"):
        decode_photo(lost, MEGAPIXEL)


def test_lost_restart_markers_are_refused():
    """A copy that drops one restart interval shifts all that follows."""
    whole = wall_jpeg(restart_marker_rows=1)
    first, second = whole.index(b"\xff\xd2"), whole.index(b"\xff\xd3")
    with pytest.raises(PhotoError, match="truncated or corrupt"):
        decode_photo(whole[:first] + whole[second:], MEGAPIXEL)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_progressive_jpeg_without_its_last_scans_is_refused(mode):
    """It would be a blurred photo, for no decoder says that something is missing."""
    image = Image.fromarray(noise()).convert(mode)
    file = encoded(image, "JPEG", progressive=True, exif=b"Exif\0\0" + encoded(image, "JPEG"))
    starts = [at for at in range(len(file)) if file[at : at + 2] == b"\xff\xda"][1:]
    assert decode_photo(file, MEGAPIXEL).shape == (40, 60, 3)
    for at in starts[1:]:
        for lost in (file[:at], file[:at] + b"\xff\xd9"):
            with pytest.raises(PhotoError, match="truncated or corrupt"):
                decode_photo(lost, MEGAPIXEL)


def test_a_missing_end_marker_is_no_damage():
    """Nor are bytes after the end: all pixels are there."""
    whole = wall_jpeg()
    assert np.array_equal(decode_photo(whole[:-2], MEGAPIXEL), by_pillow(whole))
    assert np.array_equal(decode_photo(whole + bytes(100), MEGAPIXEL), by_pillow(whole))


def test_a_cmyk_jpeg_that_lost_its_end_is_refused():
    """Not only plain ones."""
    whole = encoded(Image.fromarray(noise(100, 100)).convert("CMYK"), "JPEG")
    assert decode_photo(whole, MEGAPIXEL).shape == (100, 100, 3)
    with pytest.raises(PhotoError):
        decode_photo(whole[: len(whole) // 2] + b"\xff\xd9", MEGAPIXEL)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_raise_nothing_else():
    """Flipped bytes either still decode or raise PhotoError, in every function."""
    rng = random.Random(5)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
    files = [encoded(Image.fromarray(noise(20, 30)), kind, exif=exif) for kind in kinds]
    files += [encoded(Image.fromarray(noise(20, 30)), kind) for kind in ("BMP", "JPEG2000", "MPO")]
    refused = 0
    for _ in range(300):
        damaged = bytearray(rng.choice(files))
        for _ in range(3):
            damaged[rng.randrange(min(300, len(damaged)))] = rng.randrange(256)
        for use in (lambda file: decode_photo(file, MEGAPIXEL), lambda file: decode_mask(file, MEGAPIXEL)):
            try:
                use(bytes(damaged))
            except PhotoError:
                refused += 1
    assert refused


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=25)
def test_stored_masks_are_one_bit_pngs_and_come_back_exactly(seed, height, width):
    """Of any size; over the limit none is decoded."""
    mask = np.random.default_rng(seed).integers(0, 2, (height, width), dtype=np.uint8) * np.uint8(255)
    file = encode_mask(mask)
    assert Image.open(io.BytesIO(file)).mode == "1"
    assert np.array_equal(decode_mask(file, mask.size), mask)
    with pytest.raises(PhotoError, match="megapixels"):
        decode_mask(file, mask.size - 1)


def test_damage_to_a_stored_mask_never_changes_it_silently():
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


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_masks_of_any_mode_are_cut_above_127(mode):
    """White is crack in every mode; 127 is not, 128 is."""
    grey = np.zeros((10, 12), np.uint8)
    grey[2:5] = 255
    if mode in ("L", "RGB", "RGBA", "LA"):
        grey[6:, :6], grey[6:, 6:] = np.array([[127, 60, 10, 0]]).T, np.array([[128, 170, 200, 250]]).T
    mask = decode_mask(encoded(Image.fromarray(grey).convert(mode)), MEGAPIXEL)
    assert np.array_equal(mask, np.where(grey > 127, 255, 0))


def test_sixteen_bit_masks_are_cut_at_the_same_share():
    """65535 is crack, 20000 is not."""
    grey = np.zeros((10, 12), np.uint16)
    grey[2], grey[5:9] = 65535, np.array([[20000], [9000], [700], [1]])
    mask = decode_mask(encoded(Image.fromarray(grey)), MEGAPIXEL)
    assert np.array_equal(mask[:, 0], np.where(np.arange(10) == 2, 255, 0))


@pytest.mark.parametrize(
    ("grey", "kind"),
    [(np.uint8(1), "PNG"), (np.uint16(1), "PNG")]
    + [(np.uint8(100), kind) for kind in ("PNG", "TIFF", "BMP", "JPEG2000", "JPEG")],
)
def test_marks_that_are_too_dark_are_refused_in_every_format(grey, kind):
    """A mask of class numbers, 0 and 1, or of dark grey would silently hide every crack."""
    dark = np.zeros((16, 16), grey.dtype)
    dark[4:8] = grey
    with pytest.raises(PhotoError, match="brightest value"):
        decode_mask(encoded(Image.fromarray(dark), kind), MEGAPIXEL)


@pytest.mark.parametrize(
    "values",
    [(0, 1, 255), (0, 127, 255), ((0, 0, 0), (255, 0, 0), (0, 255, 0))],
    ids=["void", "unsure", "colours"],
)
def test_a_mask_of_several_classes_is_refused(values):
    """One of its classes would silently become "no crack"."""
    classes = np.array(values, np.uint8)[np.arange(3).repeat(4)[:, None].repeat(8, 1)]
    with pytest.raises(PhotoError, match="holds the values"):
        decode_mask(encoded(Image.fromarray(classes)), MEGAPIXEL)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_black_marks_on_a_transparent_ground_are_refused(mode):
    """A layer of a drawing program; an empty layer is an empty mask."""
    layer = Image.new("RGBA", (12, 10), (0, 0, 0, 0))
    assert not decode_mask(encoded(layer.convert(mode)), MEGAPIXEL).any()
    layer.paste((0, 0, 0, 255), (2, 3, 9, 5))
    with pytest.raises(PhotoError, match="transparent"):
        decode_mask(encoded(layer.convert(mode)), MEGAPIXEL)


def test_black_masks_and_jpeg_noise_mean_no_crack():
    """An all-black mask is fine, and so is a JPEG one with a little noise."""
    black = np.zeros((10, 12), np.uint8)
    assert not decode_mask(encoded(Image.fromarray(black)), MEGAPIXEL).any()
    assert not decode_mask(encoded(Image.fromarray(black + np.uint8(3)), "JPEG"), MEGAPIXEL).any()


def test_only_rgb_jpegs_are_plain():
    """Anything else has to be encoded again to go into an image set."""
    kinds = [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG")]
    plain = [is_plain_jpeg(encoded(Image.new(mode, (9, 9)), kind)) for mode, kind in kinds]
    assert plain == [True, False, False, False]


@given(height=st.integers(1, 90), width=st.integers(1, 90), side_px=st.integers(1, 64))
@settings(max_examples=40)
def test_centre_square_has_its_side_and_keeps_flat_colour(height, width, side_px):
    """Any photo gives a square of the asked side; a flat photo stays flat."""
    square = centre_square(np.full((height, width, 3), 93, np.uint8), side_px)
    assert square.shape == (side_px, side_px, 3)
    assert (square == 93).all()


def test_centre_square_keeps_the_middle():
    """What lies beyond the middle square of a wide photo is cut off on both sides alike."""
    photo = np.zeros((20, 60, 3), np.uint8)
    photo[:, 20:40] = 255
    assert centre_square(photo, 20).min() == 255


def test_jpegs_are_rgb_and_repeatable():
    """Red stays red, and the same pixels give the same bytes."""
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    assert encode_jpeg(red) == encode_jpeg(red)
    assert decode_photo(encode_jpeg(red), MEGAPIXEL)[5, 5].tolist() == pytest.approx([255, 0, 0], abs=3)
