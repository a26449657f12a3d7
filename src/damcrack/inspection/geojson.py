"""OUT/cracks.geojson: one feature per crack, at the place of the camera (RFC 7946: degrees, or no geometry).

Where a crack lies on the wall beside the camera, GPS does not say: its lines are a property, in pixels of the photo.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from damcrack.cracks.findings import Findings
from damcrack.files import replacing
from damcrack.inspection.tables import crack_rows

HEAD = '{"type": "FeatureCollection", "features": ['


@contextmanager
def geojson(path: Path) -> Iterator[Callable[[Path, Findings], None]]:
    """Write the features of photo after photo."""
    with json_list(path, HEAD, lambda: "]}") as write:

        def add(_: Path, findings: Findings) -> None:
            for feature in _features(findings):
                write(feature)

        yield add


def _features(findings: Findings) -> Iterator[dict[str, Any]]:
    place = {"type": "Point", "coordinates": findings.lon_lat} if findings.lon_lat else None
    for row, crack in zip(crack_rows(findings), findings.cracks, strict=True):
        known = {name: None if value == "" else value for name, value in row.items()}
        lines_px = [line.tolist() for line in crack.lines]
        properties = {**known, "lines_px": lines_px}
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
