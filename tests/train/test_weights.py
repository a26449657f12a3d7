"""Models on disk."""

import io
import json
from pathlib import Path

import pytest
import torch

from damcrack.files import InputError
from damcrack.train.weights import ModelInfo, load_model, save_model, snapshot_of
from trainings import small_network

INFO = ModelInfo(
    name="tiny",
    network="small",
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

LAST = {"fc.bias": torch.tensor([0.5, -0.5])}  # the weights of the last epoch, which nothing here loads


@pytest.fixture
def model(tmp_path: Path, small: None) -> Path:
    save_model(tmp_path, INFO, snapshot_of(small_network()), LAST)
    return tmp_path


def test_saved_model_loads_as_it_was(model: Path) -> None:
    """Weights, buffers and description come back equal."""
    network, info = load_model(model)
    expected = snapshot_of(small_network())
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert (info.name, info.classes, info.image_px, info.mean) == ("tiny", INFO.classes, 32, INFO.mean)


def test_saving_twice_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    """A model folder is a function of its content."""
    again = tmp_path / "again"
    again.mkdir()
    save_model(again, INFO, snapshot_of(small_network()), LAST)
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


def test_weights_of_another_version_s_network_are_refused(model: Path) -> None:
    """They are whole, and have other names."""
    renamed = {f"body.{name}": value for name, value in snapshot_of(small_network()).items()}
    save_model(model, INFO, renamed, LAST)
    with pytest.raises(InputError, match="does not fit the small"):
        load_model(model)


def test_unknown_format_is_refused(model: Path) -> None:
    """A model of a later version says so."""
    path = model / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(InputError, match="format"):
        load_model(model)
