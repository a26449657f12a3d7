"""A survey for CAD, GIS and a printed page, as the programs of each read it; and corrected annotations back."""

import json
from pathlib import Path

import cv2
import ezdxf
import numpy as np
import pyogrio
import pytest
from click.testing import CliRunner

import surveys
from damcrack.cli.main import cli
from damcrack.cracks.findings import Findings
from damcrack.data.layouts import read_layout
from damcrack.data.photo import decode_mask, decode_photo
from damcrack.files import InputError, read_csv
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.corrected import take_annotations
from damcrack.inspection.exports import export_survey
from damcrack.inspection.inspect import inspect_photos
from damcrack.run import Run
from damcrack.storage.source import open_source
from surveys import CAPE, Transcript, save, write_video
from walls import rgb

SIZE = (480, 700)
GSD = 0.05


def cracked(seed=1, angle=20):
    return surveys.cracked(SIZE, (350, 240, angle, 260, 6.0), seed=seed)


@pytest.fixture(scope="module")
def world(tmp_path_factory, model):
    """A survey of two photos: a sideways one with a scale and a place, and one without; and one that is sound."""
    root = tmp_path_factory.mktemp("survey")
    sideways = np.ascontiguousarray(np.rot90(rgb(cracked())))  # as the camera stores it, held upright
    camera = {0x920A: 24.0, 0x927C: b"maker" * 20}
    save(root / "in/sub/scaled.jpg", sideways, {0x0112: 6, 0x0110: "Camera 1"}, camera, CAPE)
    save(root / "in/plain.jpg", cracked(2, angle=-40))
    save(root / "in/sound.jpg", surveys.cracked(SIZE, seed=3))
    table = {"sub/scaled.jpg": GSD}
    inspect_photos([str(root / "in")], model, root / "out", InspectConfig(), open_source, Run(), table)
    export_survey(root / "out", ("jpeg", "dxf", "gpkg"), root / "exported", Run())
    return root


def findings_of(world, stem):
    (folder,) = (world / "out/photos").glob(f"{stem}-*")
    return folder.name, Findings.read(folder)


@pytest.mark.parametrize(
    ("stem", "units", "layer"), [("scaled", 4, "CRACK 0.3 TO 0.5 MM"), ("plain", 0, "CRACK")]
)
def test_cad_reads_the_drawing_with_the_same_numbers(world, stem, units, layer):
    """Auditor without a complaint; units, length, width and place of each crack, y upwards."""
    name, findings = findings_of(world, stem)
    drawing = ezdxf.readfile(world / f"exported/dxf/{name}.dxf")
    assert not drawing.audit().has_errors
    assert not drawing.audit().has_fixes
    assert drawing.units == units
    scale = findings.gsd_mm_per_px or 1.0
    (crack,) = findings.cracks
    (drawn,) = drawing.modelspace().query(f'LWPOLYLINE[layer=="{layer}"]')
    points = np.array([point[:2] for point in drawn.get_points()])
    assert np.hypot(*np.diff(points, axis=0).T).sum() == pytest.approx(crack.length_px * scale, rel=0.05)
    assert drawn.dxf.const_width == pytest.approx(crack.width_px * scale)
    back = np.column_stack([points[:, 0] / scale - 0.5, findings.height_px - points[:, 1] / scale - 0.5])
    assert back == pytest.approx(crack.lines[0].astype(float))
    (frame,) = drawing.modelspace().query('LWPOLYLINE[layer=="PHOTO"]')
    corners = np.array([point[:2] for point in frame.get_points()])
    assert corners.max(axis=0) == pytest.approx((findings.width_px * scale, findings.height_px * scale))
    texts = [text.dxf.text for text in drawing.modelspace().query("TEXT")]
    assert findings.photo in texts
    assert any(text.startswith("#1 ") for text in texts)


def test_gis_reads_the_geopackage_with_the_same_numbers(world):
    """GDAL finds both layers in WGS 84, with the numbers of the survey; photos without a place have none."""
    path = world / "exported/survey.gpkg"
    assert [name for name, _ in pyogrio.list_layers(path)] == ["photos", "cracks"]
    for layer in ("photos", "cracks"):
        info = pyogrio.read_info(path, layer=layer)
        assert (info["crs"], info["geometry_type"]) == ("EPSG:4326", "Point")
        meta, _, geometry, columns = pyogrio.raw.read(path, layer=layer)
        rows = {
            values[list(meta["fields"]).index("photo")]: (
                dict(zip(meta["fields"], values, strict=True)),
                place,
            )
            for *values, place in zip(*columns, geometry, strict=True)
        }
        row, place = rows["sub/scaled.jpg"]
        _, findings = findings_of(world, "scaled")
        (crack,) = findings.cracks
        assert row["length_px"] == pytest.approx(crack.length_px, abs=0.06)
        assert row["width_max_mm"] == pytest.approx(crack.width_max_px * GSD, abs=1e-3)
        assert np.frombuffer(place[5:], "<f8") == pytest.approx((18.424, -33.86515))
        row, place = rows["plain.jpg"]
        assert place is None
        assert np.isnan(row["length_mm"])
    assert pyogrio.read_info(path, layer="photos")["features"] == 3
    assert pyogrio.read_info(path, layer="cracks")["features"] == 2


