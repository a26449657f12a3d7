"""What a survey found, as files for other programs: CSV, GeoJSON, COCO.

OUT/photos.csv       one row per photo: verdict, most confident block, cracks, longest and widest
OUT/blocks.csv       one row per block: box in pixels, crack probability
OUT/cracks.csv       one row per crack: box, length, width, branches, in pixels and in millimetres where known
OUT/set-aside.csv    files that could not be looked at, and why
OUT/cracks.geojson   one feature per crack
OUT/cracks.coco.json images, annotations with boxes and polygons
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from damcrack.files import write_csv
from damcrack.inspection.findings import Findings, crack_name, read_image
from damcrack.inspection.sources import Unusable

PHOTO_COLUMNS = (
    "photo",
    "verdict",
    "max_crack_prob",
    "num_blocks",
    "num_crack_blocks",
    "num_cracks",
    "length_px",
    "width_max_px",
    "gsd_mm_per_px",
    "length_mm",
    "width_max_mm",
    "longitude",
    "latitude",
    "sha256",
    "folder",
)
BLOCK_COLUMNS = ("photo", "x0_px", "y0_px", "x1_px", "y1_px", "crack_prob")
CRACK_COLUMNS = (
    "crack",
    "photo",
    "length_px",
    "width_px",
    "width_max_px",
    "length_mm",
    "width_mm",
    "width_max_mm",
    "num_branches",
    "area_px",
    "crack_prob",
    "x0_px",
    "y0_px",
    "x1_px",
    "y1_px",
)


def write_files(root: Path, folders: Sequence[Path], set_aside: Sequence[Unusable]) -> None:
    """Write all of them under `root`, photo after photo: memory does not grow with their number."""
    rows = [{"file": one.name, "reason": one.reason} for one in set_aside]
    write_csv(root / "set-aside.csv", ("file", "reason"), rows)
    with ExitStack() as files:
        photos, blocks, cracks = (
            _table(
                files.enter_context((root / f"{name}.csv").open("w", newline="", encoding="utf-8")), columns
            )
            for name, columns in (
                ("photos", PHOTO_COLUMNS),
                ("blocks", BLOCK_COLUMNS),
                ("cracks", CRACK_COLUMNS),
            )
        )
        for folder in folders:
            findings = Findings.read(folder)
            photos.writerow(photo_row(findings, folder.name))
            blocks.writerows(
                dict(zip(BLOCK_COLUMNS, (findings.photo, *block), strict=True)) for block in findings.blocks
            )
            cracks.writerows(crack_rows(findings))
    _write_list(
        root / "cracks.geojson", '{"type": "FeatureCollection", "features": [', _features(folders), "]}"
    )
    _write_coco(root / "cracks.coco.json", folders)


def _table(file: TextIO, columns: Sequence[str]) -> "csv.DictWriter[str]":
    writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    return writer


def photo_row(findings: Findings, folder: str) -> dict[str, Any]:
    """One photo in a line."""
    cracks, gsd = findings.cracks, findings.gsd_mm_per_px
    length = sum(crack.length_px for crack in cracks)
    width = max((crack.width_max_px for crack in cracks), default=0)
    longitude, latitude = findings.lon_lat or ("", "")
    return {
        "photo": findings.photo,
        "verdict": findings.verdict,
        "max_crack_prob": findings.max_crack_prob,
        "num_blocks": len(findings.blocks),
        "num_crack_blocks": sum(block.crack_prob >= findings.threshold for block in findings.blocks),
        "num_cracks": len(cracks),
        "length_px": round(length, 1),
        "width_max_px": width,
        "gsd_mm_per_px": _or_empty(gsd),
        "length_mm": _in_mm(length, gsd),
        "width_max_mm": _in_mm(width, gsd),
        "longitude": longitude,
        "latitude": latitude,
        "sha256": findings.sha256,
        "folder": f"photos/{folder}",
    }


def crack_rows(findings: Findings) -> Iterator[dict[str, Any]]:
    """The cracks of one photo, one line each."""
    gsd = findings.gsd_mm_per_px
    for number, crack in enumerate(findings.cracks, 1):
        measures = {
            name: getattr(crack, name)
            for name in ("length_px", "width_px", "width_max_px", "num_branches", "area_px", "crack_prob")
        }
        in_mm = {
            f"{name}_mm": _in_mm(measures[f"{name}_px"], gsd) for name in ("length", "width", "width_max")
        }
        box = dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), crack.box_xyxy, strict=True))
        yield {
            "crack": crack_name(findings.photo, number),
            "photo": findings.photo,
            **measures,
            **in_mm,
            **box,
        }


def _in_mm(pixels: float, gsd: float | None) -> Any:
    return "" if gsd is None else round(pixels * gsd, 3)


def _or_empty(value: Any) -> Any:
    return "" if value is None else value


def _features(folders: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """GeoJSON features: a point where the camera was, if the photo says so, else lines in pixels of the photo.

    A photo's position is the camera's: where a crack lies on the wall beside it, GPS does not say. So the lines are
    a property then, in pixels with y down.
    """
    for folder in folders:
        findings = Findings.read(folder)
        for row, crack in zip(crack_rows(findings), findings.cracks, strict=True):
            lines: dict[str, Any] = {
                "type": "MultiLineString",
                "coordinates": [_at_least_two(line.tolist()) for line in crack.lines],
            }
            if findings.lon_lat:
                geometry = {"type": "Point", "coordinates": findings.lon_lat}
                properties = {
                    **row,
                    "coordinates": "camera position, WGS 84",
                    "lines_px": lines["coordinates"],
                }
            else:
                geometry, properties = lines, {**row, "coordinates": "pixels of the photo, y down"}
            yield {"type": "Feature", "id": row["crack"], "geometry": geometry, "properties": properties}


def _at_least_two(line: list[list[int]]) -> list[list[int]]:
    return line if len(line) > 1 else line * 2


def _write_list(path: Path, head: str, items: Iterable[Any], tail: str) -> None:
    """Write a long JSON list item by item."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(head)
        for number, item in enumerate(items):
            file.write(("," if number else "") + "\n" + json.dumps(item))
        file.write("\n" + tail + "\n")
    temporary.replace(path)


