"""What a survey found, as tables for a spreadsheet.

OUT/photos.csv       one row per photo: verdict, most confident block, cracks, longest and widest
OUT/blocks.csv       one row per block: box in pixels, crack probability
OUT/cracks.csv       one row per crack: box, length, width, branches, in pixels and in millimetres where known
OUT/set-aside.csv    files that could not be looked at, and why
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from damcrack.cracks.findings import Findings, crack_name
from damcrack.inspection.places import Unusable
from damcrack.inspection.spreadsheet import open_table, write_table

PHOTO_COLUMNS = (
    "photo",
    "verdict",
    "doubt",
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
    "confidence",
    "x0_px",
    "y0_px",
    "x1_px",
    "y1_px",
)

DECIDED_COLUMNS = (*CRACK_COLUMNS, "class", "severity", "note")  # of exported cracks


@contextmanager
def tables(root: Path, set_aside: Sequence[Unusable]) -> Iterator[Callable[[Path, Findings], None]]:
    """Write all of them under `root`, photo after photo: memory does not grow with their number."""
    rows = ({"file": one.name, "reason": one.reason} for one in set_aside)
    write_table(root / "set-aside.csv", ("file", "reason"), rows)
    with (
        open_table(root / "photos.csv", PHOTO_COLUMNS) as write_photo,
        open_table(root / "blocks.csv", BLOCK_COLUMNS) as write_block,
        open_table(root / "cracks.csv", CRACK_COLUMNS) as write_crack,
    ):

        def add(folder: Path, findings: Findings) -> None:
            write_photo(photo_row(findings, folder.name))
            for block in findings.blocks:
                write_block(dict(zip(BLOCK_COLUMNS, (findings.photo, *block), strict=True)))
            for row in crack_rows(findings):
                write_crack(row)

        yield add


def photo_row(findings: Findings, folder: str) -> dict[str, Any]:
    """One photo in a line."""
    cracks, gsd = findings.cracks, findings.gsd_mm_per_px
    length = sum(crack.length_px for crack in cracks)
    width = max((crack.width_max_px for crack in cracks), default=0)
    longitude, latitude = findings.lon_lat or ("", "")
    return {
        "photo": findings.photo,
        "verdict": findings.verdict,
        "doubt": findings.doubt,
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
    for crack in findings.cracks:
        measures = {
            name: getattr(crack, name)
            for name in (
                "length_px",
                "width_px",
                "width_max_px",
                "num_branches",
                "area_px",
                "crack_prob",
                "confidence",
            )
        }
        in_mm = {
            f"{name}_mm": _in_mm(measures[f"{name}_px"], gsd) for name in ("length", "width", "width_max")
        }
        box = dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), crack.box_xyxy, strict=True))
        yield {
            "crack": crack_name(findings.photo, crack.number),
            "photo": findings.photo,
            **measures,
            **in_mm,
            **box,
            **crack.decided,
        }


def _in_mm(pixels: float, gsd: float | None) -> Any:
    return "" if gsd is None else round(pixels * gsd, 3)


def _or_empty(value: Any) -> Any:
    return "" if value is None else value
