"""Image sets as arrays: the pixels of the files, decoded once, whoever asks and however many at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from damcrack.data.targets import CLEAN, CRACK, SOMEWHERE, UNKNOWN
from damcrack.files import InputError
from damcrack.train import decoded
from damcrack.train.decoded import DecodedSet, decode_set, shrink
from trainings import write_set


def image_set(root: Path, pixels: np.ndarray) -> Path:
    numbers = range(len(pixels))
    return write_set(root, pixels, [n % 2 for n in numbers], [("train", "val")[n % 2] for n in numbers]).root


def test_decoded_set_holds_each_image_in_its_row(tmp_path: Path) -> None:
    """Pixels, colours, labels and splits land in their rows; a second call maps the same file."""
    pixels = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3)).astype(np.uint8)
    root = image_set(tmp_path / "set", pixels)
    for _ in range(2):
        found = decode_set(root, None, tmp_path / "cache")
        assert np.array_equal(found.images_NHWC, pixels)
        assert found.labels_N.tolist() == [number % 2 for number in range(130)]
        assert found.rows_of["val"].tolist() == list(range(1, 130, 2))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_channel_statistics_agree_with_numpy(tmp_path: Path) -> None:
    """Mean and deviation over the training rows equal NumPy's in one go."""
    pixels = np.random.default_rng(1).integers(0, 256, (600, 8, 8, 3)).astype(np.uint8)
    found = decode_set(image_set(tmp_path / "set", pixels), None, tmp_path / "cache")
    mean, std = found.channel_statistics("train")
    train = pixels[::2] / 255
    np.testing.assert_allclose(mean, train.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, train.std(axis=(0, 1, 2)), rtol=1e-5)


def test_decoding_at_reduced_size_is_shrinking(tmp_path: Path) -> None:
    """What training sees at a smaller size is what the detector computes from the raw tile."""
    pixels = np.random.default_rng(2).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    found = decode_set(image_set(tmp_path / "set", pixels), 32, tmp_path / "cache")
    expected = shrink(torch.from_numpy(pixels).permute(0, 3, 1, 2), 32).permute(0, 2, 3, 1)
    assert np.array_equal(found.images_NHWC, expected.numpy().astype(np.uint8))


def test_sizes_that_do_not_divide_are_refused() -> None:
    """The error lists the sizes that tiles can be reduced to."""
    with pytest.raises(ValueError, match=r"\[32, 56, 112, 224\]"):
        shrink(torch.zeros(1, 3, 224, 224), 100)


def test_shard_with_a_missing_image_is_refused(tmp_path: Path) -> None:
    """An index that names more images than the shards hold does not train."""
    root = image_set(tmp_path / "set", np.zeros((4, 8, 8, 3), dtype=np.uint8))
    index = root / "tiles.csv"
    index.write_text(index.read_text() + "9.png,00000.tar,1,val,x\n")
    with pytest.raises(InputError, match="5 rows"):
        decode_set(root, None, tmp_path / "cache")


def test_one_decodes_and_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four that ask at the same moment get the same pixels from one decoding; nothing half done is left."""
    pixels = np.random.default_rng(3).integers(0, 256, (300, 8, 8, 3)).astype(np.uint8)
    root = image_set(tmp_path / "set", pixels)
    calls, new_array, together = [], decoded._new_array, Barrier(4)
    monkeypatch.setattr(decoded, "_new_array", lambda *what: (calls.append(what), new_array(*what))[1])

    def ask(number: int) -> DecodedSet:
        together.wait()
        return decode_set(root, 8, tmp_path / "cache")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(calls) == 1
    assert all(np.array_equal(one.images_NHWC, pixels) for one in found)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".npy", ".lock"}


def set_with_targets(root: Path, codes: dict[int, np.ndarray], side: int = 8, num: int = 70) -> Path:
    """Black images with labels 0, 1 and -1 in turn; those of `codes` carry a mask."""
    kinds = [((0, "train"), (1, "val"), (-1, "unlabelled"))[number % 3] for number in range(num)]
    return write_set(root, np.zeros((num, side, side, 3), np.uint8), *zip(*kinds, strict=True), codes).root


def test_targets_are_the_masks_and_elsewhere_what_the_label_says(tmp_path: Path) -> None:
    """Clean without a crack, somewhere with one, unknown without a label; a mask says it pixel by pixel."""
    random = np.random.default_rng(0)
    codes = {n: random.choice(np.array([0, 64, 128, 255], np.uint8), (8, 8)) for n in (1, 2, 4, 66, 67)}
    root = set_with_targets(tmp_path / "set", codes)
    found = decode_set(root, None, tmp_path / "cache", with_targets=True)
    assert found.targets_NHW is not None
    for number, targets in enumerate(found.targets_NHW):
        expected = codes.get(number, np.full((8, 8), (CLEAN, SOMEWHERE, UNKNOWN)[number % 3]))
        assert np.array_equal(targets, expected)
    assert found.rows_of["unlabelled"].tolist() == list(range(2, 70, 3))
    assert decode_set(root, None, tmp_path / "cache").targets_NHW is None


def test_a_thin_crack_survives_a_smaller_size(tmp_path: Path) -> None:
    """Of the pixels that become one the highest code counts: crack before somewhere before unknown before clean."""
    codes = np.zeros((64, 64), np.uint8)
    codes[10, :] = codes[41, 41] = CRACK
    codes[21, 0], codes[20, 2], codes[20, 3] = UNKNOWN, UNKNOWN, SOMEWHERE
    found = decode_set(set_with_targets(tmp_path / "set", {1: codes}, 64, 3), 32, tmp_path / "cache", True)
    assert found.targets_NHW is not None
    expected = np.zeros((32, 32), np.uint8)
    expected[5, :] = expected[20, 20] = CRACK
    expected[10, :2] = UNKNOWN, SOMEWHERE
    assert np.array_equal(found.targets_NHW[1], expected)


def test_a_damaged_mask_is_refused(tmp_path: Path) -> None:
    """It is named by its key, and leaves nothing in the cache that a later call would take."""
    root = set_with_targets(tmp_path / "set", {1: np.zeros((8, 8), np.uint8)})
    path = root / "masks/00000.tar"
    content = bytearray(path.read_bytes())
    content[512 + 20] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"1\.png in masks/00000\.tar"):
        decode_set(root, None, tmp_path / "cache", with_targets=True)
    assert not list((tmp_path / "cache").glob("*targets.npy"))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None])
def test_a_damaged_array_is_decoded_again(tmp_path: Path, content: bytes | None) -> None:
    """Empty, not an array, or cut, as after a loss of power."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    root = image_set(tmp_path / "set", pixels)
    decode_set(root, None, tmp_path / "cache")
    (array,) = (tmp_path / "cache").glob("*.npy")
    array.write_bytes(array.read_bytes()[:200] if content is None else content)
    assert np.array_equal(decode_set(root, None, tmp_path / "cache").images_NHWC, pixels)
