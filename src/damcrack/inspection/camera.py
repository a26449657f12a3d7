"""What a photo's EXIF says of its camera: the angle that a pixel sees, and where the camera was.

Values are taken where they can be right only: damaged, contradicting and implausible ones count as absent.
"""

import io
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

from damcrack.data.photo import photo_size_hw
from damcrack.files import PhotoError

FILM_DIAGONAL_MM = math.hypot(36, 24)
# EXIF's FocalPlaneResolutionUnit: 2 inch, 3 cm, 4 mm, 5 micrometre; 1 is no unit, so no size.
UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
INCH = 2  # where the tag is missing (EXIF 2.3)
SENSOR_DIAGONAL_MM = (1.0, 150.0)  # a phone's third camera, and a large-format back
DIAGONAL_PER_FOCAL = (FILM_DIAGONAL_MM / 3000, FILM_DIAGONAL_MM / 4)  # from telescope to fisheye
NOWHERE_DEG = 1e-4  # 0, 0 is what receivers without a fix write
SAME_SHAPE = 0.01
# The film equivalent is a whole number, and of a camera that cuts 4:3 to 1:1 it is a sixth too small.
AGREEMENT = 0.25
OTHER_DATUMS = re.compile(r"TOKYO|GCJ|BD09|ED50|NAD27|AGD|PULKOVO|OSGB", re.IGNORECASE)
# What Pillow raises at damaged EXIF; a PhotoError is a ValueError.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    EOFError,
    RuntimeError,
    struct.error,
)

Tags = Mapping[int, Any]


@dataclass(frozen=True)
class Camera:
    """EXIF of one photo by tag; empty where it has none or where it is damaged: the photo itself may be whole."""

    exif: Tags
    gps: Tags

    @classmethod
    def of(cls, encoded: bytes) -> "Camera":
        """Read the tags of an encoded photo of any format that Pillow opens."""
        try:
            photo_size_hw(encoded)  # makes the readers of optional formats known to Pillow
            with Image.open(io.BytesIO(encoded)) as image:
                tags = image.getexif()
                exif, gps = tags.get_ifd(ExifTags.IFD.Exif), tags.get_ifd(ExifTags.IFD.GPSInfo)
                # Some converters write the camera's tags into the first part.
                return cls({**tags, **exif}, gps)
        except UNREADABLE:
            return cls({}, {})

    def pixel_per_focal(self, size_hw: tuple[int, int]) -> float:
        """Side of a pixel on the sensor over the focal length: times the distance, its side on the wall.

        The sensor's own resolution goes first; without it the focal length for 35 mm film, by the diagonal, which
        is the same for every shape of picture (CIPA DCG-001).

        Raises:
            PhotoError: the tags do not say it, contradict each other, or the photo has been cropped.
        """
        shrunk = self._shrunk(size_hw)
        zoom = max(1.0, _number(self.exif.get(ExifTags.Base.DigitalZoomRatio)) or 1.0)
        diagonal_px = math.hypot(*size_hw)
        sensor = _plausible(self._by_sensor(shrunk, diagonal_px), diagonal_px)
        film = _plausible(self._by_film(diagonal_px), diagonal_px)
        if sensor is None:
            if film is None:
                raise PhotoError(
                    "its EXIF says neither the focal length with the resolution of the sensor nor that for 35 mm film, "
                    "which distance_m needs; give gsd_mm_per_px for it"
                )
            if zoom == 1:
                return film
            raise PhotoError(
                f"it was taken with a digital zoom of {zoom:g}, and its EXIF does not say whether the focal length "
                "for 35 mm film holds it; give gsd_mm_per_px for it"
            )
        zoomed = sensor / zoom
        # Whether a camera multiplies the film equivalent by its digital zoom, EXIF leaves open.
        if film and min(_ratio(zoomed, film), _ratio(zoomed, film / zoom)) > 1 + AGREEMENT:
            raise PhotoError(
                "its EXIF contradicts itself: the focal length for 35 mm film and the resolution of the sensor "
                f"give sizes that differ by {_ratio(zoomed, film):.1f} times; give gsd_mm_per_px for it"
            )
        return zoomed

    def lon_lat(self) -> tuple[float, float] | None:
        """Longitude and latitude in degrees (WGS 84) of the camera; None if EXIF does not say, or says 0, 0."""
        gps = self.gps
        if _text(gps.get(ExifTags.GPS.GPSStatus)).upper().startswith("V"):  # void: the receiver had no fix
            return None
        if OTHER_DATUMS.search(_text(gps.get(ExifTags.GPS.GPSMapDatum)).replace("-", "").replace(" ", "")):
            return None
        latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "NS", 90)
        longitude = _degrees(
            gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "EW", 180
        )
        if latitude is None or longitude is None or max(abs(latitude), abs(longitude)) < NOWHERE_DEG:
            return None
        return longitude, latitude

    def _shrunk(self, size_hw: tuple[int, int]) -> float:
        """How many pixels of the camera's picture make one of the photo: 2 where it was exported at half size.

        Both sides sorted: some programs turn the pixels and leave the tags.
        """
        names = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
        taken = sorted(number for name in names if (number := _number(self.exif.get(name))) is not None)
        now = sorted(size_hw)
        if not taken or (len(taken) == 1 and taken[0] in now):
            return 1.0
        if len(taken) == 2:
            ratios = taken[0] / now[0], taken[1] / now[1]
            rounding = 1.5 / min(now[0], taken[0])
            if abs(ratios[0] / ratios[1] - 1) <= max(SAME_SHAPE, rounding):
                return ratios[1]
        raise PhotoError(
            f"it has {size_hw[1]} x {size_hw[0]} pixels, and its camera took "
            f"{' x '.join(f'{one:g}' for one in reversed(taken))}: a cropped photo does not say the size of its "
            "pixels; give gsd_mm_per_px for it"
        )

    def _by_sensor(self, shrunk: float, diagonal_px: float) -> float | None:
        focal_mm = _number(self.exif.get(ExifTags.Base.FocalLength))
        unit_mm = UNIT_MM.get(int(_number(self.exif.get(ExifTags.Base.FocalPlaneResolutionUnit, INCH)) or 0))
        names = (ExifTags.Base.FocalPlaneXResolution, ExifTags.Base.FocalPlaneYResolution)
        per_unit = [number for name in names if (number := _number(self.exif.get(name))) is not None]
        if not (focal_mm and unit_mm and per_unit) or max(per_unit) > 1.05 * min(per_unit):
            return None
        pixel_mm = unit_mm / per_unit[0] * shrunk
        low, high = SENSOR_DIAGONAL_MM
        return pixel_mm / focal_mm if low <= pixel_mm * diagonal_px <= high else None

    def _by_film(self, diagonal_px: float) -> float | None:
        at_35mm = _number(self.exif.get(ExifTags.Base.FocalLengthIn35mmFilm))
        return FILM_DIAGONAL_MM / at_35mm / diagonal_px if at_35mm else None


