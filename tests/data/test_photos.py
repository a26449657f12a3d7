import errno
import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from damcrack.data.config import PhotosConfig
from damcrack.data.imageset import ImageSet
from damcrack.data.photo import decode_mask, decode_photo
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.files import OUTPUT_MARKER, InputError, read_csv, sha256_bytes
from damcrack.run import Run
from damcrack.storage.source import open_source
from photo_folders import encoded, fill, reasons

CONFIG = PhotosConfig(
    sources={"sample": "sample"}, sample_photos=2, sample_size_hw=(256, 320), min_side_px=32, max_megapixels=1
)


def mask_png(size_hw: tuple[int, int] = (40, 60), ground: int = 0, kind: str = "PNG") -> bytes:
    """A mask with one white line on black, or the other way round."""
    grey = np.full(size_hw, ground, np.uint8)
    grey[5] = 255 - ground
    file = io.BytesIO()
    Image.fromarray(grey).save(file, kind)
    return file.getvalue()


def take(tmp_path: Path, files: dict[str, bytes], **changes) -> tuple[Path, dict[str, object]]:
    """Write files, snapshot them, run the stage."""
    config = replace(CONFIG, sources={"dam": fill(tmp_path / "in", files)}, **changes)
    snapshot(config.sources, tmp_path / "s.csv", open_source, Run())
    return tmp_path / "out", photos(tmp_path / "s.csv", tmp_path / "out", config, open_source, Run())


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_photos_and_masks_arrive_as_the_contract_says(tmp_path):
    """Original bytes, masks as 0/255 PNGs, one sorted row per photo with its upright size and its scene."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(1, exif=exif)
    files = {"images/b.jpg": turned, "masks/b.png": mask_png((60, 40)), "wall/a.png": encoded(2, kind="PNG")}
    files["groups.csv"] = b"file,group\nwall/a.png,pier\n"
    out, summary = take(tmp_path, files)
    rows = read_csv(out / "photos.csv")
    assert rows[0] == {
        "photo": "dam/images/b.jpg",
        "source": "dam",
        "group": "dam/images/b.jpg",
        "file": "photos/dam/images/b.jpg",
        "mask": "masks/dam/images/b.png",
        "height_px": "60",
        "width_px": "40",
        "sha256": sha256_bytes(turned),
    }
    assert (rows[1]["mask"], rows[1]["group"]) == ("", "dam/pier")
    assert (out / rows[0]["file"]).read_bytes() == turned
    stored = decode_mask((out / rows[0]["mask"]).read_bytes(), 10**6)
    assert stored[5].min() == 255
    assert (summary["photos"], summary["with mask"], summary["unlabelled"]) == (2, 1, 1)
    assert not (out / "ready").exists()


def test_two_tables_of_scenes_are_refused(tmp_path):
    """Of groups.csv and Groups.csv neither wins in silence."""
    table = b"file,group\na.png,pier\n"
    with pytest.raises(InputError, match=r"Groups\.csv and groups\.csv"):
        take(tmp_path, {"a.png": encoded(2, kind="PNG"), "groups.csv": table, "Groups.csv": table})


BAD = {
    "cut.jpg": (encoded(1)[:900], "truncated or corrupt"),
    "cut.png": (encoded(1, kind="PNG")[:900], "truncated or corrupt"),
    "empty.jpg": (b"", "0 bytes"),
    "empty2.jpg": (b"", "0 bytes"),
    "phone.heic": (b"\x00\x00\x00\x24ftypheic", "expected a JPEG"),
    "note.jpg": (b"buy cement\n", "expected a JPEG"),
    "small.jpg": (encoded(2, (31, 99)), "99 x 31 pixels, expected at least 32"),
    "huge.png": (encoded(3, (1001, 1000), "PNG"), "at most 1 megapixels"),
}


def test_bad_photos_are_set_aside_and_the_rest_goes_on(tmp_path):
    """Each bad file has its own reason; nothing of it lands among the photos."""
    bad = {name: content for name, (content, _) in BAD.items()}
    out, summary = take(tmp_path, bad | {"a.jpg": encoded()})
    found = reasons(out)
    assert found.keys() == BAD.keys()
    assert all(says in found[name] for name, (_, says) in BAD.items())
    assert set(everything(out)) == {OUTPUT_MARKER, "photos.csv", "quarantine.csv", "photos/dam/a.jpg"}
    assert str(summary["set aside"]).startswith(f"{len(BAD)}, reasons in ")


def test_a_name_in_the_quarantine_is_no_formula(tmp_path):
    """A spreadsheet shows it as text."""
    names = ["+1+1.jpg", "-2+3.jpg", "=HYPERLINK(1).jpg", "@SUM(1).jpg"]
    out, _ = take(tmp_path, dict.fromkeys(names, b"note") | {"a.jpg": encoded()})
    assert list(reasons(out)) == ["'" + name for name in names]


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (mask_png((60, 40)), "40 x 60 pixels, expected 60 x 40"),
        (mask_png()[:60], "its mask: truncated"),
        (b"", "its mask: the file is empty"),
        (mask_png(ground=255), "marks 98% of the photo"),
    ],
)
def test_a_photo_with_a_bad_mask_is_set_aside(tmp_path, mask, says):
    """It is not taken as unlabelled: its owner meant it to have labels."""
    out, _ = take(tmp_path, {"a.jpg": encoded(), "masks/a.png": mask, "b.jpg": encoded(1)})
    assert says in reasons(out)["a.jpg"]
    assert [row["photo"] for row in read_csv(out / "photos.csv")] == ["dam/b.jpg"]


@pytest.mark.parametrize(
    "name", ["a.png", "a_mask.png", "labels/a.png", "ground truth/a.jpg", "Positive/a_mask.png"]
)
def test_a_mask_among_the_photos_is_set_aside(tmp_path, name):
    """A network would learn from its black and white."""
    content = mask_png(kind="JPEG" if name.endswith("jpg") else "PNG")
    out, _ = take(tmp_path, {"a.jpg": encoded(), name: content})
    assert [row["photo"] for row in read_csv(out / "photos.csv")] == ["dam/a.jpg"]
    assert list(reasons(out)) == [name]
    assert not (out / "ready").exists()


def test_of_identical_photos_the_labelled_one_is_kept(tmp_path):
    """Copies would lie on both sides of a split; the reason names the one that stays."""
    files = {"a.jpg": encoded(), "b.jpg": encoded(), "c.jpg": encoded(), "masks/b.png": mask_png()}
    out, _ = take(tmp_path, files)
    assert reasons(out) == dict.fromkeys(("a.jpg", "c.jpg"), "the same bytes as dam/b.jpg")


def test_only_bad_photos_is_an_error_that_shows_some(tmp_path):
    """The user sees why, and no output appears."""
    with pytest.raises(InputError, match=r"no usable photo(.|\n)*dam/note.jpg: the content starts"):
        take(tmp_path, {"note.jpg": b"text"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "s.csv"]


def test_output_is_a_function_of_the_input(tmp_path):
    """Two runs in different places write the same bytes everywhere."""
    files = {f"{number}.jpg": encoded(number) for number in range(9)}
    files |= {"masks/3.png": mask_png(), "x.jpg": b"?"}
    files |= {f"Positive/{number}.png": encoded(20 + number, kind="PNG") for number in range(5)}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = (everything(take(tmp_path / place, files)[0]) for place in ("one", "two"))
    assert one == two
    assert not any(str(tmp_path).encode() in content for content in one.values())


def test_names_from_a_snapshot_never_leave_the_output(tmp_path):
    """A name with `..` or a control character is set aside unread, wherever it came from."""
    files = {"../up.jpg": encoded(1), "a\\b.jpg": encoded(2), "a\rb.jpg": encoded(3), "good.jpg": encoded(4)}

    class Bucket:
        def names(self):
            return sorted(files)

        def links_out(self):
            return []

        def read(self, name):
            return files[name]

    config = replace(CONFIG, sources={"dam": "s3://dam"})
    snapshot(config.sources, tmp_path / "s.csv", lambda _: Bucket(), Run())
    photos(tmp_path / "s.csv", tmp_path / "out", config, lambda _: Bucket(), Run())
    assert set(reasons(tmp_path / "out")) == {"../up.jpg", "a\\b.jpg", "a\\rb.jpg"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "s.csv"]
    assert set(everything(tmp_path / "out/photos")) == {"dam/good.jpg"}


def test_ready_tiles_become_an_image_set(tmp_path):
    """RGB JPEGs keep their bytes, others become RGB JPEGs; bad ones and contradictions are set aside."""
    grey = io.BytesIO()
    Image.new("L", (60, 40), 99).save(grey, "JPEG")
    plain, both = encoded(1), encoded(2)
    files = {"Positive/00001.jpg": plain, "Negative/00077.jpg": grey.getvalue(), "Positive/x.jpg": b"?"}
    files |= {"Positive/9.jpg": both, "Negative/9.jpg": both}
    out, summary = take(tmp_path, files)
    ready = ImageSet.open(out / "ready")
    assert [(row["photo"], row["label"], row["group"], row["split"]) for row in ready.rows] == [
        ("dam/Negative/00077.jpg", "0", "dam/Negative-1", ""),
        ("dam/Positive/00001.jpg", "1", "dam/Positive-0", ""),
    ]
    images = dict(ready.encoded())
    assert images[1] == plain
    assert Image.open(io.BytesIO(images[0])).mode == "RGB"
    assert np.ptp(decode_photo(images[0], 10**6)) <= 1
    assert ready.image_hw == (40, 60)
    assert reasons(out).keys() == {"Positive/x.jpg", "Positive/9.jpg", "Negative/9.jpg"}
    assert (summary["photos"], summary["ready tiles"]) == (0, 2)
    assert read_csv(out / "photos.csv") == []


def test_the_sample_is_taken_in_with_masks(tmp_path):
    """The built-in sample needs neither snapshot nor source, and comes out the same twice."""
    for place in ("one", "two"):
        photos(tmp_path / "none.csv", tmp_path / place, CONFIG, open_source, Run())
    rows = read_csv(tmp_path / "one/photos.csv")
    assert [row["photo"] for row in rows] == ["sample/00000.jpg", "sample/00001.jpg"]
    for row in rows:
        photo = decode_photo((tmp_path / "one" / row["file"]).read_bytes(), 10**6)
        mask = decode_mask((tmp_path / "one" / row["mask"]).read_bytes(), 10**6)
        assert photo.shape == (*mask.shape, 3) == (256, 320, 3)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_a_full_disk_leaves_no_half_output(tmp_path, monkeypatch):
    """ENOSPC in the middle comes out as it is; the earlier output stays whole, nothing else is left."""
    files = {f"{number}.jpg": encoded(number) for number in range(12)}
    out, _ = take(tmp_path, files)
    before = everything(out)
    write_bytes, written = Path.write_bytes, []

    def full(path, content):
        if "photos/dam" in str(path):
            written.append(path)
            if len(written) > 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    config = replace(CONFIG, sources={"dam": str(tmp_path / "in")})
    with pytest.raises(OSError, match="No space left"):
        photos(tmp_path / "s.csv", out, config, open_source, Run())
    assert everything(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "s.csv"]


def test_an_output_below_a_file_is_a_clear_error(tmp_path):
    """`--out` cannot lie inside a file; nothing is written."""
    config = replace(CONFIG, sources={"dam": fill(tmp_path / "in", {"a.jpg": encoded()})})
    snapshot(config.sources, tmp_path / "s.csv", open_source, Run())
    with pytest.raises(InputError, match="cannot write"):
        photos(tmp_path / "s.csv", tmp_path / "s.csv/out", config, open_source, Run())
