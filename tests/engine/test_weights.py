"""Models and decoded sets on disk."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from damcrack.engine.decoded import decode_set
from damcrack.engine.networks import build_network
from damcrack.engine.resize import shrink
from damcrack.engine.weights import ModelInfo, load_model, save_model, snapshot_of
from damcrack.errors import InputError
from damcrack.images.imageset import ImageSetWriter

INFO = ModelInfo(
    name="tiny",
    network="resnet18",
    classes=("no crack", "crack"),
    image_px=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    data_digest="d",
    init_sha256=None,
    teacher_sha256=None,
    best_epoch=1,
    config={"seed": 0},
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = snapshot_of(build_network("resnet18", 2, 0))
    save_model(tmp_path, INFO, weights, weights)
    return tmp_path


def test_saved_model_loads_as_it_was(model: Path) -> None:
    """Weights, buffers and description come back equal."""
    network, info = load_model(model)
    expected = snapshot_of(build_network("resnet18", 2, 0))
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert (info.name, info.classes, info.image_px, info.mean) == ("tiny", INFO.classes, 32, INFO.mean)


def test_saving_twice_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    """A model folder is a function of its content."""
    again = tmp_path / "again"
    again.mkdir()
    weights = snapshot_of(build_network("resnet18", 2, 0))
    save_model(again, INFO, weights, weights)
    for name in ("model.json", "weights.safetensors", "last.safetensors"):
        assert (again / name).read_bytes() == (model / name).read_bytes()


def test_changed_weights_are_refused(model: Path) -> None:
    """Weights that are not the ones that model.json names do not load."""
    path = model / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="SHA-256"):
        load_model(model)


def test_truncated_weights_are_refused(model: Path) -> None:
    """A file cut short is named as damaged."""
    path = model / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        load_model(model)


def test_pickled_weights_are_refused(model: Path) -> None:
    """A pickle in the place of safetensors is never executed."""
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(1)}, buffer)
    (model / "weights.safetensors").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="damaged"):
        load_model(model)


def test_unknown_format_is_refused(model: Path) -> None:
    """A model of a later version says so."""
    path = model / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(InputError, match="format"):
        load_model(model)


def image_set(root: Path, pixels: np.ndarray) -> Path:
    writer = ImageSetWriter(root)
    for number, image in enumerate(pixels):
        encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        writer.add(f"{number}.png", encoded, label=number % 2, split=("train", "val")[number % 2])
    writer.finish("tiles.csv", ("no crack", "crack"), pixels.shape[1:3])
    return root


def test_decoded_set_holds_each_image_in_its_row(tmp_path: Path) -> None:
    """Pixels, colours, labels and splits land in their rows; a second call maps the same file."""
    pixels = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3)).astype(np.uint8)
    root = image_set(tmp_path / "set", pixels)
    for _ in range(2):
        decoded = decode_set(root, None, tmp_path / "cache")
        assert np.array_equal(decoded.images_NHWC, pixels)
        assert decoded.labels_N.tolist() == [number % 2 for number in range(130)]
        assert decoded.rows_of["val"].tolist() == list(range(1, 130, 2))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_channel_statistics_agree_with_numpy(tmp_path: Path) -> None:
    """Mean and deviation over the training rows equal NumPy's in one go."""
    pixels = np.random.default_rng(1).integers(0, 256, (600, 8, 8, 3)).astype(np.uint8)
    decoded = decode_set(image_set(tmp_path / "set", pixels), None, tmp_path / "cache")
    mean, std = decoded.channel_statistics("train")
    train = pixels[::2] / 255
    np.testing.assert_allclose(mean, train.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, train.std(axis=(0, 1, 2)), rtol=1e-5)


def test_decoding_at_reduced_size_is_shrinking(tmp_path: Path) -> None:
    """What training sees at a smaller size is what the detector computes from the raw tile."""
    pixels = np.random.default_rng(2).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    decoded = decode_set(image_set(tmp_path / "set", pixels), 32, tmp_path / "cache")
    expected = shrink(torch.from_numpy(pixels).permute(0, 3, 1, 2), 32).permute(0, 2, 3, 1)
    assert np.array_equal(decoded.images_NHWC, expected.numpy().astype(np.uint8))


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
