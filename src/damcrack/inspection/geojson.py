"""OUT/cracks.geojson: one feature per crack, at the place of the camera (RFC 7946: degrees, or no geometry).

Where a crack lies on the wall beside the camera, GPS does not say: its lines are a property, in pixels of the photo.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from damcrack.cracks.findings import Findings
from damcrack.files import replacing
from damcrack.inspection.tables import crack_rows


def write_geojson(path: Path, folders: Iterable[Path]) -> None:
    """Write the features of all photos, one after the other."""
    write_json_list(path, '{"type": "FeatureCollection", "features": [', _features(folders), "]}")


def _features(folders: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        findings = Findings.read(folder)
        place = {"type": "Point", "coordinates": findings.lon_lat} if findings.lon_lat else None
        for row, crack in zip(crack_rows(findings), findings.cracks, strict=True):
            known = {name: None if value == "" else value for name, value in row.items()}
            lines_px = [line.tolist() for line in crack.lines]
            yield {
                "type": "Feature",
                "id": row["crack"],
                "geometry": place,
                "properties": {**known, "lines_px": lines_px},
            }


def write_json_list(path: Path, head: str, items: Iterable[Any], tail: str) -> None:
    """Write `head`, the items with commas between, `tail`, one after the other; `path` is there once all of it is."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(head)
        for number, item in enumerate(items):
            file.write(("," if number else "") + "\n" + json.dumps(item, allow_nan=False))
        file.write("\n" + tail + "\n")
