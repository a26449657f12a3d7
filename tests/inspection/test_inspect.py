import json

import cv2
import numpy as np
import pytest
from PIL import Image

import surveys
from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.findings import Findings, folder_name
from damcrack.cracks.photo import Rules
from damcrack.cracks.pixel_scores import count_pixels
from damcrack.data.tiling import tile_boxes_xyxy
from damcrack.files import InputError, read_csv
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.scale import Scale
from damcrack.inspection.sources import Photo
from damcrack.inspection.survey import Survey
from damcrack.run import Run
from damcrack.storage.source import open_source
from surveys import Transcript, save, write_video
from walls import coverage, line, rgb

SIZE = (340, 450)


def cracked(seed=0, width=6.0):
    return surveys.cracked(SIZE, (SIZE[1] / 2, SIZE[0] / 2, 20, 260, width), seed=seed)


def sound(seed=0):
    return surveys.cracked(SIZE, seed=seed)


def inspect(root, model, table=None, run=None, **values):
    """Inspect ROOT/in into ROOT/out; returns the rows of photos.csv, and the reasons of what was set aside."""
    places, config = [str(root / "in")], InspectConfig(**values)
    inspect_photos(places, model, root / "out", config, open_source, run or Run(), table)
    aside = {row["file"]: row["reason"] for row in read_csv(root / "out/set-aside.csv")}
    return {row["photo"]: row for row in read_csv(root / "out/photos.csv")}, aside


@pytest.fixture(scope="module")
def world(tmp_path_factory, model):
    """A survey of four photos, one of them broken and one without a crack."""
    root = tmp_path_factory.mktemp("survey")
    save(root / "in/a.jpg", cracked(1))
    save(root / "in/sub/b.jpg", cracked(2, width=10))
    save(root / "in/sound.jpg", sound(3))
    (root / "in/broken.jpg").write_bytes((root / "in/a.jpg").read_bytes()[:2000])
    save(root / "in/masks/a.png", sound(5))
    run = Transcript()
    return root, run, *inspect(root, model, run=run, gsd_mm_per_px=0.5)


def test_every_photo_has_a_verdict_or_a_reason(world):
    """Good ones are judged, the broken one is set aside and said; masks are no photos."""
    _, run, rows, aside = world
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == {"a.jpg": "crack", "sub/b.jpg": "crack", "sound.jpg": "no crack"}
    assert aside.keys() == {"broken.jpg", "masks/"}
    assert "truncated" in aside["broken.jpg"]
    assert any("broken.jpg" in line for line in run.lines)


def test_cracks_are_measured_in_pixels_and_millimetres(world):
    """Length and width are those that were drawn; millimetres follow from the ground sampling distance."""
    rows = {row["photo"]: row for row in read_csv(world[0] / "out/cracks.csv")}
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
        for row in read_csv(world[0] / "out/blocks.csv"):
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


def test_the_page_is_whole(world):
    """It holds every photo's card, every crack, and no address of another machine; it is called by the folder."""
    page = (world[0] / "out/report.html").read_text()
    assert page.count('class="card"') == 3
    assert page.count('"kind":"crack"') == len(read_csv(world[0] / "out/cracks.csv"))
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "broken.jpg" in page
    assert "<title>in:" in page
    assert json.loads((world[0] / "out/survey.json").read_text())["title"] == "in"


def test_a_second_call_looks_at_nothing_again(world, model):
    """Findings keep their time stamps; tables and page are the same bytes."""
    out = world[0] / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("findings.json")}
    written = {path.name: path.read_bytes() for path in (*out.glob("*.csv"), out / "report.html")}
    inspect(world[0], model, gsd_mm_per_px=0.5)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("findings.json")} == before
    assert {name: (out / name).read_bytes() for name in written} == written


def test_an_interrupted_survey_resumes(tmp_path, model, monkeypatch):
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
        inspect(tmp_path, model)
    done = len(list((tmp_path / "out/photos").glob("*/findings.json")))
    assert 1 <= done < 6
    assert not (tmp_path / "out/report.html").exists()
    before = len(calls)
    inspect(tmp_path, model)
    assert len(calls) - before == 6 - done
    assert (tmp_path / "out/report.html").exists()


def test_other_values_and_new_content_are_looked_at_again(tmp_path, model):
    """A changed photo, a changed value: the old findings do not count; photos that left are forgotten."""
    save(tmp_path / "in/a.jpg", cracked(1))
    save(tmp_path / "in/b.jpg", sound(2))
    inspect(tmp_path, model)
    save(tmp_path / "in/a.jpg", sound(1))
    (tmp_path / "in/b.jpg").unlink()
    ((name, row),) = inspect(tmp_path, model)[0].items()
    assert (name, row["verdict"]) == ("a.jpg", "no crack")
    assert len(list((tmp_path / "out/photos").iterdir())) == 1
    ((_, again),) = inspect(tmp_path, model, overlap=0.5)[0].items()
    assert int(again["num_blocks"]) > int(row["num_blocks"])


