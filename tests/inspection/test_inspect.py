import csv
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.findings import Findings, folder_name
from damcrack.cracks.photo import Rules
from damcrack.cracks.pixel_scores import count_pixels
from damcrack.data.tiling import tile_boxes_xyxy
from damcrack.files import InputError
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.scale import Scale
from damcrack.inspection.sources import Photo
from damcrack.inspection.survey import Survey
from damcrack.run import Run
from damcrack.storage.source import open_source
from walls import concrete, coverage, line, photo, rgb, write_darkness_detector

SIZE = (340, 450)
CONFIG = InspectConfig()


class Told(Run):
    """Remembers what it was told."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def cracked(seed=0, length=260, width=6.0, size=SIZE):
    cover = coverage(size, line(np.array([size[1] / 2, size[0] / 2]), 20, length), width)
    return photo(concrete(size, seed=seed, pores=False), cover)


def sound(seed=0, size=SIZE):
    return photo(concrete(size, seed=seed, pores=False))


def save(path, grey, **exif):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(rgb(grey))
    tags = image.getexif()
    for part, values in exif.items():
        ifd = tags.get_ifd({"camera": 0x8769, "gps": 0x8825}[part])
        ifd.update(values)
    image.save(path, quality=95, exif=tags)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_darkness_detector(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def world(tmp_path_factory, model):
    """A survey of four photos, one of them broken and one without a crack."""
    root = tmp_path_factory.mktemp("survey")
    save(root / "photos/a.jpg", cracked(1))
    save(root / "photos/sub/b.jpg", cracked(2, width=10))
    save(root / "photos/sound.jpg", sound(3))
    (root / "photos/broken.jpg").write_bytes((root / "photos/a.jpg").read_bytes()[:2000])
    (root / "photos/masks").mkdir()
    save(root / "photos/masks/a.png", sound(5))
    run = Told()
    summary = inspect_photos(
        [str(root / "photos")], model, root / "out", InspectConfig(gsd_mm_per_px=0.5), open_source, run
    )
    return root, run, summary


def rows_of(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_every_photo_has_a_verdict_or_a_reason(world):
    """Good ones are judged, the broken one is set aside and told; masks are no photos."""
    root, run, _ = world
    verdicts = {row["photo"]: row["verdict"] for row in rows_of(root / "out/photos.csv")}
    assert verdicts == {"a.jpg": "crack", "sub/b.jpg": "crack", "sound.jpg": "no crack"}
    reasons = {row["file"]: row["reason"] for row in rows_of(root / "out/set-aside.csv")}
    assert reasons.keys() == {"broken.jpg", "masks/"}
    assert "truncated" in reasons["broken.jpg"]
    assert any("broken.jpg" in told for told in run.lines)


def test_cracks_are_measured_in_pixels_and_millimetres(world):
    """Length and width are those that were drawn; millimetres follow from the ground sampling distance."""
    rows = {row["photo"]: row for row in rows_of(world[0] / "out/cracks.csv")}
    assert float(rows["a.jpg"]["length_px"]) == pytest.approx(260, abs=10)
    assert float(rows["a.jpg"]["width_px"]) == pytest.approx(6, abs=0.5)
    assert float(rows["sub/b.jpg"]["width_px"]) == pytest.approx(10, abs=0.5)
    for row in rows.values():
        assert float(row["length_mm"]) == pytest.approx(float(row["length_px"]) / 2, abs=0.01)
        assert float(row["width_mm"]) == pytest.approx(float(row["width_px"]) / 2, abs=0.01)


def test_blocks_cover_every_pixel_of_every_photo(world):
    """Each photo has its whole grid in blocks.csv."""
    for name in ("a.jpg", "sound.jpg"):
        covered = np.zeros(SIZE, np.bool_)
        for row in rows_of(world[0] / "out/blocks.csv"):
            if row["photo"] == name:
                covered[int(row["y0_px"]) : int(row["y1_px"]), int(row["x0_px"]) : int(row["x1_px"])] = True
        assert covered.all()


def test_the_mask_lies_on_the_crack(world):
    """It is the crack that was drawn, and nothing else."""
    (folder,) = (world[0] / "out/photos").glob("a-*")
    mask = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE) > 0
    true = coverage(SIZE, line(np.array([SIZE[1] / 2, SIZE[0] / 2]), 20, 260), 6.0) > 0.5
    shares = count_pixels(mask.astype(np.uint8), true.astype(np.uint8)).shares()
    assert shares["recall"] > 0.99
    assert shares["precision"] > 0.99
    assert shares["iou"] > 0.7  # at half size the network sees a crack by a pixel or two wider


def test_geojson_and_coco_hold_every_crack(world):
    """Valid JSON with as many features and annotations as there are cracks; boxes and areas agree."""
    out = world[0] / "out"
    cracks = rows_of(out / "cracks.csv")
    features = json.loads((out / "cracks.geojson").read_text())["features"]
    assert [feature["id"] for feature in features] == [row["crack"] for row in cracks]
    assert {feature["geometry"] for feature in features} == {None}
    coco = json.loads((out / "cracks.coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    assert [names[one["image_id"]] for one in coco["annotations"]] == [row["photo"] for row in cracks]
    for one, row in zip(coco["annotations"], cracks, strict=True):
        assert one["bbox"][2] == int(row["x1_px"]) - int(row["x0_px"])
        polygons = [np.array(p).reshape(-1, 1, 2).astype(np.int32) for p in one["segmentation"]]
        assert sum(cv2.contourArea(p) for p in polygons) == one["area"]


def test_a_second_call_looks_at_nothing_again(world, model):
    """Findings keep their time stamps; the tables are the same bytes."""
    root, _, _ = world
    before = {path: path.stat().st_mtime_ns for path in (root / "out/photos").rglob("findings.json")}
    tables = {path.name: path.read_bytes() for path in (root / "out").glob("*.csv")}
    page = (root / "out/report.html").read_bytes()
    inspect_photos(
        [str(root / "photos")],
        model,
        root / "out",
        InspectConfig(gsd_mm_per_px=0.5),
        open_source,
        Run(),
    )
    assert {path: path.stat().st_mtime_ns for path in (root / "out/photos").rglob("findings.json")} == before
    assert {path.name: path.read_bytes() for path in (root / "out").glob("*.csv")} == tables
    assert (root / "out/report.html").read_bytes() == page


def test_an_interrupted_survey_goes_on(tmp_path, model, monkeypatch):
    """What was done before the interruption is kept, the rest is done by the next call."""
    from damcrack.inspection import survey

    for number in range(6):
        save(tmp_path / f"in/{number}.jpg", cracked(number))
    look, calls = survey.look_at, []

    def interrupted(rgb, *rest):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return look(rgb, *rest)

    monkeypatch.setattr(survey, "look_at", interrupted)
    with pytest.raises(KeyboardInterrupt):
        inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())
    done = len(list((tmp_path / "out/photos").glob("*/findings.json")))
    assert 1 <= done < 6
    assert not (tmp_path / "out/report.html").exists()
    before = len(calls)
    inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())
    assert len(calls) - before == 6 - done
    assert (tmp_path / "out/report.html").exists()


def test_other_values_and_new_content_are_looked_at_again(tmp_path, model):
    """A changed photo, a changed value: the old findings do not count; photos that left are forgotten."""
    save(tmp_path / "in/a.jpg", cracked(1))
    save(tmp_path / "in/b.jpg", sound(2))
    run = [[str(tmp_path / "in")], model, tmp_path / "out"]
    inspect_photos(*run, CONFIG, open_source, Run())
    save(tmp_path / "in/a.jpg", sound(1))
    (tmp_path / "in/b.jpg").unlink()
    inspect_photos(*run, CONFIG, open_source, Run())
    (row,) = rows_of(tmp_path / "out/photos.csv")
    assert (row["photo"], row["verdict"]) == ("a.jpg", "no crack")
    assert len(list((tmp_path / "out/photos").iterdir())) == 1
    inspect_photos(*run, InspectConfig(overlap=0.5), open_source, Run())
    assert int(rows_of(tmp_path / "out/photos.csv")[0]["num_blocks"]) > int(row["num_blocks"])


def test_photos_that_other_weights_judged_are_judged_again(tmp_path, model, monkeypatch):
    """As with another model."""
    save(tmp_path / "in/a.jpg", sound(1))
    keys = []
    for weights in ((1.0,), (2.0,), (2.0,)):
        monkeypatch.setattr("damcrack.inspection.survey.WEIGHTS", weights)
        inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())
        (folder,) = (tmp_path / "out/photos").iterdir()
        keys.append(Findings.read(folder).key)
    assert keys[0] != keys[1] == keys[2]


def test_small_photos_are_set_aside_and_the_rest_goes_on(tmp_path, model):
    """Smaller than a block, empty, and no image at all."""
    save(tmp_path / "in/small.jpg", sound(size=(90, 300)))
    (tmp_path / "in/empty.png").write_bytes(b"")
    (tmp_path / "in/text.jpg").write_text("no image")
    save(tmp_path / "in/good.jpg", sound(1))
    inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())
    reasons = {row["file"]: row["reason"] for row in rows_of(tmp_path / "out/set-aside.csv")}
    assert reasons.keys() == {"small.jpg", "empty.png", "text.jpg"}
    assert "smaller than one tile" in reasons["small.jpg"]


def test_only_unusable_photos_is_an_error(tmp_path, model):
    """With the first reason; other files are no photos."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/empty.png").write_bytes(b"")
    (tmp_path / "in/a.txt").write_bytes(b"notes")
    with pytest.raises(InputError, match=r"none of 1 photos.*empty\.png"):
        inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())


