"""Stage `export`: a fine-tuned model with a pixel head becomes one ONNX file, compared with the original.

OUT/model.onnx            tiles (batch, height, width, 3) uint8 RGB to crack_prob (batch,) and crack_map
                          (batch, height / 2, width / 2); its metadata `damcrack` says what it is and expects
OUT/model.json            what it is, what it was made from, inputs and outputs, calibration
OUT/weights.safetensors   the weights that it was made from
OUT/parity.json           how far onnxruntime is from torch on real tiles, and the stored half precision from the exact
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from damcrack.data.imageset import ImageSet, decode_image
from damcrack.export.config import MULTIPLE_OF_PX, PARITY_BATCHES, ExportConfig
from damcrack.export.deployed import (
    BLOCK_SHARE,
    OUTPUTS,
    Deployed,
    in_half_precision,
    to_onnx,
    with_metadata,
)
from damcrack.files import InputError, new_directory, num_workers, sha256_bytes, write_bytes, write_json
from damcrack.run import Run
from damcrack.scores.statistics import T_MIN, fit_temperature, nll
from damcrack.train.pixels import PixelNetwork
from damcrack.train.weights import ModelInfo, load_model

FORMAT = 3
TORCH_BATCH = 16

Tiles = npt.NDArray[np.uint8]
Scores = dict[str, npt.NDArray[np.float32]]


def export(model: Path, tiles: Path, out: Path, config: ExportConfig, run: Run) -> dict[str, object]:
    """Write the model as ONNX if it agrees with torch on tiles of the set; write nothing otherwise.

    Raises:
        InputError: the set is empty, the model was trained on others or has no pixel head, or the two disagree.
    """
    images = ImageSet.open(tiles)
    network, info = load_model(model)
    if not isinstance(network, PixelNetwork):
        raise InputError(
            f"{model} has a tile head only, an inspection needs crack pixels: "
            "export an experiment with pixel_channels"
        )
    if info.data_digest != images.digest:
        raise InputError(
            f"{model} was trained on tiles {info.data_digest[:12]}, {images.root} holds {images.digest[:12]}; "
            "give the tiles that it was trained on"
        )
    scored = images.where("test") or images.where("val") or list(range(len(images)))
    if not scored:
        raise InputError(f"{images.root} holds no tiles; give more photos")
    run.dataset("tiles", images.digest, tiles.name, "test")
    calibration = _fit_calibration(Deployed(network, info).eval(), images, config.calibration_tiles)
    deployed = Deployed(network, info, calibration["temperature"]).eval()
    compared = _decoded(images, _evenly(scored, config.parity_tiles))
    exact = to_onnx(deployed, images.image_hw, config.opset)
    parity = _compare_with_torch(deployed, exact, compared, run)
    _check_parity(parity, config.max_abs_difference)
    contract = _contract(info, config.block_px or images.image_hw[0], calibration)
    stored = with_metadata(in_half_precision(exact), contract)
    halved, whole = (_onnx_scores(_session(one), compared, 1) for one in (stored, exact))
    parity["half_precision"] = _differences(halved, whole)
    with new_directory(out, "export") as folder:
        write_bytes(folder / "model.onnx", stored)
        write_json(folder / "model.json", _description(info, stored, config.opset) | contract)
        write_json(folder / "parity.json", parity)
        shutil.copyfile(model / "weights.safetensors", folder / "weights.safetensors")
    run.metrics({"max_abs_difference": parity["max_abs_difference"]})
    return {
        "model": f"{info.name}: {info.network}, {len(stored) / 2**20:.1f} MiB, opset {config.opset}",
        "largest difference to torch": f"{parity['max_abs_difference']:.2g} of a probability, "
        f"{parity['num_tiles']} tiles in batches of {', '.join(map(str, PARITY_BATCHES))}",
        "stored in half precision": f"moves probabilities by {parity['half_precision']['crack_prob']:.2g} at most",
        "calibration temperature": f"{calibration['temperature']:.3f}",
        "written": out / "model.onnx",
    }


def _fit_calibration(deployed: Deployed, images: ImageSet, num: int) -> dict[str, Any]:
    """Temperature scaling on the validation split (Guo et al. 2017), which leaves every verdict as it is.

    Where all tiles are right, the likeliest is to be certain, and every crack would get probability 1: it stays at 1.
    """
    rows = _evenly(images.where("val"), num)
    if not rows:
        return {"temperature": 1.0, "num_tiles": 0}
    crack_prob = _torch_scores(deployed, _decoded(images, rows))["crack_prob"].astype(np.float64)
    if not np.isfinite(crack_prob).all():
        raise InputError(
            "the model's answers are no numbers, expected probabilities; train it again, with a lower learning_rate"
        )
    logit = np.log(crack_prob) - np.log1p(-crack_prob)
    logits = np.stack([np.zeros_like(logit), logit], axis=1)
    labels = np.array(images.labels)[sorted(rows)]
    temperature = fit_temperature(logits, labels)
    temperature = 1.0 if temperature <= T_MIN else temperature
    return {
        "temperature": temperature,
        "num_tiles": len(rows),
        "nll_before": nll(logits, labels),
        "nll_after": nll(logits, labels, temperature),
    }


def _check_parity(parity: Mapping[str, Any], limit: float) -> None:
    worst = parity["max_abs_difference"]
    if not worst <= limit:  # NaN too is refused
        raise InputError(
            f"the exported model's probabilities differ from torch by {worst:.3g} on {parity['num_tiles']} tiles, "
            f"max_abs_difference is {limit:g}; raise it if that much is harmless, or try another opset"
        )


def _contract(info: ModelInfo, block_px: int, calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What a user of the file must know, inside the file."""
    return {
        "format": FORMAT,
        "name": info.name,
        "network": info.network,
        "classes": list(info.classes),
        "tile_px": block_px,
        "data_digest": info.data_digest,
        "weights_sha256": info.weights_sha256,
        "calibration": dict(calibration),
        "block_share": BLOCK_SHARE,
        "map_stride_px": 2,
        "input": {
            "name": "tiles",
            "dtype": "uint8",
            "shape": ["batch", "height", "width", 3],
            "colour": "RGB",
            "multiple_of": MULTIPLE_OF_PX,
        },
        "outputs": [
            {"name": "crack_prob", "dtype": "float32", "shape": ["batch"]},
            {"name": "crack_map", "dtype": "float32", "shape": ["batch", "height / 2", "width / 2"]},
        ],
    }