def test_photos_that_other_weights_judged_are_judged_again(tmp_path, model, monkeypatch):
    """As with another model."""
    save(tmp_path / "in/a.jpg", sound(1))
    keys = []
    for weights in ((1.0,), (2.0,), (2.0,)):
        monkeypatch.setattr("damcrack.inspection.survey.WEIGHTS", weights)
        inspect(tmp_path, model)
        (folder,) = (tmp_path / "out/photos").iterdir()
        keys.append(Findings.read(folder).key)
    assert keys[0] != keys[1] == keys[2]


def test_small_photos_are_set_aside_and_the_rest_goes_on(tmp_path, model):
    """Smaller than a block, empty, and no image at all; above max_megapixels before its pixels are decoded."""
    save(tmp_path / "in/small.jpg", sound(1)[:90])
    save(tmp_path / "in/large.jpg", np.full((1000, 1200), 150, np.uint8))
    (tmp_path / "in/empty.png").write_bytes(b"")
    (tmp_path / "in/text.jpg").write_text("no image")
    save(tmp_path / "in/good.jpg", sound(1))
    rows, aside = inspect(tmp_path, model, max_megapixels=1)
    assert list(rows) == ["good.jpg"]
    assert aside.keys() == {"small.jpg", "large.jpg", "empty.png", "text.jpg"}
    assert "smaller than one tile" in aside["small.jpg"]
    assert "max_megapixels" in aside["large.jpg"]


def test_only_unusable_photos_is_an_error(tmp_path, model):
    """With the first reason; other files are no photos."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/empty.png").write_bytes(b"")
    (tmp_path / "in/a.txt").write_bytes(b"notes")
    with pytest.raises(InputError, match=r"none of 1 photos.*empty\.png"):
        inspect(tmp_path, model)


@pytest.mark.parametrize(
    ("given", "said"),
    [("nothing", "no such file, folder or pattern"), ("folder", "no photo in"), ("*.jpg", "no such file")],
)
def test_places_without_photos_are_refused(tmp_path, model, given, said):
    """Missing, empty, and a pattern that nothing fits."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=said):
        inspect_photos([str(tmp_path / given)], model, tmp_path / "out", InspectConfig(), open_source, Run())
    assert not (tmp_path / "out").exists()


def test_frames_of_a_video_are_photos(tmp_path, model):
    """One a second, named by their time; the crack comes after two seconds."""
    write_video(tmp_path / "in/dive.mp4", [sound(1)] * 20 + [cracked(1, width=12)] * 15)
    rows, _ = inspect(tmp_path, model)
    assert [row["verdict"] for row in rows.values()] == ["no crack", "no crack", "crack", "crack"]
    assert list(rows)[2] == "dive.mp4@00002.0s.jpg"


def test_distance_and_focal_length_give_the_scale(tmp_path, model):
    """A diagonal of 43.27 mm of film behind a 35 mm lens at 7 m sees 8.65 m."""
    save(
        tmp_path / "in/a.jpg", sound(1), camera={0x920A: 24.0, 0xA405: 35}
    )  # focal length, and for 35 mm film
    save(tmp_path / "in/b.jpg", sound(1))
    rows, aside = inspect(tmp_path, model, distance_m=7)
    assert float(rows["a.jpg"]["gsd_mm_per_px"]) == pytest.approx(200 * np.hypot(36, 24) / np.hypot(*SIZE))
    assert list(aside) == ["b.jpg"]
    assert "focal length" in aside["b.jpg"]


@pytest.mark.parametrize("gsd", [0.0, -1.0, float("nan"), 1e6, float("inf")])
def test_impossible_ground_sampling_distances_are_refused(gsd):
    """With what it is."""
    with pytest.raises(InputError, match="width of one pixel on the wall"):
        Scale(gsd_mm_per_px=gsd)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("size_hw", [(112, 112), (113, 500), (1000, 112)])
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
    detector, rules = OnnxDetector.load(model), Rules.of(InspectConfig())
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
    Image.fromarray(cracked(1)).save(tmp_path / "in/a.png")
    save(tmp_path / "in/b.jpg", np.ascontiguousarray(np.rot90(rgb(cracked(1)))), tags={0x0112: 6})
    inspect(tmp_path, model)
    one, other = read_csv(tmp_path / "out/cracks.csv")
    assert float(one["length_px"]) == pytest.approx(float(other["length_px"]), rel=0.03)
    assert float(one["x0_px"]) == pytest.approx(float(other["x0_px"]), abs=3)


def test_lengths_are_in_mm_where_a_scale_is_known(tmp_path, model):
    """One photo without a scale does not take the millimetres of all others away; the page names it, as text."""
    save(tmp_path / "in/known.jpg", cracked(1))
    save(tmp_path / "in/<img src=x onerror=alert(1)>&.jpg", cracked(2))
    inspect(tmp_path, model, {"known.jpg": 0.5})
    page = (tmp_path / "out/report.html").read_text()
    lead = page[page.index("<header>") : page.index("</header>")]
    assert " mm and " in lead and " px" in lead
    assert "alert(1)&gt;&amp;.jpg" in lead and ": known.jpg" not in lead
    assert "<img src=x" not in page
    assert "</script>&.jpg" not in page
