"""A survey of several calls: what adds up, what is refused, what stays, and when it is finished."""

import errno
import json
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import pytest

from damcrack.files import OUTPUT_MARKER, InputError, read_csv
from damcrack.inspection.compare import compare
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.survey_folder import FinishedSurvey
from damcrack.run import Run
from damcrack.storage.source import open_source
from surveys import Transcript, cracked, save


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of the tests are relative, as people type them."""
    monkeypatch.chdir(tmp_path)


wall = cache(partial(cracked, (130, 200)))  # hardly larger than a block


def draw(path: str, seed: int = 0) -> None:
    save(Path(path), wall((95, 65, 20 * seed, 100, 5.0), seed=seed))


def inspect(model: Path, *places: str, out: str = "out", **values: object) -> list[str]:
    """Inspect; returns what was said."""
    run = Transcript()
    inspect_photos(places, model, Path(out), InspectConfig(**values), open_source, run)  # type: ignore[arg-type]
    return run.lines


def photos_in(out: str = "out") -> list[str]:
    return [row["photo"] for row in read_csv(Path(out, "photos.csv"))]


def tree(folder: str | Path) -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_second_folder_adds_to_the_survey(model: Path) -> None:
    """Its report holds both, whichever came first, and what was set aside of both."""
    draw("day1/A.jpg")
    draw("day2/B.jpg", 1)
    Path("day1/broken.jpg").write_bytes(b"no photo")
    inspect(model, "day1")
    inspect(model, "day2")
    assert photos_in() == ["A.jpg", "B.jpg"]
    assert "broken.jpg" in Path("out/set-aside.csv").read_text()
    assert len(FinishedSurvey.read(Path("out")).folders) == 2
    assert json.loads(Path("out/survey.json").read_text())["totals"]["num_photos"] == 2
    inspect(model, "day2", out="other")
    inspect(model, "day1", out="other")
    assert {n: c for n, c in tree("out").items() if n != OUTPUT_MARKER} == {
        n: c for n, c in tree("other").items() if n != OUTPUT_MARKER
    }


def test_photos_that_are_gone_leave_with_their_folder_alone(model: Path) -> None:
    """Those of the other folder stay, and it is said how many go."""
    draw("day1/A.jpg")
    draw("day1/A2.jpg", 2)
    draw("day2/B.jpg", 1)
    inspect(model, "day1")
    inspect(model, "day2")
    Path("day1/A2.jpg").unlink()
    said = inspect(model, "day1")
    assert photos_in() == ["A.jpg", "B.jpg"]
    assert any("A2.jpg" in line for line in said)
    assert len(list(Path("out/photos").iterdir())) == 2


def test_one_report_does_not_mix_two_settings(model: Path, tmp_path: Path) -> None:
    """Other values with another folder are refused and change nothing; with all folders they replace."""
    draw("day1/A.jpg")
    draw("day2/B.jpg", 1)
    inspect(model, "day1")
    before = tree("out")
    with pytest.raises(InputError, match="day1"):
        inspect(model, "day2", overlap=0.5)
    assert tree("out") == before
    inspect(model, "day1", "day2", overlap=0.5)
    assert photos_in() == ["day1/A.jpg", "day2/B.jpg"]
    with pytest.raises(InputError, match="day2"):  # half of what was inspected together
        inspect(model, "day1", overlap=0.5)


def test_two_photos_of_one_name_are_refused(model: Path) -> None:
    """A camera counts from 1 on again: neither is lost, and the sentence says how to inspect both."""
    draw("day1/DSC1.jpg")
    draw("day2/DSC1.jpg", 1)
    inspect(model, "day1")
    before = tree("out")
    with pytest.raises(InputError, match="one call"):
        inspect(model, "day2")
    assert tree("out") == before
    inspect(model, "day1", "day2")
    assert photos_in() == ["day1/DSC1.jpg", "day2/DSC1.jpg"]


def test_a_folder_within_an_inspected_one_is_refused(model: Path) -> None:
    """Its photos would count twice; the folder above it takes its place."""
    draw("wall/A.jpg")
    draw("wall/deep/B.jpg", 1)
    inspect(model, "wall/deep")
    inspect(model, "wall")
    assert photos_in() == ["A.jpg", "deep/B.jpg"]
    with pytest.raises(InputError, match="wall"):
        inspect(model, "wall/deep")


def test_single_files_are_given_again_without_one_that_is_gone(model: Path) -> None:
    """A shell that expands *.jpg does not name what was deleted."""
    for number in range(3):
        draw(f"in/{number}.jpg", number)
    inspect(model, "in/0.jpg", "in/1.jpg")
    inspect(model, "in/0.jpg", "in/1.jpg", "in/2.jpg")
    Path("in/1.jpg").unlink()
    inspect(model, "in/0.jpg", "in/2.jpg")
    assert photos_in() == ["0.jpg", "2.jpg"]


@pytest.mark.parametrize("out", ["photos", ".", "photos/A.jpg", "holiday"])
def test_originals_are_never_touched(model: Path, tmp_path: Path, out: str) -> None:
    """The input folder, the one above it, a photo, and a foreign folder that holds a folder `photos`."""
    for name in ("photos/A.jpg", "photos/left/B.jpg", "holiday/photos/C.jpg"):
        draw(name)
    before = tree(tmp_path)
    with pytest.raises(InputError):
        inspect(model, "photos", out=out)
    assert tree(tmp_path) == before


def test_photos_in_the_survey_itself_are_refused(model: Path) -> None:
    """Even in a folder that the engineer made there."""
    draw("in/A.jpg")
    inspect(model, "in")
    draw("out/mine/B.jpg", 1)
    before = tree("out")
    for place in ("out", "out/mine", "out/photos"):
        with pytest.raises(InputError):
            inspect(model, place)
    assert tree("out") == before


def test_the_current_folder_may_be_the_survey(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty one; and again."""
    draw("in/A.jpg")
    (tmp_path / "survey").mkdir()
    monkeypatch.chdir(tmp_path / "survey")
    for _ in range(2):
        inspect(model, "../in", out=".")
    assert photos_in(".") == ["A.jpg"]


