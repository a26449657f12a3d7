"""Where on the structure: a map of camera positions without network, and the sequence of photos, as SVG shapes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAP_PX, MARGIN_PX = 640.0, 24.0
STRIP_PX, BAR_PX = (1000.0, 60.0), 56.0
METRES_PER_DEGREE = 111_320.0
NO_PLACE_M = 0.5  # positions that lie closer together show no map


@dataclass(frozen=True)
class Stop:
    """One photo on the way: length of its cracks in mm, or in px where it has no scale."""

    number: int
    photo: str
    verdict: str
    lon_lat: tuple[float, float] | None
    length: float


def overview(stops: Sequence[Stop], legend: Mapping[str, str], mixed_units: bool) -> dict[str, Any]:
    """What where.html.j2 shows; `legend` has a word for each verdict, `mixed_units`: some photos have no scale."""
    return {
        "camera_map": _camera_map(stops),
        "strip": _strip(stops),
        "legend": legend,
        "mixed_units": mixed_units,
    }


def _camera_map(stops: Sequence[Stop]) -> dict[str, Any] | None:
    """Circles, a scale bar and the size of a map with north up; None where fewer than two places are known.

    Degrees become metres around the middle of the survey (equirectangular), good to a per mille within kilometres.
    """
    placed = [stop for stop in stops if stop.lon_lat]
    xy = _metres([stop.lon_lat for stop in placed if stop.lon_lat])
    if not xy:
        return None
    left, top = (min(point[axis] for point in xy) for axis in (0, 1))
    width, height = (max(point[axis] for point in xy) - low for axis, low in ((0, left), (1, top)))
    extent = max(width, height)
    if extent < NO_PLACE_M:
        return None
    px_per_m = (MAP_PX - 2 * MARGIN_PX) / extent
    bar_m = _round_length(extent / 4)
    places = [[MARGIN_PX + (x - left) * px_per_m, MARGIN_PX + (y - top) * px_per_m] for x, y in xy]
    return {
        "dots": [
            {"stop": stop, "x": round(x, 1), "y": round(y, 1)}
            for stop, (x, y) in zip(placed, places, strict=True)
        ],
        "size": (MAP_PX, round(height * px_per_m + 2 * MARGIN_PX + 40, 1)),
        "bar": {
            "px": round(bar_m * px_per_m, 1),
            "label": f"{bar_m:g} m" if bar_m < 1000 else f"{bar_m / 1000:g} km",
        },
        "num_without": len(stops) - len(placed),
    }


def _metres(lon_lat: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """East and south of the first position; surveys that cross the date line stay together."""
    shrink = math.cos(math.radians(sum(lat for _, lat in lon_lat) / max(1, len(lon_lat))))
    east_deg = [((lon - lon_lat[0][0] + 180) % 360 - 180) * shrink for lon, _ in lon_lat]
    south_deg = [lon_lat[0][1] - lat for _, lat in lon_lat]
    return [(x * METRES_PER_DEGREE, y * METRES_PER_DEGREE) for x, y in zip(east_deg, south_deg, strict=True)]


def _round_length(most: float) -> float:
    """The largest of 1, 2, 5, 10, ... times a power of ten that is at most `most`."""
    step = 10.0 ** math.floor(math.log10(most))
    return max(factor * step for factor in (1, 2, 5) if factor * step <= most * (1 + 1e-9))


def _strip(stops: Sequence[Stop]) -> list[dict[str, Any]]:
    """One bar per photo in its sequence, as high as the length of cracks in it; bars are 1 px high at least."""
    longest = max((stop.length for stop in stops), default=0.0) or 1.0
    width = STRIP_PX[0] / max(1, len(stops))
    return [
        {
            "stop": stop,
            "x": round(place * width, 2),
            "width": round(max(0.3, width - min(2.0, width / 5)), 2),
            "height": round(max(2.0, BAR_PX * stop.length / longest), 1),
        }
        for place, stop in enumerate(stops)
    ]
