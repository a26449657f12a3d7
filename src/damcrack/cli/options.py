"""What several commands share: options, and groups whose help cuts no line and ends with examples."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from damcrack.cli.examples import EXAMPLES, wrapped

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
OPTIONAL_PARAMS = click.option("--params", "params_path", type=PATH, help="Take the section `inspect` of it.")
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A value that overrides all others."
)


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
    """A group that lists its commands with their whole first sentence, under the headings of `sections`."""

    def __init__(
        self, *args: Any, sections: Mapping[str, Iterable[click.Command]] | None = None, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.sections = sections or {"Commands": self.commands.values()}
        for command in (command for commands in (sections or {}).values() for command in commands):
            self.add_command(command)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, section by section."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(one.name or "", one.get_short_help_str(1000)) for one in commands])


def add_examples(command: click.Command, path: str = "") -> list[str]:
    """Show its examples below the help of a command, below that of a group the first of each of its commands."""
    examples = [one for one in EXAMPLES if f"{one} ".startswith(f"{path} ")]
    if isinstance(command, click.Group):
        inner = [add_examples(one, f"{path} {one.name}".strip()) for one in command.commands.values()]
        examples = [one[0] for one in inner][:3]
    command.epilog = "\n".join(["\b\nExamples:", *map(wrapped, examples)])
    return examples
