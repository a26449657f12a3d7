import unicodedata

import pytest

from damcrack.files import InputError
from damcrack.inspection.scale import Scale, for_photos, read_scale_csv, without_number
from damcrack.inspection.spreadsheet import escape_formula, unescape_formula

PHOTOS = ["Für.jpg", "a.jpg", "sub/b.jpg", "dive.mp4", "=1.jpg"]
RIGHT = {"a.jpg": 0.5, "Für.jpg": 0.8}


def table(folder, content):
    path = folder / "scales.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder, content):
    return for_photos(read_scale_csv(table(folder, content)), PHOTOS)


PLAIN = "photo,gsd_mm_per_px\na.jpg,0.5\nFür.jpg,0.8\n"
GERMAN = 'photo;gsd_mm_per_px\na.jpg;0,5\nFür.jpg;"0,8"\n'


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.encode("utf-16"),
        GERMAN.encode("utf-16"),
        PLAIN.encode("cp1252"),
        GERMAN,
        GERMAN.encode("cp1252"),
        "sep=;\r\n" + GERMAN.replace("\n", "\r\n"),
        "\r\n\r\n" + PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", "\t"),
        'photo,gsd_mm_per_px\na.jpg,"0,5"\n"Für.jpg","0,8"\n',
        " Photo , GSD mm per px \n a.jpg , 0.5 \nFür.jpg\xa0,0.80\n",
        "gsd_mm_per_px,note,photo\n0.5,,a.jpg\n0.8,far,Für.jpg\n",
        "photo,gsd_mm_per_px,,\nA.JPG,0.5,,\n.\\FÜR.JPG,8e-1,,\n,,,\n",
        "photo,gsd_mm_per_px\n./a.jpg,.5\nFür.jpg,0.8\nsub\\b.jpg,\ndive.mp4\n",
        unicodedata.normalize("NFD", PLAIN),
        PLAIN + "a.jpg,0.50\nA.jpg,0.5\n",
    ],
)
def test_a_table_is_read_as_any_spreadsheet_saves_it(tmp_path, content):
    """Encodings, separators, decimal marks, headers, and names in another case or Unicode form."""
    assert read(tmp_path, content) == RIGHT


@pytest.mark.parametrize(
    "content",
    [
        PLAIN + "c.jpg,0.5\n",  # no photo
        PLAIN + "b.jpg,0.5\n",  # it lies in sub/
        PLAIN + "a.jpg,0.6\n",
        PLAIN + "A.JPG ,0.6\n",
        "photo,gsd_mm_per_px\na.jpg,0,5\n",  # a cell too many
        "photo,gsd_mm_per_px\na.jpg,five\n",
        "photo,gsd_mm_per_px\na.jpg,1_0\n",
        'photo,gsd_mm_per_px\na.jpg,"1.234,5"\n',
        "photo,gsd_mm_per_px\na.jpg,-0.5\n",
        "photo,gsd_mm_per_px\na.jpg,0\n",
        "photo,gsd_mm_per_px\na.jpg,nan\n",
        "photo,gsd_mm_per_px\na.jpg,500\n",
        "photo,gsd_mm_per_px\n",
        "photo,gsd_mm_per_px\na.jpg,\n",
        "photo,photo,gsd_mm_per_px\na.jpg,a.jpg,0.5\n",
        "photo,gsd\na.jpg,0.5\n",
        "a.jpg,0.5\n",
        'photo,gsd_mm_per_px\n"a.jpg,0.5\n',
        "",
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00",  # an .xlsx
        b"\xff\xfe\x00",
    ],
)
def test_a_table_that_could_give_another_number_is_refused(tmp_path, content):
    """Before any photo is looked at."""
    with pytest.raises(InputError):
        read(tmp_path, content)


def test_two_photos_that_differ_in_case_are_told_apart(tmp_path):
    """By the exact spelling; another one could mean both."""
    exact = read_scale_csv(table(tmp_path, "photo,gsd_mm_per_px\nA.jpg,0.5\na.jpg,0.7\n"))
    assert for_photos(exact, ["a.jpg", "A.jpg"]) == {"A.jpg": 0.5, "a.jpg": 0.7}
    with pytest.raises(InputError, match=r"A\.jpg or a\.jpg"):
        for_photos({"A.JPG": 0.5}, ["a.jpg", "A.jpg"])


def test_a_video_gives_its_number_to_its_frames():
    """A frame's own number overrides it, and both override the number for all, which overrides the distance."""
    found = for_photos({"Dive.mp4": 0.5, "dive.mp4@00002.0s.jpg": 0.7}, PHOTOS)
    scale = Scale(gsd_mm_per_px=2.0, distance_m=5, by_photo=found)
    assert scale.of("dive.mp4@00001.0s.jpg", b"", 10, 10) == 0.5
    assert scale.of("dive.mp4@00002.0s.jpg", b"", 10, 10) == 0.7
    assert scale.of("a.jpg", b"", 10, 10) == 2.0
    assert Scale(by_photo=found).of("a.jpg", b"", 10, 10) is None


def test_photos_without_a_number_are_named():
    """And how they are measured instead."""
    line = without_number(Scale(gsd_mm_per_px=2.0, by_photo={"a.jpg": 0.5}), ["a.jpg", "b.jpg"])
    assert "b.jpg" in line
    assert "a.jpg" not in line
    assert "2 mm" in line
    assert without_number(Scale(by_photo={"a.jpg": 0.5}), ["a.jpg"]) == ""


@pytest.mark.parametrize(
    "name", ["=1.jpg", "+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "'=1", "''-1", "\uff1d1"]
)
def test_formulas_are_escaped_and_come_back(name):
    """An apostrophe before them; numbers and other texts stay."""
    assert escape_formula(name) == "'" + name
    assert unescape_formula(escape_formula(name)) == name


@pytest.mark.parametrize("value", [-2.5, 3, "", "a=b", "'quote'.jpg", "Für.jpg", None])
def test_other_cells_stay_as_they_are(value):
    """Negative numbers are numbers."""
    assert escape_formula(value) == value
    assert unescape_formula(str(value)) == str(value)


def test_names_of_our_own_tables_are_understood(tmp_path):
    """photos.csv with its column filled in is such a table."""
    assert read(tmp_path, "photo,gsd_mm_per_px\n'=1.jpg,0.5\n") == {"=1.jpg": 0.5}


def test_a_table_that_is_not_there_is_refused(tmp_path):
    """As is a folder."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="fix the path"):
            read_scale_csv(path)
