"""Every file below what was given is inspected or set aside with a reason."""

import io
import os
import shutil
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image

import surveys
from damcrack.data.photo import encode_jpeg
from damcrack.files import OUTPUT_MARKER, InputError, read_csv
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.places import Unusable
from damcrack.inspection.sources import Photo, list_photos, opened, summarised, title_of
from damcrack.inspection.survey import Memory
from damcrack.inspection.tables import BOX_COLUMNS
from damcrack.run import Run
from damcrack.storage.source import open_source
from walls import rgb

SIZE = (340, 450)


def picture(seed=0, kind="JPEG", size=(48, 64)):
    """Encoded noise, other bytes for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def fill(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def listing(*given):
    """Names to be looked at, and reasons of the others by name."""
    listed, set_aside = list_photos([str(place) for place in given], open_source)
    reasons = {one.name: one.reason for one in set_aside}
    assert len(reasons) == len(set_aside)
    return [one.name for one in listed], reasons


def test_every_file_is_listed_once(tmp_path):
    """Photos and videos in any spelling, other images, other files, hidden ones and folders that are not entered."""
    suffixes = ("jpg", "JPEG", "jpe", "jfif", "png", "Tiff", "webp", "bmp", "jp2", "HEIC", "avif")
    photos = [f"photo.{suffix}" for suffix in suffixes]
    others = ["a.txt", "a.xmp", "Thumbs.db", ".DS_Store", "._a.jpg", "noext", "b.json", "a.THM", "clip.LRF"]
    asked = ["DSC1.ARW", "k.dng", "IMG.CR3"]
    fill(tmp_path, dict.fromkeys([*photos, *others, *asked, "x.gif", "dive.MP4"], b""))
    fill(tmp_path, {"masks/a.png": b"", "Masks-2/a.png": b"", ".thumbnails/a.jpg": b""})
    beside = {"mosaic.tif.ovr": picture(kind="TIFF"), "mosaic.tif.MSK": picture(kind="TIFF")}
    fill(tmp_path, beside)
    os.mkfifo(tmp_path / "pipe.jpg")
    names, reasons = listing(tmp_path)
    assert sorted(names) == sorted([*photos, "x.gif", "dive.MP4"])
    assert reasons.keys() == {*others, *asked, *beside, "masks/", "Masks-2/", ".thumbnails/", "pipe.jpg"}
    assert all("raw file" in reasons[name] for name in asked)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("IMG_1", picture()),
        ("IMG_1.jpg_original", picture()),
        ("IMG_1.dat", picture(kind="PNG")),
        ("IMG_1.insp", picture()),
        ("IMG_1.tmp", picture(kind="TIFF")),
        ("IMG_1.x", picture(kind="WEBP")),
        ("IMG_1.y", picture(kind="BMP")),
        ("IMG_1.z", picture(kind="JPEG2000")),
        ("IMG_1.CR2", picture()),
    ],
)
def test_the_content_says_what_a_file_is(tmp_path, name, content):
    """No photo is lost for its suffix."""
    fill(tmp_path, {name: content, "BMW.txt": b"BM is no bitmap, and this is text."})
    names, reasons = listing(tmp_path)
    assert names == [name]
    assert list(reasons) == ["BMW.txt"]


def test_links_are_followed_and_loops_end(tmp_path):
    """Links to files and folders elsewhere; a folder or file reached twice is listed once; broken links are told."""
    root = fill(tmp_path / "in", {"own.jpg": picture(1), "day1/a.jpg": picture(2)})
    nas = fill(tmp_path / "nas", {"far.jpg": picture(3), "day2/b.jpg": picture(4)})
    (nas / "day2/up").symlink_to(nas)
    for name, target in {
        "linked.jpg": nas / "far.jpg",
        "day2": nas / "day2",
        "loop": root,
        "also": root / "day1",
        "twin.jpg": root / "own.jpg",
        "broken.jpg": tmp_path / "nothing",
        "self.jpg": root / "self.jpg",
    }.items():
        (root / name).symlink_to(target)
    names, reasons = listing(root)
    assert names == ["linked.jpg", "own.jpg", "day1/a.jpg", "day2/b.jpg"]
    assert {"loop/", "also/", "twin.jpg", "broken.jpg", "self.jpg"} <= reasons.keys()
    assert "own.jpg" in reasons["twin.jpg"]
    assert "does not exist" in reasons["broken.jpg"]
    assert reasons.keys() - {"loop/", "also/", "twin.jpg", "broken.jpg", "self.jpg"} == {
        "day2/up/day2/",
        "day2/up/far.jpg",
    }


def test_hard_links_are_one_file(tmp_path):
    """The plainer name stands for both."""
    fill(tmp_path, {"IMG_1.jpg": picture()})
    (tmp_path / "IMG_1 (1).jpg").hardlink_to(tmp_path / "IMG_1.jpg")
    assert listing(tmp_path)[0] == ["IMG_1.jpg"]


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root reads all")
def test_unreadable_files_and_folders_stop_nothing(tmp_path):
    """Each is set aside; the rest is listed."""
    fill(tmp_path, dict.fromkeys(("a.jpg", "b.jpg", "shut/c.jpg", "x/d.jpg"), picture()))
    (tmp_path / "b.jpg").chmod(0)
    (tmp_path / "shut").chmod(0)
    code = (
        "import sys\n"
        "from damcrack.inspection.sources import list_photos\n"
        "listed, aside = list_photos(sys.argv[1:], None)\n"
        "print([one.name for one in listed], sorted(one.name for one in aside))"
    )
    rights = "-dac_override,-dac_read_search"
    drop = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"] if os.geteuid() == 0 else []
    command = [*drop, sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (tmp_path / "shut").chmod(0o755)
    assert done.stdout == "['a.jpg', 'x/d.jpg'] ['b.jpg', 'shut/']\n"


def test_names_that_are_not_utf8_are_escaped_and_unique(tmp_path):
    """Also beside a name that is the escaped one."""
    raw = os.fsencode(tmp_path) + b"/Stra\xdfe.jpg"
    with open(raw, "wb") as file:  # noqa: PTH123  # a path of bytes
        file.write(picture(1))
    fill(tmp_path, {"Stra\\udcdfe.jpg": picture(2), "line\nbreak.jpg": picture(3), "a.jpg": picture(4)})
    names, _ = listing(tmp_path)
    assert names == ["a.jpg", "Stra\\udcdfe.jpg", "Stra\\udcdfe~2.jpg", "line\\nbreak.jpg"]
    for name in names:
        name.encode()
    by_name = {one.name: one.read() for one in list_photos([str(tmp_path)], open_source)[0]}
    assert by_name["Stra\\udcdfe.jpg"] == picture(2)
    assert by_name["Stra\\udcdfe~2.jpg"] == picture(1)


def test_several_places_are_told_apart_by_their_paths(tmp_path):
    """By no more of them than needed; the same place twice counts once."""
    fill(tmp_path, {"left/day/a.jpg": picture(1), "right/day/a.jpg": picture(2), "other/a.jpg": picture(3)})
    places = [tmp_path / "left/day", tmp_path / "right/day", tmp_path / "other", tmp_path / "other"]
    assert sorted(listing(*places)[0]) == ["left/day/a.jpg", "other/a.jpg", "right/day/a.jpg"]
    files = [tmp_path / "left/day/a.jpg", tmp_path / "right/day/a.jpg"]
    assert listing(*files)[0] == ["left/day/a.jpg", "right/day/a.jpg"]
    fill(tmp_path, {"right/day/a2.jpg": picture(4)})
    assert listing(tmp_path / "right/day/a*.jpg", tmp_path / "other")[0] == ["a.jpg", "a2.jpg", "other/a.jpg"]
    names, reasons = listing(tmp_path / "other", tmp_path / "other/a.jpg")
    assert len(names) == len(reasons) == 1


@pytest.mark.parametrize(
    "ours",
    [
        {OUTPUT_MARKER: b""},
        {"survey.json": b'{"model_sha256": "", "totals": {}}'},
        {"compare.json": b'{"pairs": 1, "not_registered": 0}'},
    ],
)
def test_our_own_outputs_are_not_entered(tmp_path, ours):
    """One line says so; another program's survey.json means nothing."""
    fill(tmp_path / "out", {**ours, "photos/x/preview.jpg": picture(1)})
    fill(
        tmp_path, {"a.jpg": picture(2), "flight/survey.json": b'{"app": "drone"}', "flight/b.jpg": picture(3)}
    )
    names, reasons = listing(tmp_path)
    assert names == ["a.jpg", "flight/b.jpg"]
    assert reasons.keys() == {"out/", "flight/survey.json"}
    with pytest.raises(InputError, match="output of damcrack"):
        listing(tmp_path / "out")


