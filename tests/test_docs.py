"""The documentation: it builds strictly and offline, says what the code says, and its commands run."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import click
import nbclient
import nbformat
import pytest
import yaml
from PIL import Image

from damcrack.cli.main import cli
from damcrack.files import read_csv
from damcrack.params import config_class
from damcrack.sample.concrete import render_photo
from damcrack.stage_table import STAGES
from surveys import all_findings, decide, write_decisions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
pytestmark = pytest.mark.slow


class Fetched(HTMLParser):
    """Addresses that a browser fetches with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        fetches = tag in ("script", "img", "iframe", "source") or named.get("rel") == "stylesheet"
        self.addresses += [value for key in ("src", "href") if fetches and (value := named.get(key))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning, such as a broken link, fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def blocks(page: str, language: str) -> list[str]:
    """Code blocks of one language in a page of docs/."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def write_photos(folder: Path, num: int, with_masks: bool = False) -> None:
    (folder / "masks" if with_masks else folder).mkdir(parents=True)
    for index in range(num):
        photo = render_photo(3, index, (448, 640))
        Image.fromarray(photo.rgb).save(folder / f"{index}.jpg", quality=95)
        if with_masks:
            Image.fromarray(photo.mask).save(folder / f"masks/{index}.png")


def run_commands(script: str, folder: Path) -> None:
    """Run shell commands in a folder; the first that fails ends it."""
    done = subprocess.run(["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_is_there_and_fetches_nothing(site: Path) -> None:
    """Each Markdown page became one that loads from the disk alone."""
    for page in PAGES:
        parser = Fetched()
        parser.feed((site / page.relative_to(DOCS)).with_suffix(".html").read_text())
        assert parser.addresses
        assert not [one for one in parser.addresses if one.startswith(("http:", "https:", "//"))], page


def test_reference_has_every_command_and_every_value(site: Path) -> None:
    """What the parser and the schemas know is on their pages."""
    commands = (site / "reference/commands.html").read_text()
    assert [name for name in cli.commands if f"damcrack {name}" not in commands] == []
    params = (site / "reference/params.html").read_text()
    for stage in STAGES:
        part = params.split(f'<h2 id="{stage}"', 1)[1].split("<h2", 1)[0]
        names = [field.name for field in fields(config_class(stage))]
        assert [name for name in names if f"<code>{name}" not in part] == []


def test_a_value_shows_type_range_default_and_unit(site: Path) -> None:
    """One row of the table of `inspect`."""
    text = (site / "reference/params.html").read_text()
    (row,) = [row for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL) if "bridge_px" in row]
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", row)]
    assert cells == ["segmentation.bridge_px", "integer", "≥ 1, ≤ 99", "5", "px"]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_commands_of_a_page_parse(page: Path) -> None:
    """Every `damcrack` line in a block of code names a command, and options that it has."""
    text = page.read_text().replace("\\\n", " ")
    code = [*re.findall(r"```\w*\n(.*?)```", text, re.DOTALL), *re.findall(r"^ {4}.+$", text, re.MULTILINE)]
    for line in re.findall(r"^ *damcrack .+$", "\n".join(code), re.MULTILINE):
        words = shlex.split(line, comments=True)[1:]
        words = words[: words.index("&&")] if "&&" in words else words
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, [word for word in words if word != "..."], resilient_parsing=True)


def test_tutorial_from_photos_to_report(tmp_path: Path) -> None:
    """Its commands run in order on two seasons of photos, with every finding accepted in between."""
    write_photos(tmp_path / "photos", 2)
    write_photos(tmp_path / "photos-2027", 2)
    inspecting, others = [], []
    for script in blocks("tutorials/photos.md", "sh"):
        (others if others or "damcrack report" in script else inspecting).append(script)
    run_commands("".join(inspecting), tmp_path)
    accepted = [decide(*one, "accepted") for one in all_findings(tmp_path / "survey")]
    write_decisions(tmp_path / "survey/decisions.json", accepted)
    run_commands("".join(others), tmp_path)
    assert len(read_csv(tmp_path / "survey/photos.csv")) == 2
    for page in ("survey/report.html", "signed/report.html", "changes/compare.html"):
        assert (tmp_path / page).is_file()


def test_tutorial_from_labels_to_detector(tmp_path: Path) -> None:
    """Its values and commands train a detector and measure it beside the shipped one, on the same photos."""
    write_photos(tmp_path / "photos", 8, with_masks=True)
    (values,) = blocks("tutorials/labels.md", "yaml")
    short = yaml.safe_load(values)
    short["finetune"]["common"] |= {"epochs": 1, "min_steps": 2}  # the whole is a minute on one core
    short["export"] |= {"parity_tiles": 8, "calibration_tiles": 8}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(short))
    run_commands("".join(blocks("tutorials/labels.md", "sh")), tmp_path)
    before, after = (tmp_path / "results" / name for name in ("before", "after"))
    assert [row["photo"] for row in read_csv(before / "photos.csv")] == [
        row["photo"] for row in read_csv(after / "photos.csv")
    ]
    found = [
        json.loads((one / "case-study.json").read_text())["pixels"]["network"] for one in (before, after)
    ]
    assert all(0 <= one["all"]["f1"] <= 1 for one in found)


def test_steps_of_the_ci_on_windows_run(tmp_path: Path) -> None:
    """The commands that the workflow gives Windows, macOS and Linux end well, in a folder with a space."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert "windows-latest" in jobs["inspection"]["strategy"]["matrix"]["os"]
    run_commands(jobs["inspection"]["steps"][-1]["run"], tmp_path)


def test_notebook_runs() -> None:
    """Every cell, in order, without an error; none of its output is committed."""
    notebook = nbformat.read(DOCS / "tutorials/detector.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    found = notebook.cells[1].outputs[-1]["data"]["text/plain"]
    assert found.startswith("('crack'")
