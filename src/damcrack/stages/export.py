"""Stage `export`: a fine-tuned model becomes one ONNX file that takes raw tiles, compared with the original.

OUT/model.onnx            tiles (batch, side, side, 3) uint8 RGB to crack_prob (batch,), logits (batch, 2)
OUT/model.json            what it is, what it was made from, its inputs and outputs
OUT/weights.safetensors   the weights that it was made from
OUT/parity.json           how far onnxruntime is from torch on real tiles
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.errors import InputError
from damcrack.images.imageset import ImageSet
from damcrack.outputs import new_directory, sha256_bytes, write_bytes, write_json
from damcrack.stages.run import Run

if TYPE_CHECKING:
    from onnx import ModelProto

    from damcrack.engine.detector import Detector
    from damcrack.engine.weights import ModelInfo

FORMAT = 1
PARITY_BATCHES = (1, 2, 7)

Tiles = npt.NDArray[np.uint8]
Scores = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class ExportConfig:
    """Section `export` of params.yaml.

    `experiment` is the fine-tuned model to export; `max_abs_difference` is between the logits of onnxruntime
    and of torch.
    """

    experiment: str
    opset: int
    parity_tiles: int
    max_abs_difference: float

    def __post_init__(self) -> None:
        if not 18 <= self.opset <= 23:
            raise ValueError(f"opset: {self.opset}; expected 18 to 23")
        if self.parity_tiles < max(PARITY_BATCHES):
            raise ValueError(f"parity_tiles: {self.parity_tiles}; expected {max(PARITY_BATCHES)} or more")
        if not self.max_abs_difference > 0:
            raise ValueError(f"max_abs_difference: {self.max_abs_difference}; expected more than 0")


def export(model: Path, tiles: Path, out: Path, config: ExportConfig, run: Run) -> dict[str, object]:
    """Write the model as ONNX if it agrees with torch on tiles of the set; write nothing otherwise.

    Raises:
        InputError: the set is empty, the model was trained on others, or the two disagree.
    """
    from damcrack.engine.detector import Detector
    from damcrack.engine.weights import load_model

    images = ImageSet.open(tiles)
    network, info = load_model(model)
    if info.data_digest != images.digest:
        raise InputError(
            f"{model} was trained on tiles {info.data_digest[:12]}, {tiles} holds {images.digest[:12]}; "
            "give the tiles that it was trained on"
        )
    detector = Detector(network, info).eval()
    tiles_NHWC = _parity_tiles(images, config.parity_tiles)
    run.dataset("tiles", images.digest, tiles.name, "test")
    encoded = to_onnx(detector, images.image_hw, config.opset)
    parity = _parity(detector, encoded, tiles_NHWC, run)
    _check_parity(parity, config.max_abs_difference)
    with new_directory(out) as folder:
        write_bytes(folder / "model.onnx", encoded)
        write_json(folder / "model.json", _description(info, images, encoded, config.opset))
        write_json(folder / "parity.json", parity)
        shutil.copyfile(model / "weights.safetensors", folder / "weights.safetensors")
    run.metrics({"max_abs_difference": parity["max_abs_difference_logits"]})
    return {
        "model": f"{info.name}: {info.network}, {len(encoded) / 2**20:.1f} MiB, opset {config.opset}",
        "largest difference to torch": f"{parity['max_abs_difference_logits']:.2g} (logits)",
        "checked on": f"{parity['num_tiles']} tiles, in batches of {', '.join(map(str, PARITY_BATCHES))}",
        "written": out / "model.onnx",
    }


def _parity_tiles(images: ImageSet, num: int) -> Tiles:
    """Decode `num` tiles, evenly over the test split, or over validation if there is none."""
    rows = images.where("test") or images.where("val") or list(range(len(images)))
    if not rows:
        raise InputError(f"{images.root} holds no tiles; give more photos")
    chosen = {rows[place] for place in np.linspace(0, len(rows) - 1, min(num, len(rows))).astype(int)}
    return np.stack([_decode(row, encoded) for row, encoded in images.encoded() if row in chosen])


def _decode(row: int, encoded: bytes) -> Tiles:
    pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise InputError(f"tile of row {row} cannot be decoded; make the set again")
    return pixels.astype(np.uint8, copy=False)


def to_onnx(detector: Detector, tile_hw: tuple[int, int], opset: int) -> bytes:
    """Convert to ONNX in float32 with a free batch size.

    The bytes depend on the weights, the opset and the versions of the libraries alone.
    """
    import onnx
    import torch

    example = torch.zeros(2, *tile_hw, 3, dtype=torch.uint8)
    with redirect_stdout(StringIO()):  # it praises itself in the middle of our summary
        program = torch.onnx.export(
            detector,
            (example,),
            dynamo=True,
            input_names=["tiles"],
            output_names=["crack_prob", "logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    encoded: bytes = proto.SerializeToString(deterministic=True)
    return encoded


def _strip(model: ModelProto) -> None:
    """Remove stack traces and other notes of the exporter: they hold paths of the machine."""
    model.producer_version = model.producer_version.partition("+")[0]  # not which build of torch
    graph = model.graph
    parts: Iterable[Any] = (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *graph.value_info,
    )
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _parity(detector: Detector, encoded: bytes, tiles_NHWC: Tiles, run: Run) -> dict[str, Any]:
    """Compare onnxruntime with torch in float32 on the CPU, at several batch sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    expected = _torch_scores(detector, tiles_NHWC)
    differences = {
        size: _differences(_onnx_scores(session, tiles_NHWC, size), expected)
        for size in run.track(PARITY_BATCHES, "comparing with torch", len(PARITY_BATCHES))
    }
    return {
        "num_tiles": len(tiles_NHWC),
        "batch_sizes": list(PARITY_BATCHES),
        "max_abs_difference_logits": max(row["logits"] for row in differences.values()),
        "max_abs_difference_crack_prob": max(row["crack_prob"] for row in differences.values()),
        "same_verdict": min(row["same_verdict"] for row in differences.values()),
        "by_batch_size": {str(size): row for size, row in differences.items()},
    }