def test_the_same_bytes_are_inspected_once(tmp_path):
    """Under the plainest name, in the order of the list; frames of a video are not compared."""
    fill(tmp_path, dict.fromkeys(("IMG_1.jpg", "IMG_1 (1).jpg", "day/IMG_1.jpg"), picture()))
    fill(tmp_path, {"a.jpg": b"", "b.jpg": b""})
    listed, _ = list_photos([str(tmp_path)], open_source)
    found = list(opened(listed, 1.0))
    photos = [one.name for one in found if isinstance(one, Photo)]
    assert photos == ["IMG_1.jpg", "a.jpg", "b.jpg"]
    copies = {one.name: one.reason for one in found if isinstance(one, Unusable)}
    assert copies.keys() == {"IMG_1 (1).jpg", "day/IMG_1.jpg"}
    assert all("same content as IMG_1.jpg" in reason for reason in copies.values())


def test_files_that_vanish_or_are_too_large_are_set_aside(tmp_path):
    """The others are read."""
    fill(tmp_path, {"a.jpg": picture(1), "gone.jpg": picture(2), "large.jpg": picture(3) + bytes(10**6)})
    listed, _ = list_photos([str(tmp_path)], open_source)
    (tmp_path / "gone.jpg").unlink()
    found = {one.name: one for one in opened(listed, 1.0, max_bytes=10**6)}
    assert [type(found[name]) for name in ("a.jpg", "gone.jpg", "large.jpg")] == [Photo, Unusable, Unusable]