@pytest.mark.parametrize(
    ("given", "said"),
    [("nothing", "no such file, folder or pattern"), ("folder", "no photo in"), ("*.jpg", "no such file")],
)
def test_places_without_photos_are_refused(tmp_path, model, given, said):
    """Missing, empty, and a pattern that nothing fits."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=said):
        inspect_photos([str(tmp_path / given)], model, tmp_path / "out", CONFIG, open_source, Run())
    assert not (tmp_path / "out").exists()


def test_files_and_patterns_are_taken(tmp_path, model):
    """A file by its name, a pattern's files by theirs, folders under their own name when there are several."""
    save(tmp_path / "in/a1.jpg", sound(1))
    save(tmp_path / "in/a2.jpg", sound(2))
    save(tmp_path / "other/a1.jpg", sound(3))
    places = [str(tmp_path / "in/a*.jpg"), str(tmp_path / "other")]
    inspect_photos(places, model, tmp_path / "out", CONFIG, open_source, Run())
    assert [row["photo"] for row in rows_of(tmp_path / "out/photos.csv")] == [
        "a1.jpg",
        "a2.jpg",
        "other/a1.jpg",
    ]


def write_video(path, frames, rate=10):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, SIZE[::-1])
    for frame in frames:
        writer.write(rgb(frame))
    writer.release()


