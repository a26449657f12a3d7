"""Trained networks on disk: safetensors and a small json; nothing here is ever unpickled.

MODEL/model.json            what it is, what it was made from, digests
MODEL/weights.safetensors   weights of the best epoch
MODEL/last.safetensors      weights of the last epoch
MODEL/history.csv           one row per epoch
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from damcrack.files import InputError, read_json, sha256_file, write_bytes, write_json
from damcrack.train.networks import build_network

FORMAT = 1


@dataclass(frozen=True)
class ModelInfo:
    """What a network needs to be used, and which content made it (SHA-256 of weights and data index).

    `pixel_channels` is the width of its pixel head, None without one.
    """

    name: str
    network: str
    classes: tuple[str, ...]
    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_digest: str
    init_sha256: str | None
    teacher_sha256: str | None
    best_epoch: int
    config: dict[str, Any]
    weights_sha256: str = ""
    pixel_channels: int | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `model.json`.

        Raises:
            InputError: it is missing or of another format.
        """
        path = folder / "model.json"
        values = read_json(path, "run the stage that makes this model")
        if (found := values.pop("format", None)) != FORMAT:
            raise InputError(
                f"{path} is of format {found}, expected {FORMAT} of a training; give its folder, or train it again"
            )
        try:
            return cls(**values | {name: tuple(values[name]) for name in ("classes", "mean", "std")})
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error!r}); train the model again") from error

    def as_json(self) -> dict[str, Any]:
        """What `read` takes."""
        return {"format": FORMAT, **asdict(self)}


def save_model(
    folder: Path, info: ModelInfo, best: Mapping[str, Tensor], last: Mapping[str, Tensor]
) -> ModelInfo:
    """Write both sets of weights and `model.json` into `folder`; return the info with its weights' hash."""
    save_tensors(folder / "weights.safetensors", best)
    save_tensors(folder / "last.safetensors", last)
    complete = replace(info, weights_sha256=sha256_file(folder / "weights.safetensors"))
    write_json(folder / "model.json", complete.as_json())
    return complete


def load_model(folder: Path) -> tuple[nn.Module, ModelInfo]:
    """Load the best weights on the CPU, in evaluation mode.

    Raises:
        InputError: files are missing, damaged, or not the ones that `model.json` names.
    """
    info = ModelInfo.read(folder)
    path = folder / "weights.safetensors"
    tensors = load_tensors(path)
    if sha256_file(path) != info.weights_sha256:
        raise InputError(f"{path} is not the file that model.json names (SHA-256 differs); train it again")
    network = build_network(info.network, len(info.classes), seed=0, pixel_channels=info.pixel_channels)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"{path} does not fit the {info.network} of this version; train the model again"
        ) from error
    return network.eval(), info


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors; the same tensors give the same bytes."""
    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    # safetensors' own writing does not tell a full disk from other faults.
    write_bytes(path, save(plain, metadata))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors onto the CPU.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; run the stage that makes it") from error
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); run the stage that makes it again") from error


def snapshot_of(module: nn.Module) -> dict[str, Tensor]:
    """Copy a module's weights and buffers to the CPU."""
    with torch.no_grad():
        return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
