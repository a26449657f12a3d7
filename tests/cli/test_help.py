"""Help that can be read in a narrow terminal, with examples that run, and what a shell completes."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from damcrack.cli.examples import EXAMPLES, wrapped
from damcrack.cli.main import cli


def commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}".strip())


ALL = dict(commands(cli))


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("path", ALL)
def test_no_line_of_help_is_cut(path: str, columns: int) -> None:
    """Nothing is wider than the terminal, and no sentence ends in dots."""
    page = CliRunner(env={"COLUMNS": str(columns)}).invoke(
        cli, [*path.split(), "--help"], terminal_width=columns
    )
    assert page.exit_code == 0
    for line in page.output.splitlines():
        assert len(line) <= columns, line
        assert not line.endswith("...") or line.endswith((":...", "PHOTOS...", "[ARGS]...")), line
    assert "\b" not in page.output and "\\b" not in page.output


def test_every_command_has_two_examples() -> None:
    """One is enough where there is nothing to choose; none is of a command that there is not."""
    for path, command in ALL.items():
        shown = (command.epilog or "").count("damcrack ")
        assert shown >= (1 if path in ("summary", "track", "track send") else 2), path
    assert all(example.startswith(tuple(filter(None, ALL))) for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_valid(example: str) -> None:
    """Every option and argument of an example exists and takes its value, on one line or broken."""
    for shown in (f"damcrack {example}", wrapped(example)):
        words = shlex.split(shown.replace("\\\n", " ").partition(" >")[0], comments=True)[1:]
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)


def test_exit_statuses_are_documented_and_true() -> None:
    """0 is success, 1 a sentence about what failed, 2 a wrong command line; 130 is tested beside Ctrl-C."""
    page = CliRunner().invoke(cli, ["--help"]).output
    statuses = [line.split()[0] for line in page.partition("Exit status:")[2].splitlines()[1:5]]
    assert statuses == ["0", "1", "2", "130"]
    calls = {("--version",): 0, ("check", "none.yaml"): 1, ("tile", "--nonsense"): 2}
    for words, expected in calls.items():
        done = subprocess.run([sys.executable, "-m", "damcrack", *words], capture_output=True)
        assert done.returncode == expected, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    """The script for each shell names our command and its variable; bash itself accepts its own."""
    script = CliRunner().invoke(cli, ["completion", shell]).output
    assert "_DAMCRACK_COMPLETE" in script
    if shell == "bash" and shutil.which("bash"):
        loaded = subprocess.run(
            ["bash", "-c", script + "\ncomplete -p damcrack"], capture_output=True, text=True
        )
        assert "_damcrack_completion" in loaded.stdout, loaded.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [("damcrack ins", "inspect"), ("damcrack inspect --ope", "--open"), ("damcrack pipeline sub", "submit")],
)
def test_words_are_completed(words: str, expected: str) -> None:
    """Commands, options and inner commands."""
    last = str(len(words.split()) - 1)
    asked = {"_DAMCRACK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": last}
    answer = CliRunner(env=asked).invoke(cli, prog_name="damcrack")
    assert f"plain,{expected}" in answer.output
