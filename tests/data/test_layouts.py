import pytest
from hypothesis import given
from hypothesis import strategies as st

from damcrack.data.layouts import read_layout, read_scenes
from damcrack.data.names import Claims, escaped, why_unsafe
from damcrack.files import InputError


def layout(*names, scenes=None, block=50):
    """Layout of a source called dam."""
    return read_layout("dam", names, scenes or {}, block)


def masks(found):
    """Photo name -> mask name."""
    return {photo.name: photo.mask for photo in found.photos}


@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("a.jpg", "masks/a.png"),
        ("images/a.JPG", "masks/a.tif"),
        ("wall/a.jpg", "masks/wall/a.png"),
        ("wall/a.jpg", "wall/masks/a.png"),
        ("wall/images/a.jpeg", "wall/masks/a.png"),
        ("images/wall/a.tiff", "masks/wall/a.jpg"),
        ("images/wall/a.png", "wall/masks/a.png"),
        ("DSC_1.JPG", "masks/dsc_1.png"),
        ("Wall 1/a.jpg", "MASKS/wall 1/A.PNG"),
        ("caf\u00e9.jpg", "masks/cafe\u0301.png"),
        ("a.jpg", "masks/a.jpg.png"),
        ("photos/a.jpg", "masks/a.png"),
        ("photos/a.jpg", "photos/masks/a.png"),
        ("Positive/a.jpg", "masks/Positive/a.png"),
        ("positive/images/a.jpg", "positive/masks/a.png"),
    ],
)
def test_masks_are_found_by_stem_in_every_layout(photo, mask):
    """`masks/` and `images/` may stand at any level, also of class folders; case and Unicode form do not count."""
    assert masks(layout(photo, mask)) == {photo: mask}


def test_a_photo_of_the_same_stem_in_another_folder_is_another_photo():
    """Masks of one folder do not label the photos of another."""
    found = masks(layout("a/x.jpg", "b/x.jpg", "masks/a/x.png"))
    assert found == {"a/x.jpg": "masks/a/x.png", "b/x.jpg": None}


def test_files_of_other_kinds_are_counted_and_left_alone():
    """Hidden files, notes and masks of other things are no photos and no errors."""
    found = layout("a.jpg", ".a.jpg", ".thumbs/a.jpg", "notes.txt", "masks-planking/a.png", "groups.csv")
    assert masks(found) == {"a.jpg": None}
    assert found.num_ignored == 4
    assert not found.set_aside


@pytest.mark.parametrize(
    ("names", "aside", "says"),
    [
        (["a.jpg", "a.png", "masks/a.png"], ["a.png"], "could be of a.jpg"),
        (["a.jpg", "images/a.jpg", "masks/a.png"], ["images/a.jpg"], "could be of a.jpg"),
        (["a.jpg", "masks/a.png", "masks/a.tif"], ["a.jpg"], "2 masks"),
        (["a.jpg", "masks/b.png"], ["masks/b.png"], "no photo"),
        (["A.jpg", "a.jpg"], ["a.jpg"], "cannot stand beside A.jpg"),
        (["caf\u00e9.jpg", "cafe\u0301.jpg"], ["caf\u00e9.jpg"], "cannot stand beside"),
        (["a.jpg", "a.jpg/b.jpg"], ["a.jpg/b.jpg"], "cannot stand beside a.jpg"),
        (["A.jpg", "a.png", "masks/A.png", "masks/a.tif"], ["a.png"], "beside that of A"),
        (["a.jpg", "masks/a.png", "masks/A.png"], ["a.jpg"], "2 masks"),
        (["A.jpg", "a.jpg", "masks/a.png"], ["a.jpg", "masks/a.png"], "cannot stand beside A.jpg"),
    ],
)
def test_ambiguous_names_are_set_aside(names, aside, says):
    """Names that would share a mask, or overwrite each other on some disk, are never both taken."""
    found = layout(*names)
    assert [file.name for file in found.set_aside] == aside
    assert says in found.set_aside[0].reason


def test_a_mask_spelt_as_its_photo_is_of_no_other():
    """Where two photos differ in case alone."""
    assert masks(layout("A.jpg", "a.png", "masks/a.png")) == {"A.jpg": None, "a.png": "masks/a.png"}