def test_frames_of_a_video_are_photos(tmp_path, model):
    """One a second, named by their time; the crack comes after two seconds."""
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in/dive.mp4", [sound(1)] * 20 + [cracked(1, width=12)] * 15)
    inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())
    verdicts = {row["photo"]: row["verdict"] for row in rows_of(tmp_path / "out/photos.csv")}
    assert list(verdicts.values()) == ["no crack", "no crack", "crack", "crack"]
    assert list(verdicts)[2] == "dive.mp4@00002.0s.jpg"


def test_a_video_cut_short_gives_what_it_has(tmp_path, model):
    """A video without its index is set aside; the photos beside it are looked at."""
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in/dive.mp4", [sound(1)] * 30)
    (tmp_path / "in/dive.mp4").write_bytes((tmp_path / "in/dive.mp4").read_bytes()[:3000])
    save(tmp_path / "in/good.jpg", sound(1))
    inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())
    (aside,) = rows_of(tmp_path / "out/set-aside.csv")
    assert aside["file"] == "dive.mp4"
    assert "cut short" in aside["reason"]


CAMERA = {0x920A: 24.0, 0xA405: 35}  # focal length, and for 35 mm film
GPS = {1: "N", 2: (46.0, 30.0, 36.0), 3: "W", 4: (7.0, 15.0, 0.0)}


