"""A survey as a GeoPackage for GIS: layers `photos` and `cracks`, with the columns of photos.csv and cracks.csv.

What a person said of each crack is in it too. Both are points at the places of the cameras (WGS 84). Rows of photos
without a place have no geometry.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.cracks.findings import Findings
from damcrack.files import InputError
from damcrack.inspection.tables import DECIDED_COLUMNS, PHOTO_COLUMNS, crack_rows, photo_row

Place = tuple[float, float] | None


@contextmanager
def geopackage(path: Path) -> Iterator[Callable[[Path, Findings], None]]:
    """Collect photo after photo, then write both layers.

    Raises:
        InputError: the disk is full, or GDAL fails otherwise.
    """
    from pyogrio.errors import DataLayerError, DataSourceError

    photos, cracks = list[dict[str, Any]](), list[dict[str, Any]]()
    photo_places, crack_places = list[Place](), list[Place]()

    def add(folder: Path, findings: Findings) -> None:
        photos.append(photo_row(findings, folder.name))
        photo_places.append(findings.lon_lat)
        cracks.extend(crack_rows(findings))
        crack_places.extend([findings.lon_lat] * len(findings.cracks))

    yield add
    try:
        _write_layer(path, "photos", PHOTO_COLUMNS, photos, photo_places)
        _write_layer(path, "cracks", DECIDED_COLUMNS, cracks, crack_places)
    except (DataLayerError, DataSourceError) as error:  # GDAL does not say more of a full disk
        raise InputError(
            f"cannot write {path.name} ({error}); free some space, or choose another --out"
        ) from error


def _write_layer(
    path: Path, layer: str, columns: Sequence[str], rows: Sequence[dict[str, Any]], places: Sequence[Place]
) -> None:
    from pyogrio.raw import write

    values, masks = zip(*(_column([row.get(name, "") for row in rows]) for name in columns), strict=True)
    write(
        path,
        np.array([None if place is None else _point(place) for place in places], object),
        list(values),
        list(columns),
        field_mask=list(masks),
        layer=layer,
        driver="GPKG",
        geometry_type="Point",
        crs="EPSG:4326",
        append=False,
    )


def _column(values: Sequence[Any]) -> tuple[Any, Any]:
    """Values of one column with empty cells masked: text, whole numbers or numbers."""
    empty = np.array([value == "" for value in values], np.bool_)
    if any(isinstance(value, str) and value for value in values):
        return np.array(values, object), empty
    whole = all(isinstance(value, int) for value in values)
    numbers = [0 if value == "" else value for value in values]
    return np.array(numbers, np.int64 if whole and values else np.float64), empty


def _point(lon_lat: tuple[float, float]) -> bytes:
    """Well-known binary: little-endian, a point."""
    return struct.pack("<BIdd", 1, 1, *lon_lat)