def test_gdal_reads_the_surveys_geojson(world):
    """The same points from the other file."""
    info = pyogrio.read_info(world / "out/cracks.geojson")
    assert (info["features"], info["crs"]) == (2, "EPSG:4326")
    assert info["total_bounds"] == pytest.approx((18.424, -33.86515, 18.424, -33.86515))


def test_an_annotated_photo_is_upright(world):
    """The crack drawn where it is, the wall elsewhere as it was."""
    name, findings = findings_of(world, "scaled")
    encoded = (world / f"exported/jpeg/{name}.jpg").read_bytes()
    before = decode_photo((world / "in/sub/scaled.jpg").read_bytes(), 10**7)
    changed = np.abs(before.astype(int) - decode_photo(encoded, 10**7)).max(axis=2) > 40
    (crack,) = findings.cracks
    x, y = crack.samples[:, :2].astype(int).T
    assert changed[y, x].mean() > 0.9
    assert changed.mean() < 0.1
    assert {path.name for path in (world / "exported/jpeg").iterdir()} == {
        f"{folder.name}.jpg" for folder in (world / "out/photos").iterdir()
    }


def test_the_command_writes_what_is_asked_for(world, tmp_path):
    """Formats may be repeated; a folder that is no survey is refused with a message."""
    arguments = ["export-survey", str(world / "out"), "--format", "dxf", "--format", "gpkg"]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"dxf", "survey.gpkg"}
    arguments[1] = str(world / "in")
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "out2")])
    assert isinstance(done.exception, InputError)


def coco_of(world):
    return json.loads((world / "out/cracks.coco.json").read_text())


def take(world, tmp_path, content, places=None):
    path = tmp_path / "instances_default.json"
    path.write_text(json.dumps(content))
    run = Transcript()
    take_annotations(path, places or [str(world / "in")], tmp_path / "source", open_source, run)
    return tmp_path / "source", run.lines


def listing(*names, annotations=()):
    """A COCO file of photos of one size, with ids from 0 on."""
    size = {"height": SIZE[0], "width": SIZE[1]}
    images = [{"id": number, "file_name": name, **size} for number, name in enumerate(names)]
    categories = [{"id": 1, "name": "crack"}]
    return {"images": images, "annotations": list(annotations), "categories": categories}


def masks(source):
    return {
        str(path.relative_to(source / "masks")): decode_mask(path.read_bytes(), 10**7) > 0
        for path in sorted((source / "masks").rglob("*.png"))
    }


def test_annotations_come_back_as_a_source_of_masks(world, tmp_path):
    """Untouched they are the survey's own masks; a photo without a crack has an empty one; the layout pairs them."""
    source, _ = take(world, tmp_path, coco_of(world))
    found = masks(source)
    assert set(found) == {"plain.png", "sound.png", "sub/scaled.png"}
    assert not found["sound.png"].any()
    for stem, name in (("plain", "plain.png"), ("scaled", "sub/scaled.png")):
        folder, _ = findings_of(world, stem)
        stored = cv2.imread(str(world / f"out/photos/{folder}/mask.png"), cv2.IMREAD_GRAYSCALE) > 0
        assert np.array_equal(found[name], stored)
    names = [str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()]
    layout = read_layout("corrected", [name for name in names if not name.startswith(".")], {}, 1000)
    assert {(one.name, one.mask) for one in layout.photos} == {
        ("images/plain.jpg", "masks/plain.png"),
        ("images/sound.jpg", "masks/sound.png"),
        ("images/sub/scaled.jpg", "masks/sub/scaled.png"),
    }
    assert (source / "images/plain.jpg").read_bytes() == (world / "in/plain.jpg").read_bytes()