def test_what_engineers_put_into_a_survey_stays(model: Path) -> None:
    """Beside the page, in the folder of photos, and in that of a photo which is inspected again, or leaves."""
    draw("in/A.jpg")
    draw("in/B.jpg", 1)
    inspect(model, "in")
    a, b = FinishedSurvey.read(Path("out")).folders.values()
    notes = [Path("out/notes.docx"), Path("out/photos/list.txt"), a / "note.txt", b / "note.txt"]
    for note in notes:
        note.write_text(str(note))
    Path("in/B.jpg").unlink()
    inspect(model, "in", overlap=0.5)
    assert [note.read_text() for note in notes] == [str(note) for note in notes]
    assert [folder.name for folder in FinishedSurvey.read(Path("out")).folders.values()] == [a.name]
    draw("in/B.jpg", 1)
    inspect(model, "in", overlap=0.5)
    assert photos_in() == ["A.jpg", "B.jpg"]
    assert [note.read_text() for note in notes] == [str(note) for note in notes]


def test_a_foreign_file_of_our_name_is_not_replaced(model: Path) -> None:
    """Put there after a call that did not end, it stays, and the sentence names it."""
    draw("in/A.jpg")
    inspect(model, "in")
    marker = json.loads(Path("out", OUTPUT_MARKER).read_text())
    marker["files"].remove("photos.csv")
    Path("out", OUTPUT_MARKER).write_text(json.dumps(marker))
    Path("out/photos.csv").write_text("mine")
    with pytest.raises(InputError, match=r"photos\.csv"):
        inspect(model, "in")
    assert Path("out/photos.csv").read_text() == "mine"


def interrupted(model: Path, monkeypatch: pytest.MonkeyPatch, *places: str, **values: object) -> None:
    """A call that ends while it inspects its first photo."""
    from damcrack.inspection import survey

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(survey, "look_at", stop)
        inspect(model, *places, **values)


def test_a_survey_that_is_redone_is_not_finished(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No table or page of the earlier call is left; readers refuse it; the same call finishes it."""
    draw("in/A.jpg")
    inspect(model, "in")
    shutil.copytree("out", "old")
    interrupted(model, monkeypatch, "in", overlap=0.5)
    assert [path.name for path in Path("out").iterdir() if path.is_file()] == [OUTPUT_MARKER]
    for old, new in (("old", "out"), ("out", "old")):
        with pytest.raises(InputError, match="not a finished survey"):
            compare(Path(old), Path(new), Path("compared"), None, Run())
    inspect(model, "in")
    assert tree("out") == tree("old")


def test_a_disk_that_fills_up_at_the_end_keeps_the_photos(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No table is left half, nothing is inspected again, and the same call finishes the survey."""
    from damcrack.inspection import inspect as module
    from damcrack.inspection import survey

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    draw("in/A.jpg")
    inspect(model, "in")
    shutil.copytree("out", "whole")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(module.Page, "write", full)
        inspect(model, "in")
    assert [path.name for path in Path("out").iterdir() if path.is_file()] == [OUTPUT_MARKER]
    with monkeypatch.context() as patch:
        patch.setattr(survey, "look_at", None)
        inspect(model, "in")
    assert tree("out") == tree("whole")


def test_a_call_that_did_not_end_is_not_forgotten(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder must wait for it, as its photos may be half old and half new; a new folder need not."""
    draw("day1/A.jpg")
    draw("day2/B.jpg", 1)
    draw("day3/C.jpg", 2)
    interrupted(model, monkeypatch, "day1")
    inspect(model, "day2")
    assert photos_in() == ["B.jpg"]
    interrupted(model, monkeypatch, "day2", overlap=0.5)
    with pytest.raises(InputError, match="day2"):
        inspect(model, "day3")
    inspect(model, "day2")
    inspect(model, "day3")
    assert photos_in() == ["B.jpg", "C.jpg"]


@pytest.mark.slow
def test_the_second_of_two_calls_is_told_at_once(model: Path, tmp_path: Path) -> None:
    """One of them finishes the survey, the other says that it is in use; a killed one blocks nobody."""
    for number in range(12):
        draw(f"in/{number}.jpg", number)
    code = "from damcrack.cli.main import main; main()"
    call = [sys.executable, "-c", code, "inspect", "in", "--model", str(model), "--out", "out"]
    calls = [subprocess.Popen(call, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = sorted((one.wait(), one.communicate()[1]) for one in calls)
    if ends[1][0] == 0:  # one had ended before the other began
        pytest.skip("the machine is too slow for two calls at once")
    assert ends[0][0] == 0 and len(photos_in()) == 12
    assert "in use" in ends[1][1]
    killed = subprocess.Popen(call)
    while not Path("out/.damcrack-lock").exists() and killed.poll() is None:
        pass
    killed.kill()
    killed.wait()
    assert subprocess.run(call).returncode == 0
    assert not Path("out/.damcrack-lock").exists()
