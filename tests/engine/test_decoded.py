"""Image sets as arrays: one decoding, whoever asks and however many at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import cv2
import numpy as np
import pytest

from damcrack.engine import decoded
from damcrack.engine.decoded import DecodedSet, decode_set
from damcrack.images.imageset import ImageSetWriter

NUM_IMAGES = 300


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Grey PNGs of 8 px, each of its own brightness."""
    root = tmp_path / "set"
    writer = ImageSetWriter(root)
    for number in range(NUM_IMAGES):
        _, encoded = cv2.imencode(".png", np.full((8, 8, 3), number % 256, np.uint8))
        writer.add(f"{number:03d}.png", encoded.tobytes(), label=number % 2, split="train")
    writer.finish("tiles.csv", ("no crack", "crack"), (8, 8))
    return root


def test_one_decodes_and_the_others_wait(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four that ask at the same moment get the same pixels from one decoding; nothing half done is left."""
    calls, decode_to, together = [], decoded._decode_to, Barrier(4)
    monkeypatch.setattr(decoded, "_decode_to", lambda *what: (calls.append(what), decode_to(*what)))

    def ask(number: int) -> DecodedSet:
        together.wait()
        return decode_set(images, 8, tmp_path / "cache")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(calls) == 1
    for one in found:
        assert np.array_equal(one.images_NHWC[:, 0, 0, 0], np.arange(NUM_IMAGES) % 256)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".npy", ".lock"}
