from pathlib import Path

import pytest

from damcrack.data.snapshot import open_fixed, snapshot
from damcrack.files import InputError, read_csv, sha256_bytes
from damcrack.run import Run
from damcrack.storage.source import open_source


def taken(tmp_path: Path, **files: bytes) -> tuple[Path, dict[str, str]]:
    """Folder `dam` with these files, and its snapshot."""
    (tmp_path / "dam").mkdir()
    for name, content in files.items():
        (tmp_path / "dam" / name.replace("_", ".")).write_bytes(content)
    sources = {"dam": str(tmp_path / "dam"), "made": "sample"}
    snapshot(sources, tmp_path / "snapshots/photos.csv", open_source, Run())
    return tmp_path / "snapshots/photos.csv", sources


def test_rows_are_sorted_and_hashed(tmp_path):
    """Images and CSVs carry size and hash, other files only their name, the sample nothing."""
    path, _ = taken(tmp_path, b_jpg=b"bb", a_csv=b"a", notes_txt=b"x")
    assert read_csv(path) == [
        {"source": "dam", "name": "a.csv", "size_bytes": "1", "sha256": sha256_bytes(b"a")},
        {"source": "dam", "name": "b.jpg", "size_bytes": "2", "sha256": sha256_bytes(b"bb")},
        {"source": "dam", "name": "notes.txt", "size_bytes": "", "sha256": ""},
    ]


def test_the_same_files_give_the_same_bytes(tmp_path):
    """A snapshot of an unchanged folder is unchanged, so no stage runs again."""
    path, sources = taken(tmp_path, a_jpg=b"1", b_jpg=b"2")
    before = path.read_bytes()
    snapshot(sources, path, open_source, Run())
    assert path.read_bytes() == before


def test_names_no_csv_can_hold_are_escaped(tmp_path):
    """Line ends and bytes that are not UTF-8 in names still give a readable snapshot."""
    (tmp_path / "dam").mkdir()
    for name in (b"a\rb.jpg", b"c\nd.jpg", b"\xff.jpg", "é.jpg".encode()):
        (tmp_path / "dam" / name.decode("utf-8", "surrogateescape")).write_bytes(name)
    snapshot({"dam": str(tmp_path / "dam")}, tmp_path / "s.csv", open_source, Run())
    assert [row["name"] for row in read_csv(tmp_path / "s.csv")] == [
        "\\udcff.jpg",
        "a\\rb.jpg",
        "c\\nd.jpg",
        "é.jpg",
    ]


def test_links_that_are_not_followed_are_said(tmp_path):
    """A folder of links to another disk must not look like one with few photos."""
    path, sources = taken(tmp_path, a_jpg=b"1")
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/b.jpg").write_bytes(b"2")
    (tmp_path / "dam/b.jpg").symlink_to(tmp_path / "disk/b.jpg")
    (tmp_path / "dam/more").symlink_to(tmp_path / "disk")
    said = []
    run = Run()
    run.say = said.append
    snapshot(sources, path, open_source, run)
    assert [row["name"] for row in read_csv(path)] == ["a.jpg"]
    assert len(said) == 1
    assert "2, b.jpg first" in said[0]


def test_an_empty_folder_is_an_error(tmp_path):
    """A wrong path must not become an empty data set."""
    with pytest.raises(InputError, match="no file in"):
        taken(tmp_path)
    assert not (tmp_path / "snapshots").exists()


def test_listed_files_read_back(tmp_path):
    """A fixed source gives the bytes that were hashed; the sample is not opened."""
    path, sources = taken(tmp_path, a_jpg=b"1")
    fixed = open_fixed(path, sources, open_source, "photos")
    assert list(fixed) == ["dam"]
    assert fixed["dam"].read("a.jpg") == b"1"


@pytest.mark.parametrize("change", ["rewrite", "remove"])
def test_changed_or_vanished_files_are_refused(tmp_path, change):
    """What the cache knows under this snapshot must be what the stage reads."""
    path, sources = taken(tmp_path, a_jpg=b"1")
    file = tmp_path / "dam/a.jpg"
    file.write_bytes(b"2") if change == "rewrite" else file.unlink()
    with pytest.raises(InputError, match=r"a\.jpg .* run `damcrack snapshot photos`"):
        open_fixed(path, sources, open_source, "photos")["dam"].read("a.jpg")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("source,name,size_bytes,sha256\n", "lists no file of dam"),
        ("source,name,size_bytes,sha256\nother,a.jpg,1,00\n", "lists no file of dam"),
        ("source,name\ndam,a.jpg\n", "columns source, name, expected"),
        ("source,name,size_bytes,sha256\ndam,a.jpg\n", "columns"),
        ("", "lists no file of dam"),
        (None, "is not a snapshot"),
    ],
)
def test_unusable_snapshots_say_how_to_mend_them(tmp_path, content, says):
    """Missing, empty, of another source or with other columns: the command that writes it is named."""
    path, sources = taken(tmp_path, a_jpg=b"1")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=f"{says}.*damcrack snapshot miniimagenet"):
        open_fixed(path, sources, open_source, "miniimagenet")


def test_the_sample_needs_no_snapshot(tmp_path):
    """Nothing is read for the built-in sample."""
    assert open_fixed(tmp_path / "none.csv", {"sample": "sample"}, open_source, "photos") == {}
