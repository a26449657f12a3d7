"""Pack a trained and exported detector into the package: python -m experiments.detector.

src/damcrack/shipped/model.onnx, model.json, CARD.md    what `damcrack inspect` uses where no model is named
src/damcrack/shipped/training/                          its weights in half precision, to teach or to go on from
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from damcrack.cracks.detector import SHIPPED
from damcrack.files import OUTPUT_MARKER, new_directory, sha256_file, write_json
from damcrack.train.weights import ModelInfo, load_model, save_tensors

HERE = Path(__file__).parent
MODEL, EXPORT = HERE / "models" / "detector", HERE / "results" / "export"


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, those of float32 in half precision."""
    return {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}


def write_training_weights(folder: Path, model: Path) -> None:
    """Write a model folder with the best weights in half precision."""
    network, info = load_model(model)
    folder.mkdir()
    save_tensors(folder / "weights.safetensors", halved(network.state_dict()))
    stored = replace(info, name="shipped", weights_sha256=sha256_file(folder / "weights.safetensors"))
    write_json(folder / "model.json", stored.as_json())


def main() -> None:
    """Put the files in their place."""
    card = (HERE / "CARD.md").read_text()
    description = json.loads((EXPORT / "model.json").read_text())
    info = ModelInfo.read(MODEL)
    assert description["weights_sha256"] == info.weights_sha256, "export again: the model was trained since"
    shutil.rmtree(SHIPPED)  # under version control
    with new_directory(SHIPPED) as folder:
        for name in ("model.onnx", "model.json"):
            shutil.copyfile(EXPORT / name, folder / name)
        write_training_weights(folder / "training", MODEL)
        (folder / "CARD.md").write_text(card)
    (SHIPPED / OUTPUT_MARKER).unlink()
    total = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    print(f"{SHIPPED}: {total / 1e6:.1f} MB, model.onnx sha256 {description['onnx_sha256']}")


if __name__ == "__main__":
    main()