def test_distance_and_focal_length_give_the_scale(tmp_path, model):
    """A diagonal of 43.27 mm of film behind a 35 mm lens at 7 m sees 8.65 m."""
    save(tmp_path / "in/a.jpg", cracked(1), camera=CAMERA)
    save(tmp_path / "in/b.jpg", cracked(1))
    inspect_photos(
        [str(tmp_path / "in")], model, tmp_path / "out", InspectConfig(distance_m=7), open_source, Run()
    )
    (row,) = rows_of(tmp_path / "out/photos.csv")
    assert float(row["gsd_mm_per_px"]) == pytest.approx(200 * np.hypot(36, 24) / np.hypot(*SIZE))
    (aside,) = rows_of(tmp_path / "out/set-aside.csv")
    assert aside["file"] == "b.jpg"
    assert "focal length" in aside["reason"]


def test_the_sensors_resolution_serves_where_there_is_no_film_equivalent():
    """A 4000 px wide sensor of 4000 px per 10 mm is 10 mm wide; behind 20 mm at 2 m it sees 1 m."""
    image = Image.fromarray(np.zeros((30, 40, 3), np.uint8))
    tags = image.getexif()
    tags.get_ifd(0x8769).update({0x920A: 20.0, 0xA20E: 4000.0, 0xA210: 3})
    file = io.BytesIO()
    image.save(file, "JPEG", exif=tags)
    assert Scale(distance_m=2).of("a", file.getvalue(), 4000, 3000) == pytest.approx(1000 / 4000)


def test_a_photos_own_number_wins(tmp_path):
    """Over the number for all, and that over the distance."""
    scale = Scale(gsd_mm_per_px=2.0, distance_m=5, by_photo={"a": 0.25})
    assert scale.of("a", b"", 10, 10) == 0.25
    assert scale.of("b", b"", 10, 10) == 2.0


@pytest.mark.parametrize("gsd", [0.0, -1.0, float("nan"), 1e6, float("inf")])
def test_impossible_ground_sampling_distances_are_refused(gsd):
    """With what it is."""
    with pytest.raises(InputError, match="width of one pixel on the wall"):
        Scale(gsd_mm_per_px=gsd)


def test_a_geotagged_photo_gives_points(tmp_path, model):
    """Where the camera was, west and south negative; the crack's lines are kept beside it."""
    save(tmp_path / "in/a.jpg", cracked(1), gps=GPS)
    inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())
    (feature,) = json.loads((tmp_path / "out/cracks.geojson").read_text())["features"]
    assert feature["geometry"]["type"] == "Point"
    assert feature["geometry"]["coordinates"] == pytest.approx([-7.25, 46.51])
    assert feature["properties"]["lines_px"]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("size_hw", [(112, 112), (113, 500), (340, 450), (1000, 112)])
def test_blocks_cover_all_and_stay_inside(size_hw, overlap):
    """Whatever the overlap."""
    boxes = tile_boxes_xyxy(size_hw, 112, overlap)
    covered = np.zeros(size_hw, np.bool_)
    for x0, y0, x1, y1 in boxes:
        assert (x1 - x0, y1 - y0) == (112, 112)
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= size_hw[::-1]).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b/../../c.jpg", "C:\\x.jpg", "ü" * 300, ".", "con.jpg"]
)
def test_no_path_of_a_name_is_trusted(name):
    """Folder names stay in their folder, short and plain."""
    made = folder_name(name, "0" * 64)
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert len(made) < 80


def test_findings_say_what_they_depend_on(world):
    """Photo, content, model and values are in the key."""
    for folder in (world[0] / "out/photos").iterdir():
        findings = Findings.read(folder)
        assert len(findings.key) == len(findings.sha256) == 64


