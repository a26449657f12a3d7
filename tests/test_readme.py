"""Every command of the README is run: in order, in one folder, as a reader would type them.

What needs a cluster, a registry with models, hours or other people's photos is named in `ELSEWHERE` with the test that
runs it, or is parsed here without being carried out.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import cv2
import pytest
from PIL import Image

from damcrack.cli.main import cli
from damcrack.inspection.decisions import FORMAT, VERSION
from damcrack.sample.concrete import render_photo

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"(?:damcrack|make|dvc|python|pip) [^`\n]+")


def written_commands() -> list[str]:
    """Lines of the fenced blocks of commands, and code in sentences and tables that begins as a command."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    lines = [line.split(" #")[0].strip() for line in blocks.splitlines()]
    sentences = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    return list(dict.fromkeys(one for one in lines + sentences if COMMAND.fullmatch(one)))


WRITTEN = written_commands()
# Run here, in this order.
STORY = (
    "damcrack demo --open",
    "damcrack inspect spillway/ --gsd 0.8 --open",
    "damcrack report survey --out signed",
    "damcrack export-survey survey --format dxf --format gpkg --format jpeg --out files",
    "damcrack import-coco instances.json spillway/ --out corrected",
    "damcrack compare survey-2025 survey-2026 --out changes",
    "damcrack init my-dam",
    "damcrack check",
    "damcrack snapshot photos",
    "damcrack imagery take-in",
    "damcrack tile --help",
)
# Run by another test, on smaller values; here it is only checked that the test is there.
ELSEWHERE = {
    "pip install .": "test_bare.py::test_photos_are_inspected_and_compared_there",
    'pip install ".[all]"': "test_bare.py::test_extras_exist",
    'pip install ".[cad,gis]"': "test_bare.py::test_extras_exist",
    'pip install ".[cvat]"': "test_bare.py::test_extras_exist",
    "dvc repro": "cli/test_project.py::test_dvc_reads_the_project",
    "make repro": "test_graph.py::test_graph_ends_with_a_registered_model",
    "make ui": "tracking/test_ui.py::test_pages_are_served_and_end_with_the_command",
    "make paper": "test_study_graph.py::",
    "make detector": "test_detector_graph.py::",
    "make docs": "test_docs.py::",
    "make test": "../.ci/run::make test",
    "make test-fast": "../Makefile::test-fast:",
    "damcrack inspect s3://dam/2026-05 --part 2/4 --out s3://dam/survey": "inspection/test_parts.py::",
    "damcrack promote 7": "registry/test_registry.py::",
    'damcrack rollback --reason "too many false alarms"': "registry/test_registry.py::",
    "damcrack history": "registry/test_registry.py::",
    "damcrack pipeline check": "kubeflow/test_check.py::",
}
MAKE = [one for one in WRITTEN if one.startswith("make ")]


def test_every_command_has_its_place() -> None:
    """A command that is new in the README cannot be forgotten here, and none that left it stays."""
    assert sorted(WRITTEN) == sorted([*STORY, *ELSEWHERE])


@pytest.mark.parametrize("command", ELSEWHERE)
def test_the_other_test_is_there(command: str) -> None:
    """The named file holds the named test."""
    file, _, name = ELSEWHERE[command].partition("::")
    assert name in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize("command", [one for one in ELSEWHERE if one.startswith("damcrack ")])
def test_commands_of_a_registry_or_a_cluster_are_valid(command: str) -> None:
    """Their words are parsed as the command would; carrying them out is for the tests beside the code."""
    words = shlex.split(command)[1:]
    found: click.Command = cli
    while isinstance(found, click.Group):
        found = found.commands[words.pop(0)]
    found.make_context(found.name, words)


@pytest.mark.parametrize("command", MAKE)
def test_targets_of_make_resolve(command: str) -> None:
    """`make --dry-run` finds the target and all that it needs."""
    done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    """Files and headings that the README links to are there."""
    for target in re.findall(r"\]\(([^)]+)\)", README):
        file, _, heading = target.partition("#")
        assert (ROOT / file).is_file(), target
        titles = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(), re.MULTILINE) if heading else []
        slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not heading or heading in slugs, target


def test_every_top_folder_is_in_the_tree() -> None:
    """The map of the tree names every room, and nothing that is gone."""
    tree = README[README.index("## The tree") :].split("```")[1]
    rooms = {path.name for path in (ROOT / "src/damcrack").iterdir() if (path / "__init__.py").is_file()}
    assert rooms | {"shipped"} == set(re.findall(r"^  (\w+)/", tree, re.MULTILINE))
    for name in re.findall(r"^(?:  )?([\w.-]+\.\w+|\w+/)", tree, re.MULTILINE):
        assert (ROOT / name).exists() or (ROOT / "src/damcrack" / name).exists(), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reader has: two photos in spillway/, corrected annotations, and new photos that arrived."""
    folder = tmp_path_factory.mktemp("reader")
    arrived = folder / "my-dam/data/incoming"
    for place, number in ((folder / "spillway", 2), (arrived, 1)):
        place.mkdir(parents=True)
        for index in range(3, 3 + number):
            Image.fromarray(render_photo(99, index, (300, 400)).rgb).save(place / f"{index}.jpg", quality=95)
    return folder


def prepare(command: str, folder: Path) -> None:
    """What the README's words around a command ask for."""
    if "--out signed" in command:
        nothing_decided = {"format": FORMAT, "version": VERSION, "decisions": []}
        (folder / "survey/decisions.json").write_text(json.dumps(nothing_decided))
    if "import-coco" in command:
        shutil.copy(folder / "survey/cracks.coco.json", folder / "instances.json")
    if "compare" in command:
        for year in ("2025", "2026"):
            shutil.copytree(folder / "survey", folder / f"survey-{year}")
    if command == "damcrack snapshot photos":
        photo = render_photo(99, 3, (300, 400))
        Image.fromarray(photo.rgb).save(folder / "my-dam/photos/a.jpg")
        cv2.imwrite(str(folder / "my-dam/photos/masks/a.png"), photo.mask)
        params = folder / "my-dam/params.yaml"
        params.write_text(params.read_text().replace("{sample: sample}", "{own: photos}"))


@pytest.mark.slow
@pytest.mark.parametrize("command", STORY)
def test_it_runs(command: str, folder: Path) -> None:
    """Each in turn, with a browser that opens nothing; those of a project in the project."""
    prepare(command, folder)
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    (binaries / "damcrack").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "from damcrack.cli.main import main; main()" "$@"\n'
    )
    (binaries / "damcrack").chmod(0o755)
    in_project = command.startswith(("damcrack check", "damcrack snapshot", "damcrack imagery"))
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "BROWSER": "true %s",
        "PYTHONPATH": str(ROOT / "src"),
    }
    place = folder / "my-dam" if in_project else folder
    done = subprocess.run(["sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    out = re.search(r"--out (\S+)", command)
    assert out is None or (place / out[1]).exists()
