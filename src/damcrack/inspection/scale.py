"""Millimetres per pixel, and where a photo was taken, from what the user or the camera says."""

import csv
import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from damcrack.files import InputError, PhotoError

FULL_FRAME_WIDTH_MM = 36.0
PER_CM = 3  # EXIF's FocalPlaneResolutionUnit; 2 is per inch
# Beyond these nobody photographs cracks: a microscope, and a pixel wider than a hand.
PLAUSIBLE_MM_PER_PX = (0.001, 100.0)


@dataclass(frozen=True)
class Scale:
    """How large a pixel is on the wall: one number, the camera's distance, or a number per photo by its name.

    The photo's own number overrides the one for all, and that over the distance.
    """

    gsd_mm_per_px: float | None = None
    distance_m: float | None = None
    by_photo: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in (self.gsd_mm_per_px, *self.by_photo.values()):
            if value is not None:
                check_gsd(value)
        if self.distance_m is not None and not 0 < self.distance_m < 10_000:
            raise InputError(
                f"distance_m: {self.distance_m:g}; expected metres between camera and wall, above 0"
            )

    def of(self, name: str, encoded: bytes, width_px: int, height_px: int) -> float | None:
        """Millimetres per pixel of one photo; None if nothing says so.

        Raises:
            PhotoError: the distance is given, and the photo does not say its focal length.
        """
        given = self.by_photo.get(name, self.gsd_mm_per_px)
        if given is not None or self.distance_m is None:
            return given
        per_focal = sensor_per_focal(encoded, max(width_px, height_px))
        if per_focal is None:
            raise PhotoError(
                "its EXIF says neither the focal length for 35 mm nor that of its sensor, which distance_m needs; "
                "give gsd_mm_per_px for it"
            )
        return 1000 * self.distance_m * per_focal / max(width_px, height_px)


def check_gsd(value: float) -> None:
    """Refuse what cannot be millimetres per pixel.

    Raises:
        InputError: not a number, or not plausible.
    """
    low, high = PLAUSIBLE_MM_PER_PX
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(
            f"ground sampling distance {value:g} mm per pixel; expected {low:g} to {high:g}. "
            "It is the width of one pixel on the wall: 0.5 where 2000 pixels show one metre"
        )


def read_scale_csv(path: Path) -> dict[str, float]:
    """Read a table with the columns photo, gsd_mm_per_px.

    Raises:
        InputError: it cannot be read so.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        return {row["photo"]: float(row["gsd_mm_per_px"]) for row in rows}
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path}: no table with the columns photo,gsd_mm_per_px ({error}); fix it"
        ) from error


def sensor_per_focal(encoded: bytes, long_side_px: int) -> float | None:
    """Width of the sensor's long side over the focal length, from EXIF; None if it does not say."""
    exif = _exif(encoded, ExifTags.IFD.Exif)
    at_35mm = _number(exif.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if at_35mm:
        return FULL_FRAME_WIDTH_MM / at_35mm
    focal_mm = _number(exif.get(ExifTags.Base.FocalLength))
    per_unit = _number(exif.get(ExifTags.Base.FocalPlaneXResolution))
    if not focal_mm or not per_unit:
        return None
    unit_mm = 10.0 if exif.get(ExifTags.Base.FocalPlaneResolutionUnit) == PER_CM else 25.4
    return long_side_px / per_unit * unit_mm / focal_mm


def position(encoded: bytes) -> tuple[float, float] | None:
    """Longitude and latitude in degrees (WGS 84) of the camera, from EXIF; None if it does not say."""
    gps = _exif(encoded, ExifTags.IFD.GPSInfo)
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
    if latitude is None or longitude is None or not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    return longitude, latitude


def _exif(encoded: bytes, part: int) -> Mapping[int, Any]:
    """One part of the EXIF data by tag; nothing where it is damaged: the photo itself may well be whole."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return dict(image.getexif().get_ifd(part))
    except (OSError, SyntaxError, ValueError, struct.error):
        return {}


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _degrees(parts: Any, direction: Any, negative: str) -> float | None:
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(value):
        return None
    return -value if direction == negative else value
