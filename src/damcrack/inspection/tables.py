"""What a survey found, as rows: the same ones in tables for a spreadsheet, in GeoJSON and in a GeoPackage.

OUT/photos.csv        one row per photo: verdict, most confident block, cracks, longest and widest
OUT/blocks.csv        one row per block: box in pixels, crack probability
OUT/cracks.csv        one row per crack: box, length, width, branches, in pixels and in millimetres where known
OUT/cracks.geojson    one feature per crack (RFC 7946: degrees, or no geometry), its lines in pixels of the photo
OUT/survey.gpkg       layers `photos` and `cracks` with the columns of photos.csv and cracks.csv (WGS 84)

Where a crack lies on the wall, GPS does not say: in GIS all are points at the place of the camera.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.cracks.findings import Findings, crack_name
from damcrack.files import InputError, replacing
from damcrack.inspection.spreadsheet import Row, open_table

Add = Callable[[Path, Findings], Any]  # takes one photo: its folder in the survey, and what was found

MEASURES = ("length", "width", "width_max")
BOX_COLUMNS = ("x0_px", "y0_px", "x1_px", "y1_px")
BLOCK_COLUMNS = ("photo", *BOX_COLUMNS, "crack_prob")
OTHERS = ("num_branches", "area_px", "crack_prob", "confidence")
CRACK_COLUMNS = (
    "crack",
    "photo",
    *(f"{name}_px" for name in MEASURES),
    *(f"{name}_mm" for name in MEASURES),
    *OTHERS,
    *BOX_COLUMNS,
)
DECIDED_COLUMNS = (*CRACK_COLUMNS, "class", "severity", "note")  # of exported cracks
PHOTO: dict[str, Callable[[Findings], Any]] = {
    "photo": lambda of: of.photo,
    "verdict": lambda of: of.verdict,
    "doubt": lambda of: of.doubt,
    "max_crack_prob": lambda of: of.max_crack_prob,
    "num_blocks": lambda of: len(of.blocks),
    "num_crack_blocks": lambda of: sum(block.crack_prob >= of.threshold for block in of.blocks),
    "num_cracks": lambda of: len(of.cracks),
    "length_px": lambda of: round(_length_px(of), 1),
    "width_max_px": lambda of: _width_max_px(of),
    "gsd_mm_per_px": lambda of: "" if of.gsd_mm_per_px is None else of.gsd_mm_per_px,
    "length_mm": lambda of: _in_mm(_length_px(of), of),
    "width_max_mm": lambda of: _in_mm(_width_max_px(of), of),
    "longitude": lambda of: of.lon_lat[0] if of.lon_lat else "",
    "latitude": lambda of: of.lon_lat[1] if of.lon_lat else "",
    "sha256": lambda of: of.sha256,
}
PHOTO_COLUMNS = (*PHOTO, "folder")


def photo_row(folder: Path, findings: Findings) -> dict[str, Any]:
    """One photo in a line."""
    return {name: value(findings) for name, value in PHOTO.items()} | {"folder": f"photos/{folder.name}"}


def crack_rows(findings: Findings) -> Iterator[dict[str, Any]]:
    """The cracks of one photo, one line each."""
    for crack in findings.cracks:
        pixels = {name: getattr(crack, f"{name}_px") for name in MEASURES}
        yield {
            "crack": crack_name(findings.photo, crack.number),
            "photo": findings.photo,
            **{f"{name}_px": value for name, value in pixels.items()},
            **{name: getattr(crack, name) for name in OTHERS},
            **{f"{name}_mm": _in_mm(value, findings) for name, value in pixels.items()},
            **dict(zip(BOX_COLUMNS, crack.box_xyxy, strict=True)),
            **crack.decided,
        }


def block_rows(findings: Findings) -> Iterator[dict[str, Any]]:
    """The blocks of one photo, one line each."""
    for block in findings.blocks:
        yield dict(zip(BLOCK_COLUMNS, (findings.photo, *block), strict=True))


def _length_px(findings: Findings) -> float:
    return sum(crack.length_px for crack in findings.cracks)


def _width_max_px(findings: Findings) -> float:
    return max((crack.width_max_px for crack in findings.cracks), default=0)


def _in_mm(pixels: float, findings: Findings) -> Any:
    gsd = findings.gsd_mm_per_px
    return "" if gsd is None else round(pixels * gsd, 3)


@contextmanager
def together(writers: Iterable[AbstractContextManager[Add]]) -> Iterator[Add]:
    """Give each photo to all writers, photo after photo: memory does not grow with their number."""
    with ExitStack() as stack:
        adds = [stack.enter_context(one) for one in writers]
        yield lambda folder, findings: [add(folder, findings) for add in adds]


@contextmanager
def table(
    path: Path, columns: Sequence[str], rows: Callable[[Path, Findings], Iterable[Row]]
) -> Iterator[Add]:
    """Write the `rows` of each photo as CSV."""
    with open_table(path, columns) as write:
        yield lambda folder, findings: [write(row) for row in rows(folder, findings)]


def tables(root: Path) -> list[AbstractContextManager[Add]]:
    """Writers of the tables of a survey."""
    return [
        table(root / "photos.csv", PHOTO_COLUMNS, lambda folder, findings: [photo_row(folder, findings)]),
        table(root / "blocks.csv", BLOCK_COLUMNS, lambda _, findings: block_rows(findings)),
        table(root / "cracks.csv", CRACK_COLUMNS, lambda _, findings: crack_rows(findings)),
    ]


@contextmanager
def geojson(path: Path) -> Iterator[Add]:
    """Write a feature per crack."""
    with json_list(path, '{"type": "FeatureCollection", "features": [', lambda: "]}") as write:
        yield lambda _, findings: [write(feature) for feature in _features(findings)]


def _features(findings: Findings) -> Iterator[dict[str, Any]]:
    place = {"type": "Point", "coordinates": findings.lon_lat} if findings.lon_lat else None
    for row, crack in zip(crack_rows(findings), findings.cracks, strict=True):
        known = {name: None if value == "" else value for name, value in row.items()}
        properties = {**known, "lines_px": [line.tolist() for line in crack.lines]}
        yield {"type": "Feature", "id": row["crack"], "geometry": place, "properties": properties}


@contextmanager
def json_list(path: Path, head: str, tail: Callable[[], str]) -> Iterator[Callable[[Any], None]]:
    """Write `head`, item after item with commas between, `tail`; `path` is there once all of it is."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(head)
        separator = "\n"

        def write(item: Any) -> None:
            nonlocal separator
            file.write(separator + json.dumps(item, allow_nan=False))
            separator = ",\n"

        yield write
        file.write(f"\n{tail()}\n")


