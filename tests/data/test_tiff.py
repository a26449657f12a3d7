"""What TIFF can hold beside 8-bit RGB: read with the pixels of tifffile, another reader, or refused."""

import io
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from damcrack.data.photo import decode_photo, decode_with_gaps, photo_size_hw
from damcrack.files import PhotoError

MEGAPIXEL = 10**6


def smooth(channels=3, seed=0, size=(97, 131)):
    noise = np.random.default_rng(seed).normal(0, 1, (*size, channels)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 3).reshape(*size, channels)
    scaled = (blurred - blurred.min()) / (blurred.max() - blurred.min())
    return np.squeeze((255 * scaled).astype(np.uint8))


def written(*arrays, **options):
    """Bytes of a TIFF with one page per array, or per pair of array and its own options."""
    file = io.BytesIO()
    form = {name: options.pop(name) for name in ("bigtiff", "byteorder") if name in options}
    with tifffile.TiffWriter(file, **form) as writer:
        for one in arrays:
            pixels, own = one if isinstance(one, tuple) else (one, {})
            writer.write(pixels, **options, **own)
    return file.getvalue()


def by_tifffile(file, page=0):
    with tifffile.TiffFile(io.BytesIO(file)) as opened:
        return opened.pages[page].asarray()


RGB, GREY = smooth(), smooth(1)
GREY_RGB = np.repeat(GREY[..., None], 3, 2)
WIDE_RGB, WIDE_GREY = RGB.astype(np.uint16) * 257, GREY.astype(np.uint16) * 257
PLANES = np.ascontiguousarray(WIDE_RGB.transpose(2, 0, 1))
UP_TO_4095 = [(281, "H", 1, 4095, True)]
COLORS = np.repeat(np.arange(256, dtype=np.uint16)[None], 3, 0)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (PLANES, {"photometric": "rgb", "planarconfig": "separate"}),
        (PLANES, {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}),
        (PLANES, {"photometric": "rgb", "planarconfig": "separate", "tile": (64, 48)}),
        (RGB, {"photometric": "rgb", "tile": (64, 48), "compression": "zlib", "predictor": True}),
        (WIDE_RGB, {"photometric": "rgb", "byteorder": ">", "rowsperstrip": 7}),
        (WIDE_RGB, {"photometric": "rgb", "bigtiff": True}),
        (np.dstack([RGB, GREY]), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    ],
)  # fmt: skip
def test_colours_have_the_pixels_of_tifffile(pixels, options):
    """Planes apart or not, tiles or strips, either byte order; a fourth band that nobody calls alpha is left out."""
    file = written(pixels, **options)
    expected = by_tifffile(file)
    expected = expected.transpose(1, 2, 0) if expected.shape[0] == 3 else expected[..., :3]
    assert np.array_equal(
        decode_photo(file, MEGAPIXEL), (expected >> 8 if expected.dtype == np.uint16 else expected)
    )


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (WIDE_GREY, {"photometric": "minisblack", "byteorder": ">"}),
        (GREY.astype(np.uint16) << 4, {"photometric": "minisblack", "extratags": UP_TO_4095}),
        (GREY.astype(np.uint16) << 2, {"photometric": "minisblack", "extratags": [(281, "H", 1, 1023, True)]}),
        (255 - GREY, {"photometric": "miniswhite"}),
        (65535 - WIDE_GREY, {"photometric": "miniswhite"}),
        (65535 - WIDE_GREY, {"photometric": "miniswhite", "byteorder": ">"}),
        (65535 - WIDE_GREY, {"photometric": "miniswhite", "bigtiff": True}),
        ((4095 - (GREY.astype(np.uint16) << 4)), {"photometric": "miniswhite", "extratags": UP_TO_4095}),
        (GREY, {"photometric": "palette", "colormap": COLORS}),
        (GREY, {"photometric": "palette", "colormap": COLORS * 257}),
    ],
)  # fmt: skip
def test_grey_fills_the_range_that_the_file_declares(pixels, options):
    """16 bits, 10 and 12 bits in 16, white as zero, palettes of 8 and of 16 bits: all show the same wall."""
    assert np.abs(decode_photo(written(pixels, **options), MEGAPIXEL).astype(int) - GREY_RGB).max() <= 1


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colours_of_twelve_bits_fill_the_range_too(compression):
    """Three values of 0 to 4095 each."""
    options = {"extratags": [(281, "H", 3, (4095,) * 3, True)], "compression": compression}
    file = written(RGB.astype(np.uint16) << 4, photometric="rgb", **options)
    assert np.array_equal(decode_photo(file, MEGAPIXEL), RGB)


