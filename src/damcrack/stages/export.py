"""Stage `export`: a fine-tuned model becomes ONNX files that take raw tiles, compared with the original.

OUT/model.onnx            tiles (batch, side, side, 3) uint8 RGB to crack_prob (batch,), logits (batch, 2) and
                          crack_map (batch, h, w); its metadata `damcrack` says what it is and expects
OUT/model-int8.onnx       the same in int8, for small machines
OUT/model.json            what they are, what they were made from, inputs and outputs, calibration, accuracy
OUT/weights.safetensors   the weights that they were made from
OUT/parity.json           how far onnxruntime is from torch, and int8 from float32, on real tiles
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from damcrack.errors import InputError
from damcrack.images.imageset import ImageSet
from damcrack.math.statistics import fit_temperature, nll
from damcrack.outputs import new_directory, sha256_bytes, write_bytes, write_json
from damcrack.stages.export_checks import (
    PARITY_BATCHES,
    compare_with_int8,
    compare_with_torch,
    decoded,
    evenly,
    torch_scores,
)
from damcrack.stages.export_onnx import to_onnx, with_metadata
from damcrack.stages.run import Run

if TYPE_CHECKING:
    from damcrack.engine.locator import Locator
    from damcrack.engine.weights import ModelInfo

FORMAT = 2


@dataclass(frozen=True)
class ExportConfig:
    """Section `export` of params.yaml.

    `experiment` is the fine-tuned model to export; `max_abs_difference` is between the logits of onnxruntime
    and of torch. `calibration_tiles` of the training split give int8 its scales, and as many of the validation
    split the temperature that calibrates the probabilities. `image_px` is how large a tile is seen, None: as in
    training. Larger than that, thin cracks look as broad as those that it was trained on (Touvron et al. 2019).
    """

    experiment: str
    opset: int
    parity_tiles: int
    max_abs_difference: float
    calibration_tiles: int
    image_px: int | None = None

    def __post_init__(self) -> None:
        if not 18 <= self.opset <= 23:
            raise ValueError(f"opset: {self.opset}; expected 18 to 23")
        if self.parity_tiles < max(PARITY_BATCHES):
            raise ValueError(f"parity_tiles: {self.parity_tiles}; expected {max(PARITY_BATCHES)} or more")
        if not self.max_abs_difference > 0:
            raise ValueError(f"max_abs_difference: {self.max_abs_difference}; expected more than 0")
        if self.calibration_tiles < 1:
            raise ValueError(f"calibration_tiles: {self.calibration_tiles}; expected 1 or more")
        if self.image_px is not None and self.image_px < 32:
            raise ValueError(f"image_px: {self.image_px}; expected 32 or more, or null")


def export(model: Path, tiles: Path, out: Path, config: ExportConfig, run: Run) -> dict[str, object]:
    """Write the model as ONNX if it agrees with torch on tiles of the set; write nothing otherwise.

    Raises:
        InputError: the set is empty, the model was trained on others, or the two disagree.
    """
    from damcrack.engine.locator import Locator
    from damcrack.engine.weights import load_model

    images = ImageSet.open(tiles)
    network, info = load_model(model)
    if info.data_digest != images.digest:
        raise InputError(
            f"{model} was trained on tiles {info.data_digest[:12]}, {tiles} holds {images.digest[:12]}; "
            "give the tiles that it was trained on"
        )
    info = replace(info, image_px=_seen_px(config.image_px or info.image_px, images.image_hw))
    scored = images.where("test") or images.where("val") or list(range(len(images)))
    if not scored:
        raise InputError(f"{images.root} holds no tiles; give more photos")
    run.dataset("tiles", images.digest, tiles.name, "test")
    calibration = _fit_calibration(Locator(network, info).eval(), images, config.calibration_tiles)
    locator = Locator(network, info, calibration["temperature"]).eval()
    contract = _contract(info, images, calibration)
    float32 = with_metadata(to_onnx(locator, images.image_hw, config.opset), contract)
    parity = compare_with_torch(locator, float32, decoded(images, evenly(scored, config.parity_tiles)), run)
    _check_parity(parity, config.max_abs_difference)
    int8 = _to_int8(float32, images, config.calibration_tiles, contract)
    accuracy = compare_with_int8(float32, int8, images, scored, run)
    description = _description(info, float32, int8, config.opset) | contract | {"accuracy": accuracy}
    with new_directory(out) as folder:
        write_bytes(folder / "model.onnx", float32)
        write_bytes(folder / "model-int8.onnx", int8)
        write_json(folder / "model.json", description)
        write_json(folder / "parity.json", parity | {"int8": accuracy})
        shutil.copyfile(model / "weights.safetensors", folder / "weights.safetensors")
    run.metrics(
        {
            "max_abs_difference": parity["max_abs_difference_logits"],
            "int8_accuracy_lost": accuracy["float32"]["accuracy"] - accuracy["int8"]["accuracy"],
        }
    )
    return {
        "model": f"{info.name}: {info.network}, {_mib(float32)}, opset {config.opset}; int8: {_mib(int8)}",
        "largest difference to torch": f"{parity['max_abs_difference_logits']:.2g} (logits), "
        f"{parity['num_tiles']} tiles in batches of {', '.join(map(str, PARITY_BATCHES))}",
        "accuracy": f"float32 {accuracy['float32']['accuracy']:.2%}, int8 {accuracy['int8']['accuracy']:.2%} "
        f"on {accuracy['num_tiles']} tiles; the same verdict on {accuracy['same_verdict']:.2%}",
        "written": out / "model.onnx",
    }


def _seen_px(image_px: int, tile_hw: tuple[int, int]) -> int:
    if any(side % image_px for side in tile_hw):
        raise InputError(
            f"export.image_px: {image_px} does not divide the tiles' side, {tile_hw[0]}; set one that does"
        )
    return image_px


def _mib(encoded: bytes) -> str:
    return f"{len(encoded) / 2**20:.1f} MiB"


def _fit_calibration(locator: Locator, images: ImageSet, num: int) -> dict[str, Any]:
    """Temperature scaling on the validation split (Guo et al. 2017), which leaves every verdict as it is."""
    rows = evenly(images.where("val"), num)
    if not rows:
        return {"temperature": 1.0, "num_tiles": 0}
    logits = torch_scores(locator, decoded(images, rows))["logits"].astype(np.float64)
    labels = np.array(images.labels)[rows]
    temperature = fit_temperature(logits, labels)
    return {
        "temperature": temperature,
        "num_tiles": len(rows),
        "nll_before": nll(logits, labels),
        "nll_after": nll(logits, labels, temperature),
    }


def _to_int8(float32: bytes, images: ImageSet, num: int, contract: Mapping[str, Any]) -> bytes:
    from damcrack.stages.export_int8 import to_int8

    rows = evenly(images.where("train") or list(range(len(images))), num)
    return with_metadata(to_int8(float32, decoded(images, rows)), contract)


def _check_parity(parity: Mapping[str, Any], limit: float) -> None:
    worst = parity["max_abs_difference_logits"]
    if not worst <= limit:  # NaN too is refused
        raise InputError(
            f"the exported model's logits differ from torch by {worst:.3g} on {parity['num_tiles']} tiles, "
            f"max_abs_difference is {limit:g}; raise it if that much is harmless, or try another opset"
        )


def _contract(info: ModelInfo, images: ImageSet, calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What a user of the file must know, inside the file."""
    height_px, width_px = images.image_hw
    return {
        "format": FORMAT,
        "name": info.name,
        "network": info.network,
        "classes": list(info.classes),
        "image_px": info.image_px,
        "data_digest": info.data_digest,
        "weights_sha256": info.weights_sha256,
        "calibration": dict(calibration),
        "input": {
            "name": "tiles",
            "dtype": "uint8",
            "shape": ["batch", height_px, width_px, 3],
            "colour": "RGB",
        },
        "outputs": [
            {"name": "crack_prob", "dtype": "float32", "shape": ["batch"]},
            {"name": "logits", "dtype": "float32", "shape": ["batch", len(info.classes)]},
            {"name": "crack_map", "dtype": "float32", "shape": ["batch", "rows", "columns"]},
        ],
    }


def _description(info: ModelInfo, float32: bytes, int8: bytes, opset: int) -> dict[str, Any]:
    return {
        "mean": list(info.mean),
        "std": list(info.std),
        "best_epoch": info.best_epoch,
        "parents": {"init_sha256": info.init_sha256, "teacher_sha256": info.teacher_sha256},
        "onnx_sha256": sha256_bytes(float32),
        "int8_sha256": sha256_bytes(int8),
        "opset": opset,
    }
