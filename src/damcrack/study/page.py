"""The study as one self-contained HTML page: the markdown's tables, then the figures as inline SVG."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from damcrack.evaluate.drawing import Drawing

FOLDERS = [Path(__file__).parent, Path(__file__).parents[1]]  # style.css is shared


def as_page(markdown: str, drawings: Sequence[Drawing]) -> str:
    """Make the page's HTML; HTML inside the markdown is shown as text."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    wide = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    environment = Environment(autoescape=True, loader=FileSystemLoader(FOLDERS), undefined=StrictUndefined)
    figures = [(one, Markup(one.svg)) for one in drawings]
    return environment.get_template("page.html.j2").render(body=Markup(wide), figures=figures)
