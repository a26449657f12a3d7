"""`damcrack paper`: the report of the experiments' cells, on the terminal and on disk."""

import importlib.metadata
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from damcrack.files import InputError, write_bytes
from damcrack.progress import Watcher


def tell(cells: Path, out: Path, markdown: Path | None) -> None:
    """Write the report of `cells` to `out`, and its tables to `markdown`; print them.

    Raises:
        InputError: there are no cells, or some are missing after they were begun.
    """
    from damcrack.study.report import report

    watcher = Watcher()
    watcher.scratch = cells / ".damcrack"
    made = report(cells, out, _header(cells), watcher)
    if markdown:
        write_bytes(markdown, made.markdown.encode())
    console = Console()
    console.print(Markdown(made.markdown) if console.is_terminal else made.markdown)
    places = [str(out / "results.html"), *([str(markdown)] if markdown else [])]
    Console(stderr=True).print(f"{made.num_cells} cells; written: {', '.join(places)}")
    if made.failures:
        names = "\n".join(f"  {name}: {reason}" for name, reason in made.failures.items())
        raise InputError(f"{len(made.failures)} cells are missing:\n{names}\n`make paper` fills only these")


def _header(cells: Path) -> str:
    """Command, machine and versions, for who reads the numbers elsewhere."""
    import torch

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision"))
    cores = f"{os.cpu_count()} CPU cores"
    where = f"{cores}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"{cores}, no GPU"
    return (
        f"Written by `damcrack paper` from the cells of `{cells.as_posix()}`, whose `params.yaml` and "
        f"`cells.yaml` hold all values and seeds. Machine: {where}; Python {platform.python_version()}, {versions}."
    )
