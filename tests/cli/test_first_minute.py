"""The first minute: the shipped detector on one photo, and machines that lack something."""

import os
import pty
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from damcrack.cli.main import cli
from damcrack.files import InputError
from damcrack.sample.concrete import render_photo

pytestmark = pytest.mark.slow

SOURCE = str(Path(__file__).parents[2] / "src")
DAMCRACK = (sys.executable, "-m", "damcrack")


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A rendered photo alone in the working folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(render_photo(99, 3, (300, 400)).rgb).save("photo.jpg", quality=95)
    return Path("photo.jpg")


def test_one_command_to_the_first_result(photo: Path, tmp_path: Path) -> None:
    """A photo and nothing else: a survey, the place of its page, and the page in the browser.

    Libraries that report their use are told not to, and no file appears outside the working folder.
    """
    home, script, opened = (tmp_path / name for name in ("home", "browse", "opened"))
    home.mkdir()
    script.write_text(f'#!/bin/sh\necho "$1" >"{opened}"\n')
    script.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    environment = {**clean, "HOME": str(home), "BROWSER": f"{script} %s"}
    call = [*DAMCRACK, "inspect", str(photo), "--open"]
    done = subprocess.run(call, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert Path("survey/report.html").is_file()
    assert str(Path("survey/report.html")) in done.stderr.splitlines()[-1]
    assert opened.read_text().strip() == Path("survey/report.html").absolute().as_uri()
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize("more", [("--part", "1/2"), ("--out", "s3://dam/survey")])
def test_a_page_that_will_not_be_here_is_not_opened(photo: Path, more: tuple[str, str]) -> None:
    """A part writes no page, a browser opens none in a bucket: said before any work."""
    done = CliRunner().invoke(cli, ["inspect", str(photo), "--open", *more])
    assert isinstance(done.exception, InputError) and "--open" in str(done.exception)
    assert not Path("survey").exists()


def test_no_browser_is_one_sentence(photo: Path) -> None:
    """The survey is there, and the sentence names its page."""
    none = dict.fromkeys(("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"), "") | {"PATH": "/nonexistent"}
    call = [*DAMCRACK, "inspect", str(photo), "--open"]
    done = subprocess.run(call, capture_output=True, text=True, env=os.environ | none)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("damcrack: error:")
    assert Path("survey/report.html").is_file()


def test_demo_finds_cracks_in_a_photo_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No input at all; a second call changes nothing, and a photo of somebody else is not overwritten."""
    monkeypatch.chdir(tmp_path)
    demo = partial(CliRunner().invoke, cli)
    assert demo(["demo"]).exit_code == 0
    rows = Path("demo/cracks.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(rows) > 3
    page = Path("demo/report.html").read_bytes()
    assert demo(["demo"]).exit_code == 0
    assert Path("demo/report.html").read_bytes() == page
    Path("other.jpg").write_bytes(b"mine")
    assert isinstance(demo(["demo", "--out", "other"]).exception, InputError)
    assert Path("other.jpg").read_bytes() == b"mine"


BARE = {
    "PATH": "/nonexistent",  # no git, no browser
    "HOME": "/proc",  # nothing can be written there, not even by root
    "XDG_CACHE_HOME": "/proc",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONPATH": SOURCE,
}


def without_network() -> tuple[str, ...]:
    """Words before a command that take the network away, where this may be done."""
    unshare = shutil.which("unshare")
    works = unshare and subprocess.run([unshare, "--net", "true"], capture_output=True).returncode == 0
    return (str(unshare), "--net") if works else ()


def test_a_machine_that_lacks_everything(photo: Path) -> None:
    """No git, network or UTF-8, no home to write in; a path with spaces, brackets and letters beyond ASCII."""
    folder = Path("a b [left] ü")
    folder.mkdir()
    photo = photo.rename(folder / "my photo [x] ü.jpg")
    call = (*without_network(), *DAMCRACK, "inspect", str(photo), "--out", str(folder / "survey [bold]"))
    done = subprocess.run(call, capture_output=True, env=BARE)
    assert done.returncode == 0, done.stderr
    assert (folder / "survey [bold]/report.html").is_file()
    lines = done.stderr.decode("ascii").splitlines()
    assert "[bold]" in lines[-1], lines  # a path is shown as it is, to be copied
    assert not [line for line in lines if "onnxruntime" in line]


def in_terminal(*words: str, **environment: str) -> tuple[int, str]:
    """Run in a terminal of 60 columns; its exit status, and all that it wrote."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"COLUMNS": "60", "TERM": "xterm-256color", "PYTHONPATH": SOURCE, **environment})
        os.execv(sys.executable, [*DAMCRACK, *words])
    written = b""
    while True:
        try:
            block = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other end was closed
            break
        if not block:
            break
        written += block
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), written.decode()


COLOUR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[\d;]*)?m")


def test_narrow_terminal_without_colour(photo: Path) -> None:
    """NO_COLOR is obeyed, progress fits 60 columns, and a long path stays in one piece."""
    out = f"survey-{'long-' * 14}name"
    status, written = in_terminal("inspect", str(photo), "--out", out, NO_COLOR="1")
    assert status == 0, written
    assert not COLOUR.search(written)
    assert f"{out}/report.html" in written
    assert COLOUR.search(in_terminal("inspect", str(photo))[1])  # and without NO_COLOR there is some
