"""What several commands share: options, and groups whose help cuts no line."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)
PATH = click.Path(path_type=Path)
PARAMS = click.option(
    "--params",
    "params_path",
    type=PATH,
    default=Path("params.yaml"),
    show_default=True,
    help="File with the values of all stages.",
)
OPEN = click.option("--open", "open_page", is_flag=True, help="Open the report in the browser at the end.")


def out_option(**more: Any) -> Callable[[Decorated], Decorated]:
    """`--out FOLDER`; a shell leaves ~ in --out=~/survey as it is."""
    return click.option(
        "--out",
        type=PATH,
        callback=lambda _context, _option, path: path.expanduser(),
        help="Folder to write: new, empty, or an earlier output of this command.",
        **more,
    )


OUT = out_option(required=True)


class Sections(click.Group):
    """A group that lists its commands with their whole first sentence, under headings if it has `sections`."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]] | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.sections = sections

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands; a command that no section names would be missed by a test."""
        for title, names in (self.sections or {"Commands": list(self.commands)}).items():
            with formatter.section(title):
                formatter.write_dl([(name, _first_sentence(self.commands[name])) for name in names])


def _first_sentence(command: click.Command) -> str:
    return command.get_short_help_str(limit=1000)


OUT_OR_BUCKET = click.option(
    "--out",
    default="survey",
    show_default=True,
    help="Folder to write: new, empty, or an earlier output of this command; or s3://bucket/prefix.",
)
PART = click.option(
    "--part",
    metavar="NUMBER/OF",
    help="Look only at this part of the photos, say 2/4; without it, write tables and page of all parts.",
)
DECISIONS = click.option("--decisions", type=PATH, help="File of decisions; default: SURVEY/decisions.json.")
