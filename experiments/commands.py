"""What commands of experiments share: their arguments, where real photos are, Markdown tables, a browser."""

import argparse
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DATA_VARIABLE = "DAMCRACK_REAL_DATA"


def command(name: str, doc: str) -> argparse.ArgumentParser:
    """A parser for `python -m experiments.NAME`, described by the first line of its module."""
    return argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=doc.splitlines()[0])


def add_data(parser: argparse.ArgumentParser) -> None:
    """The option --data: the folder of real sources (experiments/unseen/sources.py)."""
    parser.add_argument(
        "--data", type=Path, default=os.environ.get(DATA_VARIABLE), help=f"default: {DATA_VARIABLE}"
    )


def with_data(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says, --data too; ends with a sentence where neither it nor the variable is given."""
    add_data(parser)
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit(f"no photos: give --data or set {DATA_VARIABLE} to the folder with MANIFEST.csv")
    return args


def table(heads: Sequence[str], num_words: int, rows: Iterable[Sequence[str]]) -> str:
    """Markdown: the first `num_words` columns hold words, the others numbers."""
    lines = [heads, ["---"] * num_words + ["---:"] * (len(heads) - num_words), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def browser(window: str, *more: str) -> Any:
    """Chromium without a window; its driver is that of the path, without one Selenium asks the network."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium") or shutil.which("google-chrome"))
    for one in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", f"window-size={window}", *more):
        options.add_argument(f"--{one}")
    return webdriver.Chrome(options, Service(str(shutil.which("chromedriver"))))