def test_further_pages_of_a_tiff_are_told(tmp_path):
    """The first is inspected; a small page beside it is its preview."""
    first, second = (Image.fromarray(np.full((40, 60, 3), grey, np.uint8)) for grey in (80, 90))
    first.save(tmp_path / "two.tif", save_all=True, append_images=[second])
    first.save(
        tmp_path / "one.tif", save_all=True, append_images=[second.resize((20, 14))], compression="tiff_lzw"
    )
    listed, _ = list_photos([str(tmp_path)], open_source)
    assert [one.name for one in opened(listed, 1.0)] == ["one.tif", "two.tif", "two.tif (photos 2 to 2)"]


@pytest.mark.parametrize("kind", ["MPO", "HEIF"])
def test_further_photos_of_a_burst_are_told(tmp_path, kind):
    """The first is inspected; a small picture beside it is its thumbnail."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    photos = [Image.fromarray(np.full((80, 120, 3), grey, np.uint8)) for grey in (80, 90, 100)]
    photos[0].save(tmp_path / "burst.jpg", kind, save_all=True, append_images=photos[1:])
    photos[0].save(tmp_path / "one.jpg", kind, save_all=True, append_images=[photos[1].resize((60, 40))])
    listed, _ = list_photos([str(tmp_path)], open_source)
    names = [one.name for one in opened(listed, 1.0)]
    assert names == ["burst.jpg", "burst.jpg (photos 2 to 3)", "one.jpg"]


def test_other_files_take_one_line_a_suffix():
    """Photos that are set aside keep theirs."""
    others = [Unusable(f"{number}.xmp", "no photo", no_photo=True) for number in range(500)]
    aside = [Unusable("a.jpg", "damaged"), *others, Unusable("masks/", "masks", no_photo=True)]
    shown = summarised(aside)
    assert [one.name for one in shown][:2] == ["a.jpg", "masks/"]
    assert len(shown) == 3
    assert "499" in shown[2].name


def test_a_survey_is_called_by_its_folder(tmp_path, monkeypatch):
    """Also where it is given as `.` or with a slash."""
    (tmp_path / "north wall").mkdir()
    monkeypatch.chdir(tmp_path / "north wall")
    for given in (".", "./", "../north wall/", "../north wall/."):
        assert title_of([given]) == "north wall"
    assert title_of(["s3://dam/2026/spring"]) == "spring"
    assert title_of(["a", "b"]) == "2 places"


def write_video(path, num_frames, rate=10):
    """Grey frames, brighter and brighter."""
    surveys.write_video(path, [np.full((48, 64), 3 * number, np.uint8) for number in range(num_frames)], rate)


def retime(path, durations_s):
    """Give the frames of an MP4 other durations: a longer table in its stts box, and the sum where it is written."""
    content = bytearray(path.read_bytes())
    at = {kind: content.index(kind) for kind in (b"mvhd", b"tkhd", b"elst", b"mdhd", b"stts")}
    movie, media = (struct.unpack_from(">I", content, at[kind] + 16)[0] for kind in (b"mvhd", b"mdhd"))
    total_s = sum(durations_s)
    for kind, offset, scale in (
        (b"mvhd", 20, movie),
        (b"tkhd", 24, movie),
        (b"elst", 12, movie),
        (b"mdhd", 20, media),
    ):
        struct.pack_into(">I", content, at[kind] + offset, round(total_s * scale))
    table = struct.pack(">II", 0, len(durations_s))
    table += b"".join(struct.pack(">II", 1, round(one * media)) for one in durations_s)
    (old,) = struct.unpack_from(">I", content, at[b"stts"] - 4)
    content[at[b"stts"] + 4 : at[b"stts"] - 4 + old] = table
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        place = content.index(kind) - 4
        (size,) = struct.unpack_from(">I", content, place)
        struct.pack_into(">I", content, place, size + 8 + len(table) - old)
    path.write_bytes(content)


def frames_of(path, every_s):
    listed, _ = list_photos([str(path)], open_source)
    found = list(opened(listed, every_s))
    times = [one.name.split("@")[1].removesuffix("s.jpg") for one in found if isinstance(one, Photo)]
    return times, [one for one in found if isinstance(one, Unusable)], found


def test_frames_are_taken_by_their_own_times(tmp_path):
    """Many in the first second, then one a second: one frame a second comes out, called by its time."""
    path = tmp_path / "vfr.mp4"
    write_video(path, 30)
    retime(path, [0.05] * 20 + [1.0] * 10)
    times, problems, found = frames_of(path, 1.0)
    assert times == [f"{second:07.1f}" for second in range(11)]
    assert problems == []
    greys = [np.asarray(Image.open(io.BytesIO(one.encoded))).mean() for one in found]
    assert greys == pytest.approx([0, *(3 * number for number in range(20, 30))], abs=6)


@pytest.mark.parametrize("every_s", [0.04, 0.1, 0.25, 0.7])
def test_frames_have_names_of_their_own(tmp_path, every_s):
    """However near they are."""
    write_video(tmp_path / "a.mp4", 40, rate=25)
    times, problems, _ = frames_of(tmp_path / "a.mp4", every_s)
    assert len(set(times)) == len(times) == int(1.56 / every_s + 1e-6) + 1
    assert problems == []


def test_a_video_cut_short_is_set_aside(tmp_path):
    """Without its index; the photos beside it are read."""
    write_video(tmp_path / "dive.mp4", 30)
    content = (tmp_path / "dive.mp4").read_bytes()
    fill(tmp_path, {"dive.mp4": content[: len(content) // 2], "good.jpg": picture()})
    photo, problem = opened(list_photos([str(tmp_path)], open_source)[0], 1.0)
    assert (photo.name, problem.name) == ("good.jpg", "dive.mp4")
    assert "cut short" in problem.reason


def test_a_video_is_known_by_its_content(tmp_path):
    """Called .jpg, or nothing."""
    write_video(tmp_path / "a.mp4", 10)
    (tmp_path / "a.mp4").rename(tmp_path / "a.jpg")
    assert frames_of(tmp_path / "a.jpg", 1.0)[0] == ["00000.0"]


def test_the_same_video_is_inspected_once(tmp_path):
    """Its frames would count twice."""
    write_video(tmp_path / "a.mp4", 10)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "a (1).mp4")
    times, problems, _ = frames_of(tmp_path, 1.0)
    assert times == ["00000.0"]
    assert [one.name for one in problems] == ["a (1).mp4"]


@cache
def wall(cracked=True, size=SIZE, seed=1):
    cracks = [(size[1] / 2, size[0] / 2, 20, 240, 6.0)] if cracked else []
    return rgb(surveys.cracked(size, *cracks, seed=seed))


def inspected(places, model, out):
    inspect_photos([str(place) for place in places], model, out, InspectConfig(), open_source, Run())
    rows = {row["photo"]: row for row in read_csv(out / "photos.csv")}
    return rows, {row["file"]: row["reason"] for row in read_csv(out / "set-aside.csv")}


def test_a_survey_reports_all_of_its_files(tmp_path, model):
    """A damaged photo, a name that is no UTF-8, a text, an own output from before: each is in one of the two tables."""
    root = fill(
        tmp_path / "in", {"a.jpg": encode_jpeg(wall()), "notes.txt": b"x", "cut.jpg": picture()[:900]}
    )
    with open(os.fsencode(root) + b"/caf\xe9.jpg", "wb") as file:  # noqa: PTH123  # a path of bytes
        file.write(encode_jpeg(wall(seed=2)))
    for _ in range(2):
        rows, reasons = inspected([root], model, root / "out")
        assert {name: row["num_cracks"] for name, row in rows.items()} == {
            "a.jpg": "1",
            "caf\\udce9.jpg": "1",
        }
        assert reasons.keys() - {"out/"} == {"cut.jpg", "notes.txt"}
    assert "out/" in reasons
    for path in (root / "out").rglob("*.json"):
        path.read_text(encoding="utf-8", errors="strict")


@pytest.mark.slow
def test_photos_wider_than_a_jpeg_can_be_are_inspected(tmp_path, model):
    """A panorama of more than 65,500 px; what is kept to be looked at is scaled down."""
    pano = np.tile(wall(cracked=False, size=(130, 1000)), (1, 66, 1))
    cv2.line(pano, (300, 20), (500, 110), (30, 30, 30), 6, cv2.LINE_AA)
    cv2.imwrite(str(tmp_path / "pano.png"), pano)
    rows, reasons = inspected([tmp_path / "pano.png"], model, tmp_path / "out")
    assert (rows["pano.png"]["num_cracks"], reasons) == ("1", {})
    assert float(rows["pano.png"]["length_px"]) == pytest.approx(219, abs=12)


@pytest.mark.parametrize("collar", [0, 255])
@pytest.mark.parametrize("kind", ["alpha", "nodata", "not declared"])
def test_the_edge_of_what_a_photo_shows_is_no_crack(tmp_path, model, kind, collar):
    """A black or white collar, declared or not, beside a clean wall and across a cracked one; it has no blocks."""
    tifffile = pytest.importorskip("tifffile")
    for name, cracked in (("clean.tif", False), ("cracked.tif", True)):
        pixels = wall(cracked).copy()
        outside = np.tri(*SIZE, -60, dtype=bool)
        pixels[outside] = collar
        if kind == "alpha":
            pixels = np.dstack([pixels, np.where(outside, 0, 255).astype(np.uint8)])
            options = {"extrasamples": ["unassalpha"]}
        elif kind == "not declared":
            options = {}
        else:
            options = {"extratags": [(42113, "s", 0, str(collar), True)]}
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", **options)
    rows, _ = inspected([tmp_path / "clean.tif", tmp_path / "cracked.tif"], model, tmp_path / "out")
    assert (rows["clean.tif"]["verdict"], rows["clean.tif"]["num_cracks"]) == ("no crack", "0")
    assert rows["cracked.tif"]["num_cracks"] == "1"
    assert float(rows["cracked.tif"]["length_px"]) <= 252
    blocks = [[int(row[name]) for name in BOX_COLUMNS] for row in read_csv(tmp_path / "out/blocks.csv")]
    shown = [not outside[y0:y1, x0:x1].all() for x0, y0, x1, y1 in blocks]
    assert all(shown) and 0 < len(shown) < 2 * 20


def test_a_photo_of_nothing_is_set_aside(tmp_path, model):
    """All transparent: no verdict on what nobody sees."""
    Image.new("RGBA", SIZE, (10, 20, 30, 0)).save(tmp_path / "empty.png")
    Image.fromarray(wall()).save(tmp_path / "a.png")
    rows, reasons = inspected([tmp_path], model, tmp_path / "out")
    assert (list(rows), list(reasons)) == (["a.png"], ["empty.png"])


def test_large_photos_are_not_in_memory_together():
    """One that needs more than all of it is alone; the others share it, and nobody waits for ever."""
    memory, together, most = Memory(100), [], []

    def work(need):
        memory.take(need)
        together.append(need)
        most.append((sum(together), len(together)))
        time.sleep(0.002)
        together.remove(need)
        memory.give_back(need)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 60, 500, 10, 80, 20, 300, 50] * 5))
    assert all(total <= 100 or count == 1 for total, count in most)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png", ".heic"])
def test_gigabytes_of_zeros_are_not_read(tmp_path, suffix):
    """A file that a broken copy left behind: as large as it should be, and empty."""
    (tmp_path / "a.jpg").write_bytes(picture())
    with (tmp_path / f"b{suffix}").open("wb") as file:
        file.truncate(3 * 10**9)
    listed, set_aside = list_photos([str(tmp_path)], open_source)
    assert [one.name for one in listed] == ["a.jpg"]
    assert [one.name for one in set_aside] == [f"b{suffix}"]
