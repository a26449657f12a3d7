"""What a survey found, as files for other programs: see inspection.tables, inspection.geojson and inspection.coco."""

from collections.abc import Sequence
from pathlib import Path

from damcrack.inspection.coco import write_coco
from damcrack.inspection.geojson import write_geojson
from damcrack.inspection.sources import Unusable
from damcrack.inspection.tables import write_tables


def write_files(root: Path, folders: Sequence[Path], set_aside: Sequence[Unusable], join_px: int) -> None:
    """Write all of them under `root`; pieces of a mask at most `join_px` apart are one crack."""
    write_tables(root, folders, set_aside)
    write_geojson(root / "cracks.geojson", folders)
    write_coco(root / "cracks.coco.json", folders, join_px)
