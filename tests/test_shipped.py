"""The detector that comes with the package: whole, small, and able to tell a crack from a wall."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from damcrack.cracks.detector import SHIPPED, OnnxDetector
from damcrack.cracks.pixel_scores import PixelCounts, count_pixels
from damcrack.files import sha256_file
from damcrack.registry.model_names import model_folder
from damcrack.sample.concrete import render_photo

pytestmark = pytest.mark.slow

UNSEEN_SEED = 99  # the detector learned from seed 7
REAL_DATA = os.environ.get("DAMCRACK_REAL_DATA")


@pytest.fixture(scope="module")
def detector() -> OnnxDetector:
    return OnnxDetector.load(SHIPPED)


def found(detector: OnnxDetector, rgb: np.ndarray) -> np.ndarray:
    with ThreadPoolExecutor(2) as workers:
        cells = detector.map_photo(rgb, workers)
    full = cv2.resize(cells, (2 * cells.shape[1], 2 * cells.shape[0]), interpolation=cv2.INTER_LINEAR)
    return (full[: rgb.shape[0], : rgb.shape[1]] >= 0.5).astype(np.uint8)


def test_files_are_whole_and_small() -> None:
    """Every hash is that of its file, a card lies beside, and all of it fits a wheel of 20 MB."""
    card = json.loads((SHIPPED / "model.json").read_text())
    training = json.loads((SHIPPED / "training/model.json").read_text())
    assert card["onnx_sha256"] == sha256_file(SHIPPED / "model.onnx")
    assert training["weights_sha256"] == sha256_file(SHIPPED / "training/weights.safetensors")
    assert (SHIPPED / "CARD.md").is_file()
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 16e6


def test_it_is_the_default_of_inspect() -> None:
    """`shipped` names it; a path of that name in the working folder would win."""
    assert model_folder("shipped") == SHIPPED


def test_cracks_of_unseen_rendered_photos_are_found(detector: OnnxDetector) -> None:
    """Pixels of photos of another seed: F1 of at least 0.6 with two pixels of tolerance."""
    counts = PixelCounts()
    for index in range(8):
        photo = render_photo(UNSEEN_SEED, index, (448, 448))
        counts += count_pixels(found(detector, photo.rgb), (photo.mask > 0).astype(np.uint8))
    f1 = counts.shares()["f1"]
    assert f1 is not None and f1 > 0.6


def test_torch_and_onnx_agree(detector: OnnxDetector) -> None:
    """The weights to teach with are those that inspect."""
    torch = pytest.importorskip("torch")
    from damcrack.train.weights import load_model

    network, _ = load_model(SHIPPED / "training")
    rgb = render_photo(UNSEEN_SEED, 1, (224, 224)).rgb
    with torch.inference_mode():
        images = (torch.from_numpy(rgb).permute(2, 0, 1)[None].float() - 127) / 128
        expected = torch.sigmoid(network.both_at_half_size(images)[1])[0].numpy()
    with ThreadPoolExecutor(1) as workers:
        np.testing.assert_allclose(detector.map_photo(rgb, workers), expected, atol=0.02)


@pytest.mark.skipif(REAL_DATA is None, reason="DAMCRACK_REAL_DATA names no folder of real photos")
def test_a_real_crack_is_found(detector: OnnxDetector) -> None:
    """A held-out photo, end to end: most of its crack, little else."""
    assert REAL_DATA is not None
    folder = Path(REAL_DATA) / "deepcrack"
    image = sorted((folder / "images").iterdir())[0]
    mask = next((folder / "masks").glob(f"{image.stem}.*"))
    rgb = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    truth = (cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 127).astype(np.uint8)
    f1 = count_pixels(found(detector, rgb), truth).shares()["f1"]
    assert f1 is not None and f1 > 0.7