def test_corrections_of_every_shape_count(world, tmp_path):
    """Polygons and both kinds of run lengths; other categories are no cracks; names in another spelling."""
    from pycocotools import mask as coco_mask

    content = coco_of(world)
    content["categories"] = [{"id": 3, "name": "Crack "}, {"id": 4, "name": "joint"}]
    square = np.zeros(SIZE, np.uint8, order="F")
    square[10:20, 30:50] = 1
    packed = coco_mask.encode(square)
    runs = [10 + 30 * SIZE[0], *[10, SIZE[0] - 10] * 20]
    runs[-1] = SIZE[0] * SIZE[1] - sum(runs[:-1])
    shapes = {
        "plain.jpg": {"size": list(SIZE), "counts": packed["counts"].decode()},
        "sound.jpg": {"size": list(SIZE), "counts": runs},
        "sub/scaled.jpg": [[30.0, 10.0, 50.0, 10.0, 50.0, 20.0, 30.0, 20.0]],
    }
    content["annotations"] = []
    for image in content["images"]:
        identity = len(content["annotations"])
        one = {"image_id": image["id"], "segmentation": shapes[image["file_name"]], "iscrowd": 0}
        content["annotations"] += [one | {"id": identity, "category_id": 3}]
        content["annotations"] += [
            one | {"id": identity + 1, "category_id": 4, "segmentation": [[0, 0, 9, 0, 9, 9]]}
        ]
        image["file_name"] = image["file_name"].upper().replace("/", "\\")
    source, _ = take(world, tmp_path, content)
    for found in masks(source).values():
        assert np.array_equal(found, square > 0)


@pytest.mark.parametrize(
    "outline",
    [
        [],
        None,
        [[1, 2]],
        [[0, 0, 5, 0, 5]],
        [[0, 0, 5, float("nan"), 5, 5]],
        {"size": [1, 1], "counts": [1]},
        {"size": list(SIZE), "counts": ""},
        {"size": list(SIZE), "counts": "zz~"},
        {"size": list(SIZE), "counts": [SIZE[0], SIZE[1]]},
        "x",
        [3],
    ],
)
def test_a_shape_that_is_no_area_leaves_its_photo_out(world, tmp_path, outline):
    """Half a mask would call the other cracks wall; the other photos are taken."""
    content = coco_of(world)
    image = {one["file_name"]: one["id"] for one in content["images"]}["plain.jpg"]
    content["annotations"].append({"id": 99, "image_id": image, "category_id": 1, "segmentation": outline})
    source, lines = take(world, tmp_path, content)
    assert set(masks(source)) == {"sound.png", "sub/scaled.png"}
    (said,) = lines
    assert "plain.jpg" in said
    assert "99" in said


def test_a_file_that_fits_no_photo_is_refused(world, tmp_path):
    """Other names, no cracks among the categories, shapes of nothing listed, no COCO; another size is left out."""
    whole = coco_of(world)
    wrong = [
        whole | {"images": [*whole["images"], whole["images"][0] | {"file_name": "c.jpg"}]},
        whole | {"categories": [{"id": 1, "name": "dog"}]},
        whole | {"images": []},
        whole | {"annotations": [one | {"image_id": str(one["image_id"])} for one in whole["annotations"]]},
        whole | {"annotations": [one | {"category_id": 9} for one in whole["annotations"]]},
        whole | {"images": [*whole["images"], whole["images"][0] | {"id": 99}]},
        whole | {"images": [one | {"id": 1} for one in whole["images"]]},
        whole | {"images": [one | {"id": []} for one in whole["images"]]},
        whole | {"images": [one | {"height": float("inf")} for one in whole["images"]]},
        whole | {"images": [one | {"file_name": 1} for one in whole["images"]]},
        {},
        [],
        "text",
    ]
    for content in wrong:
        with pytest.raises(InputError):
            take(world, tmp_path, content)
    with pytest.raises(InputError):
        take_annotations(Path("nowhere.json"), [str(world / "in")], tmp_path / "source", open_source, Run())
    smaller = whole | {"images": [one | {"height": 100} for one in whole["images"]]}
    with pytest.raises(InputError, match="none of its 3 photos"):
        take(world, tmp_path, smaller)
    assert not (tmp_path / "source").exists()


def test_two_photos_of_one_stem_do_not_share_a_mask(world, tmp_path):
    """The second one is left out, and said."""
    for name in ("a.jpg", "A.png"):
        save(tmp_path / "in" / name, np.full(SIZE, 150, np.uint8))
    shape = {"id": 7, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]]}
    content = listing("a.jpg", "A.png", annotations=[shape])
    source, lines = take(world, tmp_path, content, [str(tmp_path / "in")])
    assert len(masks(source)) == 1
    assert len(lines) == 1