def _description(info: ModelInfo, stored: bytes, opset: int) -> dict[str, Any]:
    return {
        "mean": list(info.mean),
        "std": list(info.std),
        "pixel_channels": info.pixel_channels,
        "best_epoch": info.best_epoch,
        "parents": {"init_sha256": info.init_sha256, "teacher_sha256": info.teacher_sha256},
        "onnx_sha256": sha256_bytes(stored),
        "opset": opset,
    }


def _compare_with_torch(deployed: Deployed, encoded: bytes, tiles_NHWC: Tiles, run: Run) -> dict[str, Any]:
    """Compare onnxruntime with torch in float32 on the CPU, at several batch sizes."""
    session = _session(encoded)
    expected = _torch_scores(deployed, tiles_NHWC)
    differences = {
        size: _differences(_onnx_scores(session, tiles_NHWC, size), expected)
        for size in run.track(PARITY_BATCHES, "comparing with torch", len(PARITY_BATCHES))
    }
    return {
        "num_tiles": len(tiles_NHWC),
        "batch_sizes": list(PARITY_BATCHES),
        "max_abs_difference": max(row[name] for row in differences.values() for name in OUTPUTS),
        "same_verdict": min(row["same_verdict"] for row in differences.values()),
        "by_batch_size": {str(size): row for size, row in differences.items()},
    }


def _differences(found: Scores, expected: Scores) -> dict[str, float]:
    """Largest difference of each output, and the share of tiles with the same verdict."""
    worst = {name: float(np.abs(found[name] - expected[name]).max()) for name in expected}
    same = (found["crack_prob"] > 0.5) == (expected["crack_prob"] > 0.5)
    return {**worst, "same_verdict": float(same.mean())}


def _torch_scores(deployed: Deployed, tiles_NHWC: Tiles) -> Scores:
    """All outputs for tiles (N, H, W, 3) uint8, by torch in float32, by name."""
    with torch.inference_mode():
        batches = [deployed(batch) for batch in torch.split(torch.from_numpy(tiles_NHWC), TORCH_BATCH)]
    return {
        name: torch.cat(parts).numpy()
        for name, parts in zip(OUTPUTS, zip(*batches, strict=True), strict=True)
    }


def _onnx_scores(session: Any, tiles_NHWC: Tiles, batch_size: int) -> Scores:
    starts = range(0, len(tiles_NHWC), batch_size)
    scored = [session.run(OUTPUTS, {"tiles": tiles_NHWC[start : start + batch_size]}) for start in starts]
    return {name: np.concatenate([row[place] for row in scored]) for place, name in enumerate(OUTPUTS)}


def _session(encoded: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    # By itself it starts a thread for each core of the machine, also where this process may use fewer, and they spin.
    options.intra_op_num_threads = num_workers()
    return onnxruntime.InferenceSession(encoded, options, providers=["CPUExecutionProvider"])


def _evenly(rows: Sequence[int], num: int) -> list[int]:
    """At most `num` of the rows, evenly over them."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(num, len(rows))).astype(int))
    return [rows[place] for place in places]


def _decoded(images: ImageSet, rows: Sequence[int]) -> Tiles:
    """The tiles of some rows of a set, (N, H, W, 3) uint8, in the set's order."""
    wanted = set(rows)
    return np.stack([decode_image(row, encoded) for row, encoded in images.encoded() if row in wanted])
