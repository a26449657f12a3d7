"""Folders that we write: whose they are, what is never touched, and what a killed call leaves."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from damcrack.files import (
    OUTPUT_MARKER,
    InputError,
    check_output,
    check_output_file,
    in_order,
    new_directory,
    num_workers,
    one_at_a_time,
    read_csv,
    read_json,
    remove_output,
    temporary_folder,
    write_csv,
)


def write(out: Path, kind: str = "output", **files: str) -> None:
    with new_directory(out, kind) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


def tree(folder: Path) -> dict[str, bytes]:
    """All files in a folder, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_an_output_is_replaced_by_the_next(tmp_path: Path) -> None:
    """What the earlier call wrote is gone, and nothing else is next to it."""
    write(tmp_path / "out", a="1", b="1")
    write(tmp_path / "out", a="2")
    assert tree(tmp_path / "out").keys() == {"a", OUTPUT_MARKER}
    assert (tmp_path / "out/a").read_text() == "2"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_equal_outputs_have_equal_bytes(tmp_path: Path) -> None:
    """The marker too, whatever folder was replaced."""
    write(tmp_path / "one", b="1")
    write(tmp_path / "one", a="2")
    write(tmp_path / "two", a="2")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.parametrize("kind", ["survey", "output"])
def test_a_foreign_folder_is_refused_before_any_work(tmp_path: Path, kind: str) -> None:
    """With and without a folder of the names that we use; nothing in it or beside it changes."""
    (tmp_path / "out/photos").mkdir(parents=True)
    (tmp_path / "out/photos/IMG_1.jpg").write_bytes(b"a photograph")
    with pytest.raises(InputError, match="photos"), new_directory(tmp_path / "out", kind):
        pytest.fail("work began")
    assert tree(tmp_path) == {"out/photos/IMG_1.jpg": b"a photograph"}


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A comparison does not replace a survey."""
    write(tmp_path / "out", "survey", a="1")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="survey"), new_directory(tmp_path / "out", "comparison"):
        pytest.fail("work began")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini"])
def test_files_of_viewers_do_not_fill_a_folder(tmp_path: Path, name: str) -> None:
    """A folder that Finder or Explorer has looked at is still empty, and keeps their files."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"icons")
    write(tmp_path / "out", a="1")
    assert tree(tmp_path / "out").keys() == {"a", OUTPUT_MARKER, name}


def test_notes_in_an_output_stay(tmp_path: Path) -> None:
    """Files, folders, empty folders and links that somebody put there move along."""
    write(tmp_path / "out", a="1")
    (tmp_path / "out/notes.docx").write_text("assessment")
    (tmp_path / "out/mine/empty").mkdir(parents=True)
    (tmp_path / "out/mine/b").write_text("b")
    (tmp_path / "out/link").symlink_to(tmp_path)
    write(tmp_path / "out", c="2")
    assert (tmp_path / "out/notes.docx").read_text() == "assessment"
    assert (tmp_path / "out/mine/b").read_text() == "b"
    assert (tmp_path / "out/mine/empty").is_dir()
    assert (tmp_path / "out/link").is_symlink()
    assert not (tmp_path / "out/a").exists() and (tmp_path / "out/c").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_foreign_file_of_our_name_is_not_replaced(tmp_path: Path) -> None:
    """The call ends with its name; the earlier output stays as it was."""
    write(tmp_path / "out", a="1")
    (tmp_path / "out/c").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="not ours"):
        write(tmp_path / "out", c="2")
    assert tree(tmp_path) == before


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    """The output is written where it leads."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write(tmp_path / "out", a="1")
    write(tmp_path / "out", a="2")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk/a").read_text() == "2"


def test_what_is_no_folder_of_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, the root, the home folder, the current folder and what is above it."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/mail").touch()
    (tmp_path / "empty/deep").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "empty/deep")
    for out in ("/", "~", ".", "..", str(tmp_path / "file")):
        with pytest.raises(InputError), new_directory(Path(out)):
            pytest.fail("work began")
    assert tree(tmp_path) == {"file": b"mine", "home/mail": b""}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    """Before any work."""
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="cannot write"), new_directory(tmp_path / "out"):
        pytest.fail("work began")
    tmp_path.chmod(0o755)


def test_a_marker_that_names_other_places_is_none(tmp_path: Path) -> None:
    """Whoever writes "../x" into a marker has nothing removed by it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").touch()
    for name in ("../precious", str(tmp_path / "precious")):
        (tmp_path / "out" / OUTPUT_MARKER).write_text(json.dumps({"kind": "output", "files": [name]}))
        with pytest.raises(InputError):
            check_output(tmp_path / "out", "output")
    assert (tmp_path / "precious").exists()


def test_a_second_call_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    """At once, and only as long as the first one lives."""
    with new_directory(tmp_path / "out") as folder:
        (folder / "a").touch()
        with pytest.raises(InputError, match="in use"), new_directory(tmp_path / "out"):
            pytest.fail("both write")
    assert (tmp_path / "out/a").exists()
    write(tmp_path / "out", b="2")