def test_photos_without_masks_may_share_a_stem():
    """Nothing is ambiguous about two unlabelled photos."""
    assert masks(layout("a.jpg", "a.png")) == {"a.jpg": None, "a.png": None}


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "a//b.jpg", "./a.jpg", "a\\b.jpg", "C:\\a.jpg", "a\nb.jpg"]
    + [f"{name}.jpg" for name in ("a\x00", "\udc80", "x" * 250)],
)
def test_names_that_could_escape_never_become_photos(name):
    """They are set aside with a reason, not used as paths."""
    found = layout(name, "good.jpg")
    assert masks(found) == {"good.jpg": None}
    assert len(found.set_aside) == 1


@pytest.mark.parametrize(
    "name", ["a.jpg", "Bild 1 (groß).jpg", "写真/01.png", "3.04\u202fPM.png", "a..b.jpg"]
)
def test_ordinary_names_are_safe(name):
    """Spaces, brackets and other alphabets are nobody's fault."""
    assert why_unsafe(name) is None


def test_escaped_names_fit_a_csv_and_are_refused():
    """Escaping leaves only encodable text, and a changed name always counts as unsafe, whatever letter is in it."""
    for code in (*range(0x3000), *range(0xD800, 0xE000), *range(0x3000, 0x110000, 97)):
        name = f"a{chr(code)}b.jpg"
        spelt = escaped(name)
        assert not set(spelt) & {"\n", "\r", "\x00"}
        assert spelt.encode()
        assert spelt == name or why_unsafe(spelt)


@given(st.lists(st.text("aAbB/", min_size=1, max_size=4), max_size=6))
def test_claimed_paths_never_meet_without_case(paths):
    """Whatever is granted stays distinct when case is ignored."""
    claims = Claims()
    granted = [path for path in paths if why_unsafe(path) is None and claims.clash(path) is None]
    assert len({path.lower() for path in granted}) == len(granted)
    assert not any(one.lower().startswith(two.lower() + "/") for one in granted for two in granted)


def test_ready_tiles_are_grouped_by_blocks_of_their_first_number():
    """Neighbouring numbers share a group, crop suffixes do not count, no number is its own group."""
    found = layout("Positive/00049.jpg", "Positive/00050.jpg", "set/Negative/10003_1.jpg", "Positive/x.jpg")
    assert {tile.name: (tile.label, tile.group) for tile in found.tiles} == {
        "Positive/00049.jpg": (1, "dam/Positive-0"),
        "Positive/00050.jpg": (1, "dam/Positive-1"),
        "set/Negative/10003_1.jpg": (0, "dam/Negative-200"),
        "Positive/x.jpg": (1, "dam/Positive/x.jpg"),
    }


def test_scenes_join_photos_and_wrong_names_are_reported():
    """Photos of a scene share its group; a name in groups.csv that fits nothing shows."""
    scenes = read_scenes("dam", b"\xef\xbb\xbffile,group\na.jpg,pier\nb.jpg,pier\nx.jpg,pier\n")
    found = layout("a.jpg", "b.jpg", "c.jpg", scenes=scenes)
    assert [photo.group for photo in found.photos] == ["dam/pier", "dam/pier", "dam/c.jpg"]
    assert "x.jpg" in found.set_aside[0].reason


def test_scenes_are_found_whatever_the_case_and_the_unicode_form():
    """Spreadsheets write names in another form than disks do."""
    scenes = read_scenes("dam", "file,group\nCaf\u00e9.JPG,pier\nb.jpg,pier\n".encode())
    found = layout("cafe\u0301.jpg", "B.jpg", scenes=scenes)
    assert {photo.group for photo in found.photos} == {"dam/pier"}
    assert not found.set_aside


@pytest.mark.parametrize(
    "content",
    [
        b"name,scene\na.jpg,1\n",
        b"file,group\na.jpg,1\na.jpg,2\n",
        b"file,group\na.jpg,1\nA.JPG,2\n",
        b"file,group\na.jpg,1\nb.jpg\n",
        b"file,group\na.jpg,\nb.jpg,\n",
        b"\xff\xfe\x00",
    ],
)
def test_groups_that_cannot_be_read_are_an_error(content):
    """Guessing at groups would leak photos across the split."""
    with pytest.raises(InputError, match=r"groups\.csv"):
        read_scenes("dam", content)
