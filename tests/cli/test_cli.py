"""The command line: user errors end in one sentence, and nothing is left behind."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from damcrack.cli import main as cli
from damcrack.files import OUTPUT_MARKER, InputError, new_directory
from damcrack.progress import Watcher
from damcrack.stage_runner import content_digest, failure_kept, show
from damcrack.stage_table import STAGES
from surveys import save
from walls import concrete, photo, write_darkness_detector

DEMO = Path(__file__).parents[2] / "params" / "demo.yaml"


@pytest.fixture(autouse=True)
def in_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder with the demo's values; runs are not sent; restore the signal handler."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAMCRACK_TRACK", "later")
    Path("params.yaml").write_text(DEMO.read_text())
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def damcrack(*arguments: str) -> str:
    """Run the command; return its exit message, empty on success."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["damcrack", *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            return str(ended.code)
    return ""


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_explains_itself(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stage has a help page with its inputs and its output."""
    damcrack(stage, "--help")
    page = capsys.readouterr().out
    assert STAGES[stage].help in " ".join(page.split())
    named = [*STAGES[stage].options, "out", "params"]
    assert all(f"--{name}" in page or f"{name.upper()}..." in page for name in named)


TILE = "tile --photos photos --out out"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("tile --photos absent --out out", ["absent does not exist", "dvc repro"]),
        ("check absent.yaml", ["damcrack init"]),
        ("summary", ["make repro"]),
        ("finetune --item resnet19 --tiles tiles --out out", ["resnet19", "resnet18-scratch"]),
        ("finetune --item resnet18-scratch --tiles tiles --out out", ["set.json is missing"]),
        (f"{TILE} --params mistyped.yaml", ["tile.tile_pz: unknown name (did you mean 'tile_px'?)"]),
        ("check mistyped.yaml", ["tile.tile_pz: unknown name (did you mean 'tile_px'?)"]),
        (f"{TILE} --set tile_pz=3", ["tile.tile_pz: unknown name"]),
        (f"{TILE} --set tile_px", ["expected NAME=VALUE"]),
        (f"{TILE} --set tile_px=3", ["tile.tile_px: got 3"]),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_output(call: str, words: list[str]) -> None:
    """It names what is wrong, and how to get what is missing."""
    Path("mistyped.yaml").write_text(DEMO.read_text().replace("tile_px:", "tile_pz:"))
    for name in ("photos", "tiles"):
        Path(name).mkdir()
    message = damcrack(*call.split())
    assert all(word in message for word in words) and len(message.splitlines()) == 1
    assert not Path("out").exists()


def test_a_failure_is_recorded_until_the_output_is_there() -> None:
    """The record says why; a later success removes it."""
    for out in ("models/a", "../a", str(Path.cwd().parent / "a")):
        with pytest.raises(InputError), failure_kept(Path(out), Path(".damcrack")):
            raise InputError("no tiles")
        (record,) = Path(".damcrack/failed").iterdir()
        assert json.loads(record.read_text()) == {"out": out, "error": "InputError: no tiles"}
        with failure_kept(Path(out), Path(".damcrack")):
            assert "killed" in record.read_text()
        assert not record.exists()


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of an extra that is not installed is answered with the install command."""
    error = ModuleNotFoundError("No module named 'boto3'", name="boto3")
    assert 'pip install "damcrack[s3]"' in cli._explain(error)


def test_a_foreign_folder_is_refused_before_a_stage_begins() -> None:
    """Every stage asks first; what is in the folder stays."""
    Path("mine").mkdir()
    Path("mine/notes").touch()
    for name in ("data", "images"):
        Path(name).mkdir()
    calls = [
        ("photos", "--snapshot", "params.yaml"),
        ("tile", "--photos", "data"),
        ("pretrain", "--item", "resnet50", "--images", "images"),
        ("evaluate", "--tiles", "data", "--models", "data"),
        ("export", "--tiles", "data", "--model", "data"),
        ("inspect", "data", "--tiles", "data", "--model", "data", "--params", "params.yaml"),
        ("tiles-to-folders", "--tiles", "data"),
        ("freeze", "--photos", "data", "--tiles", "data"),
    ]
    for call in calls:
        assert "notes" in damcrack(*call, "--out", "mine"), call
    assert [path.name for path in Path("mine").iterdir()] == ["notes"]


def test_a_file_that_is_not_ours_is_not_overwritten() -> None:
    """A snapshot or a compiled pipeline replaces only its like."""
    Path("imagery.yaml").write_text("incoming: in\nstore: store\n")
    Path("notes.txt").write_text("file,who")
    images = ("--cpu-image", "a@sha256:0", "--train-image", "b@sha256:0", "--revision", "0" * 40)
    for call in (
        ("imagery", "take-in", "--outcome", "notes.txt"),
        ("pipeline", "compile", "--remote", "s3://dam/dvc", *images, "--out", "notes.txt"),
    ):
        assert "notes.txt" in damcrack(*call)
        assert Path("notes.txt").read_text() == "file,who"


def test_a_home_that_the_shell_left_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """--out=~/x reaches us as it was typed."""
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    Path("home/x").mkdir(parents=True)
    Path("home/x/notes").touch()
    assert "notes" in damcrack("tiles-to-folders", "--tiles", "data", "--out=~/x")
    assert not Path("~").exists()


def test_interruption_leaves_no_output(tmp_path: Path) -> None:
    """Ctrl-C while writing removes what was begun and keeps what was there."""
    with new_directory(tmp_path / "out") as folder:
        (folder / "old").touch()
    with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "out") as folder:
        (folder / "new").touch()
        raise KeyboardInterrupt
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files - {"params.yaml"} == {"old", OUTPUT_MARKER}