@pytest.mark.parametrize("name", ["dive.mp4", "DIVE.MP4"])
def test_frames_come_by_their_time_whatever_the_step_was(world, tmp_path, name):
    """Every fifth of a second, in any spelling of the video's name; one that is not there is said."""
    write_video(tmp_path / "in/dive.mp4", [np.full(SIZE, 150, np.uint8)] * 12)
    times = ("00000.2", "00000.7", "00001.0")
    content = listing(*(f"{name}@{time}s.jpg" for time in (*times, "99999.5")))
    source, (said,) = take(world, tmp_path, content, [str(tmp_path / "in")])
    assert set(masks(source)) == {f"dive.mp4@{time}s.png" for time in times}
    assert "99999.5s" in said


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """Four lines: one accepted, one accepted as a joint, one rejected, one not decided."""
    root = tmp_path_factory.mktemp("decided")
    rows = [(300, 80 + 130 * place, 5 * place, 300, 6.0) for place in range(4)]
    surveys.save(root / "in/a.jpg", surveys.cracked((600, 800), *rows))
    survey = surveys.inspect(root)
    found = surveys.all_findings(survey)
    said = [("accepted", "crack"), ("rejected", "crack"), ("accepted", "joint")]
    decisions = [
        surveys.decide(known, finding, status, label=label, severity="minor")
        for (known, finding), (status, label) in zip(found, said, strict=False)
    ]
    surveys.write_decisions(survey / "decisions.json", decisions)
    return survey, [finding.crack.number for _, finding in found]


@pytest.mark.parametrize("undecided", [False, True])
def test_what_was_accepted_is_exported(decided, tmp_path, undecided):
    """Rejected lines never, undecided ones when asked for; numbers stay, classes are in every format."""
    survey, (crack, _, joint, left) = decided
    formats = ("jpeg", "dxf", "gpkg", "csv", "geojson", "coco")
    summary = export_survey(survey, formats, tmp_path / "out", Run(), undecided=undecided)
    assert [int(word) for word in summary["lines"].split() if word.isdigit()] == [2, 1, 1, 0]
    wanted = {f"a.jpg#{crack}": "crack", f"a.jpg#{joint}": "joint"} | (
        {f"a.jpg#{left}": ""} if undecided else {}
    )
    assert {row["crack"]: row["class"] for row in read_csv(tmp_path / "out/cracks.csv")} == wanted
    features = json.loads((tmp_path / "out/cracks.geojson").read_text())["features"]
    assert {one["id"]: one["properties"].get("class", "") for one in features} == wanted
    content = json.loads((tmp_path / "out/cracks.coco.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    assert sorted(names[one["category_id"]] for one in content["annotations"]) == sorted(
        label or "crack" for label in wanted.values()
    )
    _, _, _, columns = pyogrio.raw.read(
        tmp_path / "out/survey.gpkg", layer="cracks", columns=["crack", "class"]
    )
    assert set(columns[0]) == set(wanted)
    (path,) = (tmp_path / "out/dxf").iterdir()
    drawing = ezdxf.readfile(path)
    assert not drawing.audit().has_errors
    space = drawing.modelspace()
    assert len(space.query('LWPOLYLINE[layer=="JOINT"]')) == 1
    assert len(space.query('LWPOLYLINE[layer=="CRACK"]')) == len(wanted) - 1
    texts = [text.dxf.text for text in space.query("TEXT")]
    assert {text.split()[0] for text in texts if text.startswith("#")} == {name[5:] for name in wanted}


def test_decisions_on_other_photos_are_refused(decided, world, tmp_path):
    """Nothing is written, rather than a drawing without any crack."""
    with pytest.raises(InputError, match="does not have"):
        export_survey(world / "out", ["dxf"], tmp_path / "out", Run(), decided[0] / "decisions.json")
    assert not (tmp_path / "out").exists()


def test_a_survey_without_cracks_is_exported(world, model, tmp_path):
    """Empty layers and drawings are files all the same."""
    places = [str(world / "in/sound.jpg")]
    inspect_photos(places, model, tmp_path / "out", InspectConfig(), open_source, Run())
    export_survey(tmp_path / "out", ("jpeg", "dxf", "gpkg"), tmp_path / "x", Run())
    assert pyogrio.read_info(tmp_path / "x/survey.gpkg", layer="cracks")["features"] == 0
    (drawing,) = (tmp_path / "x/dxf").iterdir()
    assert not ezdxf.readfile(drawing).audit().has_errors
