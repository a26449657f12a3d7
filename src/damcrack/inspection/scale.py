"""Millimetres per pixel of each photo, from what the user says, or from the distance and the camera's EXIF.

A drone's altitude and the camera's focus distance are no distance to the wall: nothing here reads them.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from damcrack.files import InputError, PhotoError
from damcrack.inspection.camera import Camera
from damcrack.inspection.spreadsheet import match_name, names_by_key, read_number, read_user_table

# Beyond these nobody photographs cracks: a microscope, and a pixel wider than a hand.
PLAUSIBLE_MM_PER_PX = (0.001, 100.0)
EXPECTED = "{:g} to {:g}".format(*PLAUSIBLE_MM_PER_PX)
COLUMNS = ("photo", "gsd_mm_per_px")


@dataclass(frozen=True)
class Scale:
    """How large a pixel is on the wall: one number, the camera's distance, or a number per photo by its name.

    The photo's own number overrides the one for all, and that the distance. A video's number is that of its frames.
    """

    gsd_mm_per_px: float | None = None
    distance_m: float | None = None
    by_photo: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in (self.gsd_mm_per_px, *self.by_photo.values()):
            if value is not None and not _is_plausible(value):
                raise InputError(
                    f"ground sampling distance {value:g} mm per pixel; expected {EXPECTED}. "
                    "It is the width of one pixel on the wall: 0.5 where 2000 pixels show one metre"
                )
        if self.distance_m is not None and not 0 < self.distance_m < 10_000:
            raise InputError(
                f"distance_m: {self.distance_m:g}; expected metres between camera and wall, above 0"
            )

    def of(self, name: str, encoded: bytes, width_px: int, height_px: int) -> float | None:
        """Millimetres per pixel of one photo; None if nothing says so.

        Raises:
            PhotoError: the distance is given, and the photo does not say what a pixel sees, or nothing plausible.
        """
        video = name.rpartition("@")[0]
        given = self.by_photo.get(name, self.by_photo.get(video, self.gsd_mm_per_px))
        if given is not None or self.distance_m is None:
            return given
        gsd = 1000 * self.distance_m * Camera.of(encoded).pixel_per_focal((height_px, width_px))
        if not _is_plausible(gsd):
            raise PhotoError(
                f"distance_m {self.distance_m:g} and its EXIF make {gsd:g} mm per pixel, "
                f"expected {EXPECTED}; give gsd_mm_per_px for it"
            )
        return gsd


def _is_plausible(gsd: float) -> bool:
    low, high = PLAUSIBLE_MM_PER_PX
    return math.isfinite(gsd) and low <= gsd <= high


def read_scale_csv(path: Path) -> dict[str, float]:
    """Read a table with the columns photo, gsd_mm_per_px; rows without a number are left out.

    Raises:
        InputError: it cannot be read so, a number is not plausible, or one photo has two of them.
    """
    by_photo: dict[str, float] = {}
    for row in read_user_table(path, COLUMNS):
        if not row["gsd_mm_per_px"]:
            continue
        name, gsd = row["photo"], read_number(row["gsd_mm_per_px"])
        if gsd is None or not _is_plausible(gsd):
            raise InputError(
                f"{path}: gsd_mm_per_px of {name} is {row['gsd_mm_per_px']!r}; "
                f"expected millimetres per pixel, {EXPECTED}"
            )
        if by_photo.setdefault(name, gsd) != gsd:
            raise InputError(f"{path}: {name} has {by_photo[name]:g} and {gsd:g}; leave one row for it")
    if not by_photo:
        raise InputError(f"{path}: no row with a number in gsd_mm_per_px; fill it in")
    return by_photo


def for_photos(by_photo: Mapping[str, float], photos: Collection[str]) -> dict[str, float]:
    """The table's numbers by the names of the survey's photos and videos, however the table spells them.

    Raises:
        InputError: a row is of no photo, or two rows of one photo differ.
    """
    found: dict[str, float] = {}
    known = names_by_key(photos)
    for written, gsd in by_photo.items():
        name = match_name(written, known, "the table of ground sampling distances")
        if found.setdefault(name, gsd) != gsd:
            raise InputError(
                f"the table of ground sampling distances has {found[name]:g} and {gsd:g} for {name}; "
                "leave one row for it"
            )
    return found


def without_number(scale: Scale, photos: Sequence[str]) -> str:
    """What is said of photos that the table leaves out; empty if there are none."""
    videos = {name.rpartition("@")[0] for name in scale.by_photo}
    missing = [name for name in photos if name not in scale.by_photo and name not in videos]
    if not missing:
        return ""
    instead = "the distance" if scale.distance_m is not None else "pixels alone"
    if scale.gsd_mm_per_px is not None:
        instead = f"{scale.gsd_mm_per_px:g} mm per pixel, the number for all"
    names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return f"the table of ground sampling distances has no number for {names}: measured by {instead}"
