import io

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from damcrack.files import InputError, PhotoError
from damcrack.inspection.camera import Camera
from damcrack.inspection.scale import Scale

FOCAL, FILM, X_RES, Y_RES, UNIT = 0x920A, 0xA405, 0xA20E, 0xA20F, 0xA210
WIDTH, HEIGHT, ZOOM = 0xA002, 0xA003, 0xA404
# A sensor of 13.2 mm behind 8.8 mm, 900 px wide: at 10 m a pixel is 16.67 mm wide.
INCH = {FOCAL: 8.8, X_RES: 1731.818, UNIT: 2}
FULL = 10_000 * 13.2 / 8.8 / 900


def encoded(size_wh=(90, 70), kind="JPEG", first=None, gps=None):
    image = Image.fromarray(np.zeros((size_wh[1], size_wh[0], 3), np.uint8))
    tags = Image.Exif()
    tags.get_ifd(0x8769).update(first or {})
    tags.get_ifd(0x8825).update(gps or {})
    file = io.BytesIO()
    image.save(file, kind, exif=tags.tobytes())
    return file.getvalue()


def gsd(tags, size_wh=(900, 700), distance_m=10, kind="JPEG"):
    photo = encoded(first=tags, kind=kind)
    return Scale(distance_m=distance_m).of("a.jpg", photo, *size_wh)


@pytest.mark.parametrize(
    "tags",
    [
        INCH,
        {FOCAL: 8.8, X_RES: 1731.818},  # inch where the unit is missing
        {FOCAL: 8.8, X_RES: 681.818, UNIT: 3},
        {FOCAL: 8.8, X_RES: 68.1818, UNIT: 4},
        {FOCAL: 8.8, X_RES: IFDRational(681818, 10_000_000), UNIT: 5},
        {FOCAL: 8.8, Y_RES: 1731.818, UNIT: 2},
        INCH | {WIDTH: 900, HEIGHT: 700},
        INCH | {WIDTH: 900},
        INCH | {WIDTH: 700, HEIGHT: 900},  # pixels turned, tags left
        INCH | {ZOOM: IFDRational(0, 1)},  # 0: not used
        INCH | {FILM: 0},  # 0: unknown
    ],
)
def test_the_sensors_resolution_gives_the_scale_in_every_unit(tags):
    """The same camera, whatever its tags are written in."""
    assert gsd(tags) == pytest.approx(FULL, rel=1e-4)


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "TIFF"])
def test_every_format_says_its_camera(kind):
    """EXIF of a PNG and a TIFF counts as that of a JPEG."""
    assert gsd(INCH, kind=kind) == pytest.approx(FULL, rel=1e-4)
    place = {1: "S", 2: (33.0, 51.0, 54.54), 3: "E", 4: (18.0, 25.0, 26.4)}
    assert Camera.of(encoded(kind=kind, gps=place)).lon_lat() == pytest.approx((18.424, -33.86515))


def test_four_thirds_go_by_their_sensor_and_film_by_its_diagonal():
    """A sensor of 17.3 mm behind 12.29 mm; the film's 43.27 mm lie across the photo, whatever its shape."""
    sensor = {FOCAL: 12.29, FILM: 24, X_RES: 520.23, UNIT: 3}
    assert gsd(sensor, (900, 675)) == pytest.approx(15.64, abs=0.01)
    film = {FOCAL: 12.29, FILM: 24}
    assert gsd(film, (900, 675)) == pytest.approx(10_000 * 34.614 / 24 / 900, rel=1e-4)
    assert gsd(film, (675, 900)) == pytest.approx(10_000 * 34.614 / 24 / 900, rel=1e-4)
    assert gsd({FILM: 35}, (3000, 2000), 7) == pytest.approx(7200 / 3000)


@pytest.mark.parametrize("size_wh", [(450, 350), (350, 450), (300, 233), (1800, 1400)])
def test_an_exported_photos_pixels_are_larger(size_wh):
    """Half as many pixels, each twice as large; the film equivalent needs no such care."""
    shrunk = 900 / max(size_wh)
    assert gsd(INCH | {WIDTH: 900, HEIGHT: 700}, size_wh) == pytest.approx(FULL * shrunk, rel=1e-3)
    at_film = gsd({FILM: 24, WIDTH: 900, HEIGHT: 700}, size_wh)
    assert at_film == pytest.approx(gsd({FILM: 24}) * shrunk, rel=5e-3)


@pytest.mark.parametrize(
    ("tags", "size_wh"),
    [
        (INCH | {WIDTH: 900, HEIGHT: 700}, (450, 700)),  # cropped
        (INCH | {WIDTH: 900, HEIGHT: 700}, (600, 300)),  # cropped and exported
        ({FILM: 24, WIDTH: 900, HEIGHT: 700}, (500, 500)),
        (INCH | {WIDTH: 900}, (450, 350)),  # one side does not say which
        ({FOCAL: 8.8, X_RES: 1731.818, UNIT: 1}, (900, 700)),  # no unit
        ({FOCAL: 8.8, X_RES: 1731.818, UNIT: 9}, (900, 700)),
        ({FOCAL: 8.8, X_RES: 68.182, UNIT: 2}, (900, 700)),  # a sensor of 335 mm
        ({FOCAL: IFDRational(0, 0), X_RES: 1731.818}, (900, 700)),
        ({FOCAL: 0.0, X_RES: 1731.818}, (900, 700)),
        ({FOCAL: 8.8, X_RES: IFDRational(0, 0)}, (900, 700)),
        ({FILM: 65535}, (900, 700)),
        ({FILM: 24, ZOOM: 2.0}, (900, 700)),  # is it in the 24 mm or not?
        (INCH | {FILM: 70}, (900, 700)),  # the sensor says 23 mm
        (INCH | {X_RES: 1731.818, Y_RES: 800.0}, (900, 700)),
        ({}, (900, 700)),
    ],
)
def test_a_scale_that_cannot_be_right_is_absent(tags, size_wh):
    """Such a photo is set aside, with a number as the way out."""
    with pytest.raises(PhotoError, match="give gsd_mm_per_px"):
        gsd(tags, size_wh)