def _write_coco(path: Path, folders: Sequence[Path]) -> None:
    images = "".join(
        ("," if number else "") + "\n" + json.dumps(_coco_image(number, Findings.read(folder)))
        for number, folder in enumerate(folders)
    )
    head = (
        '{"info": {"description": "damcrack inspection"}, "licenses": [], '
        '"categories": [{"id": 1, "name": "crack", "supercategory": "defect"}],\n'
        f'"images": [{images}],\n"annotations": ['
    )
    _write_list(path, head, _annotations(folders), "]}")


def _coco_image(number: int, findings: Findings) -> dict[str, Any]:
    return {
        "id": number + 1,
        "file_name": findings.photo,
        "height": findings.height_px,
        "width": findings.width_px,
    }


def _annotations(folders: Iterable[Path]) -> Iterator[dict[str, Any]]:
    identity = 0
    for image_id, folder in enumerate(folders, 1):
        findings = Findings.read(folder)
        if not findings.cracks:
            continue
        mask = read_image(folder / "mask.png", cv2.IMREAD_GRAYSCALE)
        for crack in findings.cracks:
            identity += 1
            x0, y0, x1, y1 = crack.box_xyxy
            yield {
                "id": identity,
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": crack.area_px,
                "segmentation": _polygons(mask[y0:y1, x0:x1], x0, y0),
                "attributes": {
                    name: getattr(crack, name) for name in ("length_px", "width_px", "width_max_px")
                },
            }


def _polygons(mask: np.ndarray[Any, np.dtype[np.uint8]], x0: int, y0: int) -> list[list[float]]:
    """Outer borders as COCO writes them: x, y, x, y, ...; those of fewer than three points are left out."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x0, y0))
    return [contour.ravel().tolist() for contour in contours if len(contour) >= 3]
