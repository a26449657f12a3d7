"""What other programs read from a survey: spreadsheets, GIS and annotation tools."""

import json

import cv2
import numpy as np
import pytest
from geojson_pydantic import FeatureCollection
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from damcrack.cracks.findings import Findings
from damcrack.files import read_csv
from damcrack.inspection.coco import polygons
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.run import Run
from damcrack.storage.source import open_source
from surveys import CAPE, cracked, save
from walls import concrete, coverage, photo

SIZE = (520, 700)
NAMES = ("=cmd|calc!A0.jpg", "@SUM(1).jpg", "-2+3.jpg", "Für.jpg")


def diagonal():
    """A crack across the photo with two others in its box."""
    return cracked(SIZE, (350, 260, 35, 500, 6.0), (520, 130, 0, 130, 6.0), (190, 400, 0, 130, 6.0), seed=1)


def ring():
    """A crack around a piece of wall."""
    turn = np.linspace(0, 2 * np.pi, 60)
    points = np.column_stack([350 + 120 * np.cos(turn), 260 + 90 * np.sin(turn)])
    return photo(concrete(SIZE, seed=2, pores=False), coverage(SIZE, points, 6.0))


@pytest.fixture(scope="module")
def world(tmp_path_factory, model):
    """Six cracked photos, one with a place and a scale."""
    root, grey = tmp_path_factory.mktemp("exports"), ring()
    save(root / "in/diagonal.jpg", diagonal(), gps=CAPE)
    for number, name in enumerate(("ring.jpg", *NAMES)):
        save(root / "in" / name, grey - np.uint8(number))
    (root / "in/+broken.jpg").write_bytes(b"no photo")
    places, table = [str(root / "in")], {"diagonal.jpg": 0.5}
    inspect_photos(places, model, root / "out", InspectConfig(), open_source, Run(), table)
    return root


@pytest.mark.parametrize("name", ["photos", "blocks", "cracks", "set-aside"])
def test_a_spreadsheet_opens_the_tables_rightly(world, name):
    """A byte order mark, and no cell that runs as a formula; numbers are numbers."""
    path = world / f"out/{name}.csv"
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    cells = [cell for row in read_csv(path) for cell in row.values()]
    texts = [cell for cell in cells if not _is_number(cell)]
    assert texts
    assert not [cell for cell in texts if cell.startswith(tuple("=+-@\t\r"))]


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_negative_degrees_stay_numbers(world):
    """South of the equator is no formula."""
    (row,) = [row for row in read_csv(world / "out/photos.csv") if row["photo"] == "diagonal.jpg"]
    assert (float(row["longitude"]), float(row["latitude"])) == pytest.approx((18.424, -33.86515))


def test_geojson_holds_degrees_or_nothing(world):
    """RFC 7946: a photo with a place gives points in degrees, the others no geometry; pixels are a property."""
    content = json.loads((world / "out/cracks.geojson").read_text())
    collection = FeatureCollection.model_validate(content)
    places = {feature.properties["photo"]: feature.geometry for feature in collection.features}
    assert places.pop("diagonal.jpg").coordinates[:2] == pytest.approx((18.424, -33.86515))
    assert set(places) == {"ring.jpg", *NAMES}
    assert set(places.values()) == {None}
    assert "crs" not in content
    rows = read_csv(world / "out/cracks.csv")
    for feature, row in zip(content["features"], rows, strict=True):
        assert feature["id"] == row["crack"].removeprefix("'")
        assert len(feature["properties"]["lines_px"]) == int(row["num_branches"])
        length_mm = feature["properties"]["length_mm"]
        assert length_mm == (float(row["length_mm"]) if row["length_mm"] else None)


def test_each_annotation_is_the_mask_of_its_own_crack(world):
    """As pycocotools reads it: areas and boxes agree, and all annotations together are the photo's mask."""
    coco = COCO(str(world / "out/cracks.coco.json"))
    areas = {row["crack"]: int(row["area_px"]) for row in read_csv(world / "out/cracks.csv")}
    assert sorted(areas.values()) == sorted(one["area"] for one in coco.anns.values())
    for folder in (world / "out/photos").iterdir():
        findings = Findings.read(folder)
        (image_id,) = [i for i, image in coco.imgs.items() if image["file_name"] == findings.photo]
        found = coco.imgToAnns[image_id]
        assert [one["area"] for one in found] == [crack.area_px for crack in findings.cracks]
        masks = [coco.annToMask(one) for one in found]
        for one, mask in zip(found, masks, strict=True):
            assert mask.sum() == one["area"]
            assert list(cv2.boundingRect(mask)) == one["bbox"]
            assert all(len(polygon) >= 8 for polygon in one["segmentation"])
        whole = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE) > 0
        assert np.array_equal(sum(masks), whole)
    (image_id,) = [i for i, image in coco.imgs.items() if image["file_name"] == "diagonal.jpg"]
    assert len(coco.imgToAnns[image_id]) == 3


@pytest.mark.parametrize("seed", range(60))
def test_polygons_draw_their_mask(seed):
    """Any mask: single pixels, pixels that touch at a corner, holes in holes."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 24, 2)
    mask = (rng.random((height, width)) < rng.uniform(0.05, 0.95)).astype(np.uint8)
    found = polygons(mask, 5, 3)
    drawn = np.zeros((height + 10, width + 10), np.uint8)
    if found:
        size = drawn.shape
        drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(found, *size)))
    assert np.array_equal(drawn[3 : 3 + height, 5 : 5 + width], mask)
    assert drawn.sum() == mask.sum()
