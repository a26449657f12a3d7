"""Benchmarks still run: what they time is called by its names, which may change."""

from pathlib import Path

from benchmarks.tile import PARTS, compare
from benchmarks.tile_photos import render_all


def test_tiling_is_timed_whole_and_by_part(tmp_path: Path) -> None:
    """Two photos of 12 megapixels: the stage, both loops, and every part of the stage."""
    render_all(tmp_path / "photos", 2, seed=7)
    table = compare(tmp_path / "photos", tmp_path / "tiles", rounds=1)
    for row in ("| whole stage |", "| bare decode and encode, ", "| plain loop, "):
        assert row in table
    for part in PARTS.values():
        assert f"| one more run of the stage: {part} |" in table
