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

OUT_OR_BUCKET = click.option(
    "--out",
    required=True,
    help="Folder to write: new, empty, or an earlier output of this command; or s3://bucket/prefix.",
)
PART = click.option(
    "--part",
    metavar="NUMBER/OF",
    help="Look only at this part of the photos, say 2/4; without it, write tables and page of all parts.",
)
