"""Widths measured on drawn cracks of known width, by width and by how dark they are inside.

    python -m experiments.widths        # seconds; its tables are in docs/inspection.md

Cracks of 110 px in twelve directions on noise (3 grey levels around 150), drawn with exact area coverage and blurred by
a lens; a network has nothing to do with it.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.skeleton import branches, smoothed, thin
from damcrack.cracks.width import widths_px
from damcrack.sample.strokes import Stroke, coverage
from experiments.commands import table

SIZE_HW = (144, 144)
WALL, NOISE, LENGTH_PX = 150.0, 3.0, 110.0
WIDTHS_PX = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0)
INSIDE = (30.0, 60.0, 90.0)
ANGLES_DEG = np.arange(0, 180, 15) + 0.7


def measured(
    width_px: float, inside: float, angle_deg: float, lens_px: float, rng: np.random.Generator
) -> float:
    """Median width along one crack."""
    way = np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))]) * LENGTH_PX / 2
    ends = np.array(SIZE_HW[::-1]) / 2 + rng.uniform(-0.5, 0.5, 2) + np.array([-way, way])
    cover = coverage([Stroke(ends, np.full(2, width_px))], SIZE_HW) / 255
    light = WALL + cover * (inside - WALL)
    light = cv2.GaussianBlur(light, (0, 0), lens_px) + rng.normal(0, NOISE, SIZE_HW)
    grey: npt.NDArray[np.uint8] = np.clip(light, 0, 255).astype(np.uint8)
    middle = (coverage([Stroke(ends, np.full(2, 1.5))], SIZE_HW) > 80).astype(np.uint8)
    line = max(branches(thin(middle)), key=lambda branch: len(branch.points))
    return float(np.median(widths_px(grey, line.points, smoothed(line.points), max(1.5, width_px))))


def errors(width_px: float, inside: float, lens_px: float) -> Iterator[float]:
    """Measured less true width in every direction."""
    rng = np.random.default_rng([int(100 * width_px), int(inside)])
    for angle_deg in ANGLES_DEG.tolist():
        yield measured(width_px, inside, angle_deg, lens_px, rng) - width_px


def errors_by_width(lens_px: float) -> str:
    """Markdown: median absolute error, and the median of the signed one, over the directions."""
    lines, every = [], []
    for width_px in WIDTHS_PX:
        cells = [f"{width_px:g}"]
        for inside in INSIDE:
            found = np.array(list(errors(width_px, inside, lens_px)))
            every += np.abs(found).tolist()
            cells.append(f"{np.median(np.abs(found)):.2f} ({np.median(found):+.2f})")
        lines.append(cells)
    heads = ["true width, px", *(f"grey {inside:.0f} inside" for inside in INSIDE)]
    whole = f"Median absolute error over all of them: {np.median(every):.2f} px (n = {len(every)})."
    return f"{table(heads, 0, lines)}\n\n{whole}"


if __name__ == "__main__":
    for lens_px in (0.6, 1.0):
        print(f"lens: {lens_px} px", errors_by_width(lens_px), sep="\n\n", end="\n\n")