def _torch_scores(detector: Detector, tiles_NHWC: Tiles) -> Scores:
    import torch

    with torch.inference_mode():
        batches = [detector(batch) for batch in torch.split(torch.from_numpy(tiles_NHWC), 64)]
    crack_prob, logits = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    return {"crack_prob": crack_prob, "logits": logits}


def _onnx_scores(session: Any, tiles_NHWC: Tiles, batch_size: int) -> Scores:
    starts = range(0, len(tiles_NHWC), batch_size)
    names = ["crack_prob", "logits"]
    scored = [session.run(names, {"tiles": tiles_NHWC[start : start + batch_size]}) for start in starts]
    return {name: np.concatenate([row[place] for row in scored]) for place, name in enumerate(names)}


def _differences(found: Scores, expected: Scores) -> dict[str, float]:
    """Largest absolute differences, and the share of tiles with the same verdict."""
    worst = {name: float(np.abs(found[name] - expected[name]).max()) for name in expected}
    same = (found["crack_prob"] > 0.5) == (expected["crack_prob"] > 0.5)
    return {**worst, "same_verdict": float(same.mean())}


def _check_parity(parity: Mapping[str, Any], limit: float) -> None:
    worst = parity["max_abs_difference_logits"]
    if not worst <= limit:  # NaN too is refused
        raise InputError(
            f"the exported model's logits differ from torch by {worst:.3g} on {parity['num_tiles']} tiles, "
            f"max_abs_difference is {limit:g}; raise it if that much is harmless, or try another opset"
        )


def _description(info: ModelInfo, images: ImageSet, encoded: bytes, opset: int) -> dict[str, Any]:
    height_px, width_px = images.image_hw
    return {
        "format": FORMAT,
        "name": info.name,
        "network": info.network,
        "classes": list(info.classes),
        "image_px": info.image_px,
        "mean": list(info.mean),
        "std": list(info.std),
        "best_epoch": info.best_epoch,
        "data_digest": info.data_digest,
        "weights_sha256": info.weights_sha256,
        "parents": {"init_sha256": info.init_sha256, "teacher_sha256": info.teacher_sha256},
        "onnx_sha256": sha256_bytes(encoded),
        "opset": opset,
        "input": {
            "name": "tiles",
            "dtype": "uint8",
            "shape": ["batch", height_px, width_px, 3],
            "colour": "RGB",
        },
        "outputs": [
            {"name": "crack_prob", "dtype": "float32", "shape": ["batch"]},
            {"name": "logits", "dtype": "float32", "shape": ["batch", len(info.classes)]},
        ],
    }
