"""Options that several commands share."""

from pathlib import Path

import click

# A shell leaves ~ in --out=~/survey as it is.
OUT = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    callback=lambda _context, _option, path: path.expanduser(),
    help="Folder to write: new, empty, or an earlier output of this command.",
)
DECISIONS = click.option(
    "--decisions", type=click.Path(path_type=Path), help="File of decisions; default: SURVEY/decisions.json."
)