def killed_at(at: int, work: Callable[[], object], below: Path) -> bool:
    """Run `work` in a process that is killed before its N-th change below a folder; whether it got so far."""

    def kill(event: str, arguments: tuple[object, ...], left: list[int] = [at]) -> None:  # noqa: B006 - counts
        changes = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "open")
        if event in changes and str(arguments[0]).startswith(str(below)):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        sys.addaudithook(kill)
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.slow
def test_a_kill_anywhere_loses_neither_output_nor_notes(tmp_path: Path) -> None:
    """After the next call all is as if there had been no kill; before it the old or the new output is there."""
    for at in range(1, 200):
        folder = tmp_path / str(at)
        write(folder / "out", a="old", c="old")
        (folder / "out/notes").write_text("mine")

        def work(out: Path = folder / "out") -> None:
            with new_directory(out) as new:
                (new / "a").write_text("new")
                (new / "sub").mkdir()
                (new / "sub/b").write_text("new")

        killed = killed_at(at, work, folder)
        left = [path.read_text() for path in folder.rglob("a")]
        assert {"old", "new"} & set(left)
        assert [path.read_text() for path in folder.rglob("notes")] == ["mine"]
        write(folder / "out", a="last")
        assert tree(folder / "out").keys() == {"a", "notes", OUTPUT_MARKER}
        assert list(folder.iterdir()) == [folder / "out"]
        if not killed:
            break
    assert at > 20 and not killed


@pytest.mark.slow
def test_one_process_at_a_time_waits(tmp_path: Path) -> None:
    """The second one begins when the first one has ended."""

    def work() -> None:
        with one_at_a_time(tmp_path / "x"):
            (tmp_path / "in").touch()

    second = multiprocessing.get_context("fork").Process(target=work)
    with one_at_a_time(tmp_path / "x"):
        second.start()
        second.join(1.0)
        assert second.is_alive() and not (tmp_path / "in").exists()
    second.join(60)
    assert second.exitcode == 0 and (tmp_path / "in").exists()


@pytest.mark.parametrize(("content", "refused"), [("", False), ("a,b\n1,2\n", False), ("my notes", True)])
def test_a_foreign_file_is_not_overwritten(tmp_path: Path, content: str, refused: bool) -> None:
    """A file to write may be absent, empty, or one that starts as ours do."""
    (tmp_path / "out").write_text(content)
    check_output_file(tmp_path / "absent", "table", "a,b")
    with pytest.raises(InputError) if refused else nullcontext():
        check_output_file(tmp_path / "out", "table", "a,b")


def test_a_kill_while_an_output_is_removed_is_made_good(tmp_path: Path) -> None:
    """Wherever: what is there is whole or none, the next call writes, and nothing is left over."""
    place = tmp_path / "out"
    for at in range(1, 40):
        write(place, a="1", b="1")
        (place / "more").mkdir()
        (place / "more/c").write_text("1")
        killed = killed_at(at, lambda: remove_output(place), tmp_path)
        assert not place.exists() or (place / "more/c").is_file()
        write(place, a="2")
        assert {path.name for path in tmp_path.iterdir()} == {"out"}
        remove_output(place)
        if not killed:
            break
    assert at > 4 and not killed and not list(tmp_path.iterdir())


def test_temporary_folders_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in use stay, and so do those of others; a user's folder is no place for links."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def work() -> None:
        with temporary_folder() as folder:
            (folder / "large").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed_at(0, work, tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine").write_text("x")
    (tmp_path / "damcrack-tmp-link").symlink_to(tmp_path / "target")
    assert len(list(tmp_path.glob("*/files/large"))) == 1
    with temporary_folder() as first:
        (first / "x").write_text("1")
        with temporary_folder() as second:
            assert not list(tmp_path.glob("*/files/large")) and not list(second.iterdir())
        assert (first / "x").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damcrack-tmp-link", "target"]
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["mine"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """And nothing beside it."""
    path = tmp_path / "table.csv"
    write_csv(path, ["a"], [{"a": 1}])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="b"):
        write_csv(path, ["a"], [{"a": 2}, {"b": 3}])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe{", b"[" * 100_000, b'{"a": }'])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    """Whatever is in it: the message names the file."""
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.json"):
        read_json(tmp_path / "model.json")
    with pytest.raises(InputError, match=r"other\.json"):
        read_json(tmp_path / "other.json")


@pytest.mark.parametrize("content", [b"a,b\n\xff\xfe,1\n", b"a,b\n" + b"x" * 200_000 + b",1\n"])
def test_a_damaged_table_is_named(tmp_path: Path, content: bytes) -> None:
    """No text in UTF-8, or a cell without end."""
    (tmp_path / "photos.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"photos\.csv"):
        read_csv(tmp_path / "photos.csv")


def test_results_keep_the_order_of_the_items() -> None:
    """Slow items do not overtake or get overtaken."""
    slow_first = in_order(lambda item: time.sleep(0.002 * (10 - item)) or item, range(10))
    assert list(slow_first) == list(range(10))


def test_few_items_are_taken_ahead() -> None:
    """Memory stays bounded: a reader of one result has cost at most two items per worker."""
    drawn = list[int]()
    results = in_order(lambda item: item, (drawn.append(item) or item for item in range(1000)))
    next(results)
    assert len(drawn) <= 2 * num_workers()
    results.close()


def test_an_exception_comes_out_and_stops_the_work() -> None:
    """The caller sees the error of the item, and the items after it are not all worked on."""
    done, others = list[int](), threading.active_count()

    def work(item: int) -> None:
        if item == 3:
            raise OSError("disk")
        done.append(item)

    with pytest.raises(OSError, match="disk"):
        list(in_order(work, range(1000)))
    assert len(done) < 100
    assert threading.active_count() < others + 20