def test_a_large_photo_needs_permission(tmp_path, model):
    """Above max_megapixels it is set aside before its pixels are decoded."""
    save(tmp_path / "in/a.jpg", sound(1, size=(1000, 1200)))
    save(tmp_path / "in/b.jpg", sound(1))
    inspect_photos(
        [str(tmp_path / "in")],
        model,
        tmp_path / "out",
        InspectConfig(max_megapixels=1),
        open_source,
        Run(),
    )
    (aside,) = rows_of(tmp_path / "out/set-aside.csv")
    assert "max_megapixels" in aside["reason"]


def test_a_file_that_takes_too_much_memory_needs_permission(tmp_path, model):
    """Sixteen bits that are not compressed take three times the memory of a JPEG with as many pixels."""
    tifffile = pytest.importorskip("tifffile")
    grey = sound(1)
    save(tmp_path / "in/a.jpg", grey)
    tifffile.imwrite(
        tmp_path / "in/b.tif", np.repeat(grey[..., None], 3, 2).astype(np.uint16) * 257, photometric="rgb"
    )
    (tmp_path / "out/photos").mkdir(parents=True)
    photos = [Photo(path.name, path.read_bytes(), path.name) for path in sorted((tmp_path / "in").iterdir())]
    detector, rules = OnnxDetector.load(model), Rules.of(CONFIG)
    found = {}
    for times in (2, 5):
        work = Survey(tmp_path / "out", detector, rules, Scale(), times * SIZE[0] * SIZE[1])
        found[times] = list(work.look_at_all(photos))
    assert found[2][0][0] == "a.jpg"
    assert "max_megapixels" in found[2][1].reason
    assert [name for name, _ in found[5]] == ["a.jpg", "b.tif"]


def test_png_and_rotated_photos_are_read(tmp_path, model):
    """Findings are those of the upright photo."""
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), cracked(1))
    turned = Image.fromarray(rgb(np.rot90(cracked(1))))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "in/b.jpg", quality=98, exif=exif)
    inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())
    one, other = rows_of(tmp_path / "out/cracks.csv")
    assert float(one["length_px"]) == pytest.approx(float(other["length_px"]), rel=0.03)
    assert float(one["x0_px"]) == pytest.approx(float(other["x0_px"]), abs=3)


def test_encode_is_not_needed_for_the_page_to_be_whole(world):
    """The page holds every photo's card, every crack, and no address of another machine."""
    page = (world[0] / "out/report.html").read_text()
    assert page.count('class="card"') == 3
    assert page.count('"kind":"crack"') == len(rows_of(world[0] / "out/cracks.csv"))
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "broken.jpg" in page


@pytest.mark.parametrize("given", [".", "./", "../wall", "../wall/."])
def test_the_title_is_the_folders_name(tmp_path, model, monkeypatch, given):
    """However the folder is written."""
    save(tmp_path / "wall/a.jpg", sound(1))
    monkeypatch.chdir(tmp_path / "wall")
    inspect_photos([given], model, tmp_path / "out", CONFIG, open_source, Run())
    assert json.loads((tmp_path / "out/survey.json").read_text())["title"] == "wall"
    assert "<title>wall:" in (tmp_path / "out/report.html").read_text()


def test_lengths_are_in_mm_where_a_scale_is_known(tmp_path, model):
    """One photo without a scale does not take the millimetres of all others away; the page names it."""
    save(tmp_path / "in/known.jpg", cracked(1))
    save(tmp_path / "in/unknown.jpg", cracked(2))
    inspect_photos(
        [str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run(), {"known.jpg": 0.5}
    )
    page = (tmp_path / "out/report.html").read_text()
    lead = page[page.index("<header>") : page.index("</header>")]
    assert " mm and " in lead and " px" in lead
    assert "unknown.jpg" in lead and ": known.jpg" not in lead


def test_names_cannot_break_the_page(tmp_path, model):
    """A photo called like a script is text."""
    save(tmp_path / "in/<img src=x onerror=alert(1)>&.jpg", cracked(1))
    inspect_photos([str(tmp_path / "in")], model, tmp_path / "out", CONFIG, open_source, Run())
    page = (tmp_path / "out/report.html").read_text()
    assert "<img src=x" not in page
    assert "</script>&.jpg" not in page