def twelve_bits_packed(values):
    """Two values in three bytes, as TIFF packs BitsPerSample = 12: a plain file, header, one strip, tags."""
    height, width = values.shape
    high, low = values[:, 0::2].astype(np.uint16), values[:, 1::2].astype(np.uint16)
    strip = np.dstack([high >> 4, (high & 15) << 4 | low >> 8, low & 255]).astype(np.uint8).tobytes()
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(strip))
    return head + strip + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_twelve_bits_are_the_whole_range():
    """Not the lowest sixteenth of 16 bits."""
    values = (GREY[:, :130].astype(np.uint16) << 4) + 7
    assert np.array_equal(decode_photo(twelve_bits_packed(values), MEGAPIXEL), GREY_RGB[:, :130])


@pytest.mark.parametrize("kind", [".tif", ".png", ".jp2"])
@pytest.mark.parametrize("pixels", [GREY.astype(np.uint16) << 4, RGB.astype(np.uint16) << 4])
def test_fewer_bits_that_nobody_declares_are_refused(pixels, kind):
    """Read as 16 bits the wall would be black, and no crack in it."""
    with pytest.raises(PhotoError, match="how many bits"):
        decode_photo(cv2.imencode(kind, pixels)[1].tobytes(), MEGAPIXEL)


def test_more_than_the_declared_range_is_refused():
    """The tag is wrong, or the pixels are."""
    with pytest.raises(PhotoError, match="declares 12 bits"):
        decode_photo(written(WIDE_GREY, photometric="minisblack", extratags=UP_TO_4095), MEGAPIXEL)


SMALL = np.ascontiguousarray(RGB[::2, ::2])