def _plausible(pixel_per_focal: float | None, diagonal_px: float) -> float | None:
    low, high = DIAGONAL_PER_FOCAL
    inside = pixel_per_focal is not None and low <= pixel_per_focal * diagonal_px <= high
    return pixel_per_focal if inside else None


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip("\0 \t\r\n") if isinstance(value, str) else ""


def _numbers(value: Any) -> list[float]:
    """Numbers of a tag of any type: 24, a rational, a tuple of them, '24/1', b"33 deg 51' 54.54"; NaN for 0/0."""
    if isinstance(value, (bytes, str)):
        text = _text(value)
        if "," in text and not text[-1:].isalpha():  # "46,51" is either degrees or degrees and minutes
            return []
        found = re.findall(r"(-?\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?", text)
        return [float(top) / float(bottom or 1) if float(bottom or 1) else math.nan for top, bottom in found]
    try:
        return [float(part) for part in (value if isinstance(value, (tuple, list)) else (value,))]
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return []


def _number(value: Any) -> float | None:
    """A number above 0, or None."""
    numbers = _numbers(value)
    return numbers[0] if len(numbers) == 1 and math.isfinite(numbers[0]) and numbers[0] > 0 else None


def _degrees(value: Any, ref: Any, letters: str, most: float) -> float | None:
    """Signed degrees of degrees, minutes and seconds, or fewer of them; `letters` are those of plus and minus.

    A negative number needs no letter; a positive one without is on either half of the earth, so nowhere.
    """
    parts = _numbers(value)
    if not 1 <= len(parts) <= 3 or not all(math.isfinite(part) for part in parts):
        return None
    size, (minutes, seconds) = abs(parts[0]), [*parts[1:], 0.0, 0.0][:2]
    size += minutes / 60 + seconds / 3600
    if not (0 <= minutes <= 60 and 0 <= seconds <= 60 and size <= most):
        return None
    letter = (_text(ref) or _last_letter(value))[:1].upper()
    below = parts[0] < 0
    if (letter and letter not in letters) or (not letter and not below) or (below and letter == letters[0]):
        return None
    return -size if below or letter == letters[1] else size


def _last_letter(value: Any) -> str:
    return _text(value)[-1:] if _text(value)[-1:].isalpha() else ""
