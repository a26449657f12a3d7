"""The look of all figures, and their two forms: PNG for the tracker, an SVG element for the page.

In the page the ink becomes `currentColor`, so that a figure is as legible on a dark page as on a light one.
The same figure gives the same bytes. Nothing here uses pyplot, so nothing global is touched.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from math import ceil
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

INK, MUTED = "#1b1f24", "#87919c"
COLOURS = (
    "#3b82c4",
    "#d9822b",
    "#2e9e6b",
    "#d1495b",
    "#8e6bbf",
    "#1fa3a8",
    "#a9744f",
    "#c65b9c",
    "#8a9a2b",
    "#7f8791",
)
PX_PER_PT = 1.45  # figures in the page: 10 pt type as large as its running text
CANVAS_IN = 9.0  # width of a sheet of pictures
DASHES = ("-", "--", ":", "-.")
STYLE: Any = {  # the type stubs want literal keys
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": MUTED,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are names, a dollar sign in them too
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}

Picture = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Drawing:
    """A drawn figure: PNG bytes, an SVG element for the page, a caption, and words for who cannot see it."""

    name: str
    png: bytes
    svg: str
    caption: str
    alt: str


@contextmanager
def house_look() -> Iterator[None]:
    """Draw in our style, whatever the user's own matplotlib settings are; they are back afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def finish(name: str, figure: Figure, caption: str, alt: str) -> Drawing:
    """Render a figure in both forms."""
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    figure.set_layout_engine("none")  # it stays as laid out; doing it again costs a third of the time
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Drawing(name, png.getvalue(), _inline(svg.getvalue(), name, alt), caption, alt)


def _inline(svg: str, name: str, alt: str) -> str:
    """Make an SVG file an element: ids unique within the page, ink that follows it, words for readers."""
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'( id="|"#|url\(#)', rf"\g<1>{name}-", body).replace(INK, "currentColor")
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', body)[:2]
    opening = f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {height}"'
    opening += f' style="width: 100%; max-width: {float(width) * PX_PER_PT:.0f}px"'
    opening += ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return opening + body[body.index(">") + 1 :]


def style_of(number: int) -> dict[str, Any]:
    """Colour and dashes of the line with this number."""
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dash}


def panels_of(num: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with `num` panels of `size` (width, height) inches in at most `columns` columns."""
    columns = min(num, columns)
    rows = ceil(num / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for spare in grid.flat[num:]:
        spare.set_axis_off()
    return figure, list(grid.flat[:num])


def canvas_of(height_in: float) -> tuple[Figure, Axes]:
    """An empty sheet for pictures: places on it are inches from the top left corner."""
    figure = Figure(figsize=(CANVAS_IN, height_in))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, CANVAS_IN), ylim=(height_in, 0), autoscale_on=False)
    return figure, axes


def put_picture(
    axes: Axes, picture: Picture, corner: tuple[float, float], side_in: float, frame: str | None = None
) -> None:
    """Put a square picture with its top left `corner` there: uint8 RGB, or 0..1 dark to bright, NaN for nothing."""
    x, y = corner
    extent = (x, x + side_in, y + side_in, y)
    axes.imshow(picture, extent=extent, aspect="auto", cmap="viridis", vmin=0, vmax=1)
    if frame:
        axes.add_patch(Rectangle((x, y), side_in, side_in, fill=False, ec=frame, lw=2.5))


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """Put the legend of one panel below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))