@pytest.mark.parametrize(
    ("pages", "options"),
    [
        ([(SMALL, {"subfiletype": 1}), RGB], {}),
        ([RGB, (SMALL, {"subfiletype": 1})], {}),
        ([SMALL, RGB], {}),
        ([RGB, RGB[::-1]], {}),
        ([(SMALL.astype(np.float32), {"subfiletype": 1}), RGB], {}),
        ([(SMALL, {"subifds": 1}), RGB], {}),
        ([(SMALL, {"subifds": 1}), RGB], {"bigtiff": True}),
        ([(RGB, {"subifds": 1}), (SMALL, {"subfiletype": 1})], {"bigtiff": True}),
        ([(np.kron(RGB, np.ones((2, 2, 1), np.uint8)), {"subfiletype": 1}), RGB], {"byteorder": ">"}),
    ],
)
def test_the_full_size_page_is_the_photo(pages, options):
    """Wherever it lies in the file, unless it is marked as reduced, the first of equals, whatever the others are."""
    file = written(*pages, photometric="rgb", **options)
    assert np.array_equal(decode_photo(file, MEGAPIXEL), RGB)
    assert photo_size_hw(file) == RGB.shape[:2]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (written(RGB / np.float32(255), photometric="rgb"), "32-bit floating-point"),
        (written(GREY.astype(np.int16), photometric="minisblack"), "16-bit signed"),
        (written(GREY.astype(np.uint32), photometric="minisblack"), "32-bit integer"),
        (written(np.dstack([RGB, GREY]), photometric="minisblack", planarconfig="contig"), "4 bands"),
        (written(np.dstack([RGB, GREY, GREY]), photometric="rgb", planarconfig="contig"), "5 bands"),
        (written(np.dstack([WIDE_GREY, WIDE_GREY]), photometric="minisblack", planarconfig="contig",
                 extrasamples=["unassalpha"]), "16-bit values in 2 bands"),
        (written(GREY, photometric="cfa"), "raw file"),
        (written(RGB, photometric="rgb", extratags=[(50706, "B", 4, b"\1\4\0\0", True)]), "raw file"),
        (written((SMALL, {"subifds": 1, "photometric": "rgb"}), (GREY, {"photometric": "cfa"})), "raw file"),
        (written(RGB, photometric="rgb", bigtiff=True, byteorder=">"), "BigTIFF in big-endian"),
        (written(RGB, photometric="cielab"), "colours of kind 8"),
        (written(RGB, photometric="rgb").replace(b"\3\1\3\0\1\0\0\0\1\0", b"\3\1\3\0\1\0\0\0\x47\x88"), "LERC"),
        (written(RGB, photometric="rgb").replace(b"\3\1\3\0\1\0\0\0\1\0", b"\3\1\3\0\1\0\0\0\x51\xc3"), "WebP"),
        (written(RGB, photometric="rgb")[:-5000], "truncated or corrupt"),
        (b"II*\0", "truncated or corrupt"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "TIFF"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_rightly_is_refused(file, says):
    """The reason names the property."""
    with pytest.raises(PhotoError, match=says):
        decode_photo(file, MEGAPIXEL)


def test_damaged_strips_are_refused_without_a_line_on_the_console(tmp_path):
    """Libtiff and Pillow print lines that name no photo; the reason says it all."""
    file = bytearray(written(RGB, photometric="rgb", compression="zlib", rowsperstrip=20))
    file[2000:2100] = bytes(100)
    (tmp_path / "a.tif").write_bytes(file)
    exif = io.BytesIO()
    Image.fromarray(RGB).save(exif, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\3")
    (tmp_path / "b.jpg").write_bytes(exif.getvalue())
    code = (
        "import sys\n"
        "from damcrack.data.photo import PhotoError, decode_photo\n"
        "decode_photo(open(sys.argv[2], 'rb').read(), 10**6)\n"
        "try: decode_photo(open(sys.argv[1], 'rb').read(), 10**6)\n"
        "except PhotoError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.tif", tmp_path / "b.jpg"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_a_jpeg_strip_that_lost_a_part_is_refused():
    """Libtiff fills it with grey, as libjpeg does."""
    file = io.BytesIO()
    Image.fromarray(np.tile(RGB, (4, 4, 1))).save(file, "TIFF", compression="jpeg")
    whole = file.getvalue()
    assert decode_photo(whole, MEGAPIXEL).shape == (388, 524, 3)
    with tifffile.TiffFile(io.BytesIO(whole)) as opened:
        start, count = opened.pages[0].dataoffsets[0], opened.pages[0].databytecounts[0]
    lost = bytearray(whole)
    lost[start + count // 2 : start + count - 2] = bytes(count - count // 2 - 2)
    with pytest.raises(PhotoError, match="truncated or corrupt"):
        decode_photo(bytes(lost), MEGAPIXEL)


def collar(size=(300, 400), value=0):
    """A grey wall whose left third, slanted, is `value`; True where it is."""
    wall = cv2.resize(RGB // 4 + 100, size[::-1])
    outside = np.tri(*size, size[1] // 3 - size[0] // 2, dtype=bool)
    wall[outside] = value
    return wall, outside


def test_nodata_in_a_jpeg_is_about_its_value():
    """Compression changes the collar by some grey values, and its edge by a few pixels."""
    wall, outside = collar()
    file = io.BytesIO()
    Image.fromarray(wall).save(file, "TIFF", compression="jpeg", quality=90, tiffinfo={42113: "0"})
    gaps = decode_with_gaps(file.getvalue(), MEGAPIXEL)[1]
    assert (gaps != outside).mean() < 0.01


@pytest.mark.parametrize("value", [0, 255])
def test_nodata_of_a_geotiff_is_a_gap(value):
    """All of the collar, up to its slanted edge, and nothing of the wall; it is shown white."""
    wall, outside = collar(value=value)
    file = written(wall, photometric="rgb", compression="zlib", extratags=[(42113, "s", 0, str(value), True)])
    rgb, gaps = decode_with_gaps(file, MEGAPIXEL)
    assert np.array_equal(gaps, outside)
    assert np.array_equal(rgb, np.where(outside[..., None], 255, wall))
    assert decode_with_gaps(written(wall, photometric="rgb"), MEGAPIXEL)[1] is None


@pytest.mark.parametrize("kind", ["miniswhite", "alpha"])
def test_nodata_is_the_value_in_the_file(kind):
    """White may be its zero; an alpha band that is opaque everywhere does not hide it."""
    wall, outside = collar()
    grey = wall[..., 0]
    stored = grey if kind == "miniswhite" else np.dstack([wall, np.full_like(grey, 255)])
    options = {"photometric": kind} if kind == "miniswhite" else {"extrasamples": ["unassalpha"]}
    file = written(stored, **{"photometric": "rgb"} | options, extratags=[(42113, "s", 0, "0", True)])
    rgb, gaps = decode_with_gaps(file, MEGAPIXEL)
    assert np.array_equal(gaps, outside)
    assert (rgb[outside] == 255).all()


def test_a_black_crack_is_no_gap():
    """Its pixels have the value for nodata; it is narrow, so it stays."""
    wall, outside = collar()
    cv2.line(wall, (200, 20), (395, 290), (0, 0, 0), 6)
    crack = (wall == 0).all(axis=2) & ~outside
    file = written(wall, photometric="rgb", extratags=[(42113, "s", 0, "0", True)])
    rgb, gaps = decode_with_gaps(file, MEGAPIXEL)
    assert not (gaps & crack).any()
    assert (rgb[crack] == 0).all()


def test_alpha_and_mask_pages_are_gaps():
    """As GDAL writes them."""
    wall, outside = collar()
    shown = np.where(outside, 0, 255).astype(np.uint8)
    alpha = written(np.dstack([wall, shown]), photometric="rgb", extrasamples=["unassalpha"])
    undeclared = alpha.replace(b"\x52\1\3\0", b"\x51\1\3\0", 1)  # the tag becomes another one
    mask = written((wall, {"photometric": "rgb"}), (shown > 0, {"photometric": "mask", "subfiletype": 4}))
    for file in (alpha, mask, undeclared):
        rgb, gaps = decode_with_gaps(file, MEGAPIXEL)
        assert np.array_equal(gaps, outside)
        assert np.array_equal(rgb, np.where(outside[..., None], 255, wall))
