"""The case study: held-out photos, compared with their masks."""

import json

import cv2
import pytest

from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect
from damcrack.run import Run
from detectors import cut_tiles, draw_photos, write_export

CONFIG = InspectConfig(scales=(1.0,))


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A detector that sees whatever is drawn, on all of twelve photos that were set aside."""
    root = tmp_path_factory.mktemp("study")
    photos = draw_photos(root / "photos", num=12)
    tiles = cut_tiles(photos, root / "tiles")
    model = write_export(root / "export", threshold=155)
    inspect(photos, tiles, model, root / "out", CONFIG, Run(root / "scratch"))
    return root / "out", json.loads((root / "out/case-study.json").read_text())


def test_a_detector_that_sees_all_cracks_is_right(studied):
    """Blocks and pixels by the network are right, and thresholds stand beside them."""
    blocks, pixels = studied[1]["blocks"]["all"], studied[1]["pixels"]
    assert blocks["network"]["num_blocks"] > 0
    assert blocks["network"]["accuracy"] == 1
    assert pixels.keys() == {"network", "global threshold", "Otsu", "adaptive"}
    assert pixels["network"]["all"]["f1"] > 0.95


def test_pictures_show_photos_and_maps(studied):
    """What was found beside what is true, and below each of the most confident blocks its crack map."""
    out, results = studied
    found, attention = (cv2.imread(str(out / f"figures/{name}.jpg")) for name in ("found", "attention"))
    assert found.shape[1] == 5 * 448
    assert attention.shape[0] == 2 * 160
    assert attention.shape[1] == 160 * min(8, results["num_photos"])