@contextmanager
def geopackage(path: Path) -> Iterator[Add]:
    """Collect photo after photo, then write both layers; what a person said of each crack is in it too.

    Raises:
        InputError: the disk is full, or GDAL fails otherwise.
    """
    from pyogrio.errors import DataLayerError, DataSourceError

    layers: dict[str, list[dict[str, Any]]] = {"photos": [], "cracks": []}

    def add(folder: Path, findings: Findings) -> None:
        place = {"place": findings.lon_lat}
        layers["photos"].append(photo_row(folder, findings) | place)
        layers["cracks"].extend(row | place for row in crack_rows(findings))

    yield add
    try:
        _write_layer(path, "photos", PHOTO_COLUMNS, layers["photos"])
        _write_layer(path, "cracks", DECIDED_COLUMNS, layers["cracks"])
    except (DataLayerError, DataSourceError) as error:  # GDAL does not say more of a full disk
        raise InputError(
            f"cannot write {path.name} ({error}); free some space, or choose another --out"
        ) from error


def _write_layer(path: Path, layer: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write rows with their `place`; those of photos without one have no geometry."""
    from pyogrio.raw import write

    values, masks = zip(*(_column([row.get(name, "") for row in rows]) for name in columns), strict=True)
    # Well-known binary: little-endian, a point.
    points = [row["place"] and struct.pack("<BIdd", 1, 1, *row["place"]) for row in rows]
    write(
        path,
        np.array(points, object),
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