def test_interrupted_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends in one sentence, and as shells and schedulers expect it."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("damcrack.stage_runner.execute", interrupted)
    assert damcrack("tile", "--photos", "photos", "--out", "tiles") == "130"
    assert "interrupted" in capsys.readouterr().err


def test_output_below_a_file_is_refused() -> None:
    """An output whose parent is a file cannot be written, and says so."""
    Path("file").touch()
    with pytest.raises(InputError, match="cannot write"), new_directory(Path("file/out")):
        pass


def test_outputs_are_named_by_their_content(tmp_path: Path) -> None:
    """A model by its weights, its export by the ONNX file, anything else by its tables and json files."""
    model, export, tables = (tmp_path / name for name in ("model", "export", "tables"))
    for folder in (model, export, tables):
        folder.mkdir()
    (model / "model.json").write_text('{"weights_sha256": "w"}')
    (export / "model.json").write_text('{"weights_sha256": "w", "onnx_sha256": "o"}')
    (tables / "tiles.csv").write_text("key\n1\n")
    before = content_digest(tables)
    (tables / "tiles.csv").write_text("key\n2\n")
    assert (content_digest(model), content_digest(export)) == ("w", "o")
    assert content_digest(tables) != before


DAMAGED = {"empty": "", "cut": '{"format": 1, "name"', "list": "[]", "other": '{"format": 1}'}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize(
    "arguments",
    [
        ("finetune", "--item", "resnet18-scratch", "--tiles", "tiles", "--init", "model", "--out", "out"),
        ("export", "--model", "model", "--tiles", "tiles", "--out", "out"),
        ("inspect", "photos", "--model", "detector", "--out", "out"),
    ],
)
def test_a_damaged_description_of_a_model_is_named(arguments: tuple[str, ...], content: str) -> None:
    """Whichever command reads it: one sentence with the file, and no output."""
    Path("tiles").mkdir()
    Path("photos").mkdir()
    for folder in ("model", "detector"):
        Path(folder).mkdir()
        Path(folder, "model.json").write_text(content)
    write_darkness_detector(Path("detector/model.onnx"))
    message = damcrack(*arguments)
    assert message.startswith("damcrack: error: ") and ".json" in message and not Path("out").exists()


@pytest.mark.parametrize("name", ["[bold red]x[-bold]", "a[/b]", ":warning:", "[link=http://x]y[/link]"])
def test_brackets_in_a_name_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is shown of a name is the name."""
    show("tile", {"written": Path("out") / name}, 1.0)
    Watcher().say(name)
    list(Watcher(Console(force_terminal=True, stderr=True)).track([1], name))
    assert "".join(capsys.readouterr().err.split()).count("".join(name.split())) >= 2


def test_a_name_or_an_address_in_a_message_is_harmless() -> None:
    """No escape sequence and no password reaches the terminal."""
    message = damcrack("tile", "--photos", "x\x1b]0;y\x07/http://me:secret@host", "--out", "out")
    assert "\x1b" not in message and "secret" not in message


@pytest.mark.skipif(os.name != "posix", reason="rights of users and groups")
def test_nothing_is_written_for_everybody_to_change(tmp_path: Path) -> None:
    """However open the umask is; one that is stricter counts."""
    Path("photos").mkdir()
    save(Path("photos/1.jpg"), photo(concrete((64, 64))))
    Path("folder.yaml").write_text(
        DEMO.read_text().replace("sources: {sample: sample}", "sources: {own: photos}")
    )
    before = os.umask(0)
    try:
        assert not damcrack("snapshot", "photos", "--params", "folder.yaml")
        assert all(path.stat().st_mode & 0o002 == 0 for path in Path("snapshots").rglob("*"))
        assert Path("snapshots/photos.csv").stat().st_mode & 0o664 == 0o664
        os.umask(0o077)
        assert not damcrack("snapshot", "photos", "--params", "folder.yaml")
        assert Path("snapshots/photos.csv").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
