"""The look that all figures share, and their form: PNG files, for pages as data URIs.

No figure is one of pyplot, so nothing global is touched; the same figure gives the same bytes.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

Colour = tuple[float, float, float]
COLOURS: Sequence[Colour] = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
GREEN, RED, GREY = COLOURS[2], COLOURS[3], COLOURS[7]
DPI = 160
PAGE_PX_PER_INCH = 104  # 10 pt type as large as the page's running text
STYLE: Any = {  # the type stubs want literal keys
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":", "-."]) * cycler(color=COLOURS),
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "text.parse_math": False,  # names are names, a dollar sign in them too
}


@dataclass(frozen=True)
class Drawing:
    """A drawn figure as PNG bytes, with its caption and its width on a page."""

    name: str
    png: bytes
    caption: str
    width_px: int

    @property
    def data_uri(self) -> str:
        """The picture as an address that needs no file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@contextmanager
def house_look() -> Iterator[None]:
    """Draw in our style, whatever the user's own matplotlib settings are; they are back afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def finish(name: str, figure: Figure, caption: str) -> Drawing:
    """Render a figure."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return Drawing(name, png.getvalue(), caption, round(figure.get_figwidth() * PAGE_PX_PER_INCH))


def write_figures(folder: Path, drawings: Sequence[Drawing]) -> None:
    """Write the PNGs into a new folder."""
    folder.mkdir()
    for drawing in drawings:
        (folder / f"{drawing.name}.png").write_bytes(drawing.png)


def panels_of(num: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with `num` panels of `size` (width, height) inches in at most `columns` columns."""
    columns = min(num, columns)
    rows = ceil(num / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for spare in grid.flat[num:]:
        spare.set_axis_off()
    return figure, list(grid.flat[:num])


def legend_below(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """Put the legend of one panel below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))
