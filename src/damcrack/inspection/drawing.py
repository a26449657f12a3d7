"""The cracks of a photo as a DXF drawing for CAD: millimetres where the scale is known, else pixels; y upwards.

One drawing per photo: its lower left corner is the origin. Cracks lie on layers by their width, each polyline as wide
as its crack; joints, edges and stains on layers of their own.
"""

from pathlib import Path

from damcrack.cracks.findings import Findings
from damcrack.inspection.annotated import class_of, label
from damcrack.inspection.decisions import CLASSES

WIDTH_BANDS_MM = (0.1, 0.2, 0.3, 0.5, 1.0)  # up to which engineers tell cracks of concrete apart
COLOURS = (8, 3, 4, 2, 30, 1)  # AutoCAD's: grey, green, cyan, yellow, orange, red
UNKNOWN = "CRACK"
TEXT_SHARE = 1 / 70


def layer_of(width_px: float, gsd: float | None) -> str:
    """Layer of a crack by its median width."""
    if gsd is None:
        return UNKNOWN
    lower = 0.0
    for upper in WIDTH_BANDS_MM:
        if width_px * gsd < upper:
            return f"CRACK {lower:g} TO {upper:g} MM" if lower else f"CRACK BELOW {upper:g} MM"
        lower = upper
    return f"CRACK FROM {lower:g} MM"


def write_dxf(path: Path, findings: Findings) -> None:
    """Write the drawing of one photo."""
    from ezdxf import units
    from ezdxf.filemanagement import new

    gsd, height = findings.gsd_mm_per_px, findings.height_px
    scale = 1.0 if gsd is None else gsd
    drawing = new("R2010", units=0 if gsd is None else units.MM)
    space = drawing.modelspace()
    for name, colour in _layers(gsd):
        drawing.layers.add(name, color=colour)
    width = findings.width_px * scale
    corners = [(0, 0), (width, 0), (width, height * scale), (0, height * scale)]
    space.add_lwpolyline(corners, close=True, dxfattribs={"layer": "PHOTO"})
    text_height = max(width, height * scale) * TEXT_SHARE
    _write(space, findings.photo, (0, -2 * text_height), text_height, "PHOTO")
    for crack in findings.cracks:
        kind = class_of(crack)
        layer = layer_of(crack.width_px, gsd) if kind == "crack" else kind.upper()
        for line in crack.lines:
            points = [((x + 0.5) * scale, (height - y - 0.5) * scale) for x, y in line.tolist()]
            points = points if len(points) > 1 else points * 2
            attributes = {"layer": layer, "const_width": crack.width_px * scale}
            space.add_lwpolyline(points, dxfattribs=attributes)
        x, y = crack.samples[len(crack.samples) // 2, :2].tolist()
        place = (x * scale + text_height, (height - y) * scale)
        _write(space, label(crack, gsd), place, text_height, "LABEL")
    drawing.saveas(path)


def _layers(gsd: float | None) -> list[tuple[str, int]]:
    widths_mm = (0.0, *WIDTH_BANDS_MM)
    bands = (
        [(UNKNOWN, 1)]
        if gsd is None
        else [(layer_of(width, 1.0), colour) for width, colour in zip(widths_mm, COLOURS, strict=True)]
    )
    return [("PHOTO", 7), ("LABEL", 7), *((kind.upper(), 7) for kind in CLASSES[1:]), *bands]


def _write(space: "object", text: str, place: tuple[float, float], height: float, layer: str) -> None:
    plain = "".join(c if c.isprintable() else "?" for c in text)
    space.add_text(plain, height=height, dxfattribs={"layer": layer}).set_placement(place)  # type: ignore[attr-defined]