@pytest.mark.parametrize("film", [{}, {FILM: 23}, {FILM: 46}])
def test_digital_zoom_makes_pixels_smaller(film):
    """At twice the zoom half as wide, whether or not the film equivalent counts it."""
    assert gsd(INCH | film | {ZOOM: 2.0}) == pytest.approx(FULL / 2, rel=1e-4)


def test_a_computed_scale_has_the_limits_of_a_given_one():
    """10 cm a pixel is the most."""
    with pytest.raises(PhotoError, match="give gsd_mm_per_px"):
        gsd(INCH, distance_m=100)
    with pytest.raises(InputError):
        Scale(distance_m=0)
    assert Scale(gsd_mm_per_px=2.0, distance_m=100).of("a", encoded(first=INCH), 900, 700) == 2.0


@pytest.mark.parametrize("text", ["8.8", "88/10", b"8.8 mm\0", (8.8,)])
def test_numbers_are_read_from_every_type(text):
    """Some programs write rationals as text."""
    camera = Camera({FOCAL: text, X_RES: "1731.818", UNIT: 2}, {})
    assert camera.pixel_per_focal((700, 900)) == pytest.approx(FULL / 10_000, rel=1e-4)


CAPE = ((33.0, 51.0, 54.54), (18.0, 25.0, 26.4))


@pytest.mark.parametrize(
    ("south", "west"),
    [("S", "W"), ("s", "w"), (b"S\0", b"W\0"), (" S ", "West"), ("South", "WEST"), ("south latitude", "w\0")],
)
def test_every_spelling_of_the_hemispheres_counts(south, west):
    """South and west are negative."""
    gps = {1: south, 2: CAPE[0], 3: west, 4: CAPE[1]}
    assert Camera({}, gps).lon_lat() == pytest.approx((-18.424, -33.86515))


@pytest.mark.parametrize(
    "value",
    [
        (33.0, 51.0, 54.54),
        (33.0, 51.909, 0.0),
        (33.0, 51.909),
        (33.86515, 0.0, 0.0),
        (33.86515,),
        33.86515,
        IFDRational(3386515, 100000),
        "33.86515",
        "33/1 51/1 5454/100",
        "33,51.909S",
        "33 deg 51' 54.54\" S",
        (-33.86515,),
    ],
)
def test_degrees_are_read_from_every_form(value):
    """Parts with fractions, fewer parts, text, and a sign together with its letter."""
    assert Camera({}, {1: "S", 2: value, 3: "E", 4: CAPE[1]}).lon_lat() == pytest.approx((18.424, -33.86515))


@pytest.mark.parametrize(
    "changed",
    [
        {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)},
        {2: (IFDRational(0, 0),) * 3, 4: (IFDRational(0, 0),) * 3},
        {2: (33.0, 51.0, IFDRational(0, 0))},
        {1: None},
        {3: None},
        {1: "E"},
        {3: "O"},
        {1: "N", 2: (-33.0, 51.0, 54.54)},
        {2: (91.0, 0.0, 0.0)},
        {2: (90.0, 30.0, 0.0)},
        {4: (181.0, 0.0, 0.0)},
        {2: (33.0, 75.0, 0.0)},
        {2: (33.0, -5.0, 0.0)},
        {2: ()},
        {2: (1.0, 2.0, 3.0, 4.0)},
        {2: "somewhere"},
        {2: "46,51"},
        {4: None},
        {9: "V"},
        {9: b"v\0"},
        {18: "TOKYO"},
        {18: "GCJ-02"},
    ],
)
def test_a_place_that_cannot_be_right_is_absent(changed):
    """No fix, no hemisphere, out of range, or another ellipsoid: no position."""
    gps = {1: "S", 2: CAPE[0], 3: "E", 4: CAPE[1], 9: "A", 18: "WGS-84"} | changed
    assert Camera({}, gps).lon_lat() is None


def test_a_missing_letter_is_the_sign_of_a_negative_number():
    """Programs that write signed degrees leave the letter out."""
    assert Camera({}, {2: (-33.5,), 4: (-18.25,)}).lon_lat() == pytest.approx((-18.25, -33.5))


def test_damaged_exif_says_nothing():
    """The photo itself may be whole."""
    whole = encoded(first=INCH)
    at = whole.index(b"Exif\0\0")
    for damage in (b"\xff" * 40, b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 60):
        broken = whole[: at + 6] + damage + whole[at + 6 + len(damage) :]
        camera = Camera.of(broken)
        assert camera.lon_lat() is None
        with pytest.raises(PhotoError):
            camera.pixel_per_focal((700, 900))
    assert Camera.of(b"no photo").lon_lat() is None
