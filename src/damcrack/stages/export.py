"""Stage `export`: a fine-tuned model becomes ONNX files that take raw tiles, compared with the original.

OUT/model.onnx            tiles (batch, side, side, 3) uint8 RGB to crack_prob (batch,), logits (batch, 2) and
                          crack_map (batch, h, w); its metadata `damcrack` says what it is and expects
OUT/model-int8.onnx       the same in int8, for small machines
OUT/model.json            what they are, what they were made from, inputs and outputs, calibration, accuracy
OUT/weights.safetensors   the weights that they were made from
OUT/parity.json           how far onnxruntime is from torch, and int8 from float32, on real tiles
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.errors import InputError
from damcrack.images.imageset import ImageSet
from damcrack.math.metrics import auroc
from damcrack.math.statistics import fit_temperature, nll
from damcrack.outputs import new_directory, sha256_bytes, write_bytes, write_json
from damcrack.stages.run import Run

if TYPE_CHECKING:
    from onnx import ModelProto

    from damcrack.engine.locator import Locator
    from damcrack.engine.weights import ModelInfo

FORMAT = 2
CONTRACT = "damcrack"  # key of the ONNX metadata
PARITY_BATCHES = (1, 2, 7)
SCORED_AT_ONCE = 32
OUTPUTS = ["crack_prob", "logits", "crack_map"]

Tiles = npt.NDArray[np.uint8]
Scores = dict[str, npt.NDArray[np.float32]]


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
    parity = _parity(locator, float32, _decoded(images, _evenly(scored, config.parity_tiles)), run)
    _check_parity(parity, config.max_abs_difference)
    int8 = _to_int8(float32, images, config.calibration_tiles, contract)
    accuracy = _accuracy(float32, int8, images, scored, run)
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


def _evenly(rows: Sequence[int], num: int) -> list[int]:
    """At most `num` of the rows, evenly over them."""
    return [
        rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, min(num, len(rows))).astype(int))
    ]


def _decoded(images: ImageSet, rows: Sequence[int]) -> Tiles:
    wanted = set(rows)
    return np.stack([_decode(row, encoded) for row, encoded in images.encoded() if row in wanted])


def _decode(row: int, encoded: bytes) -> Tiles:
    pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise InputError(f"tile of row {row} cannot be decoded; make the set again")
    return pixels.astype(np.uint8, copy=False)


def _fit_calibration(locator: Locator, images: ImageSet, num: int) -> dict[str, Any]:
    """Temperature scaling on the validation split (Guo et al. 2017), which leaves every verdict as it is."""
    rows = _evenly(images.where("val"), num)
    if not rows:
        return {"temperature": 1.0, "num_tiles": 0}
    logits = _torch_scores(locator, _decoded(images, rows))["logits"].astype(np.float64)
    labels = np.array(images.labels)[rows]
    temperature = fit_temperature(logits, labels)
    return {
        "temperature": temperature,
        "num_tiles": len(rows),
        "nll_before": nll(logits, labels),
        "nll_after": nll(logits, labels, temperature),
    }


def _to_int8(float32: bytes, images: ImageSet, num: int, contract: Mapping[str, Any]) -> bytes:
    from damcrack.stages.int8 import to_int8

    rows = _evenly(images.where("train") or list(range(len(images))), num)
    return with_metadata(to_int8(float32, _decoded(images, rows)), contract)


def _accuracy(float32: bytes, int8: bytes, images: ImageSet, rows: Sequence[int], run: Run) -> dict[str, Any]:
    """What is lost in int8, on all tiles of the scored split."""
    sessions = {"float32": _session(float32), "int8": _session(int8)}
    order, probs = [], {name: list[npt.NDArray[np.float32]]() for name in sessions}
    for batch_rows, batch in run.track(
        _batches(images, rows), "float32 and int8", -(-len(rows) // SCORED_AT_ONCE)
    ):
        order += batch_rows
        for name, session in sessions.items():
            probs[name].append(session.run(["crack_prob"], {"tiles": batch})[0])
    labels = np.array(images.labels)[order]
    scored = {name: np.concatenate(parts) for name, parts in probs.items()}
    verdicts = {name: values > 0.5 for name, values in scored.items()}
    return {
        "split": images.rows[rows[0]]["split"],
        "num_tiles": len(rows),
        **{
            name: {
                "accuracy": float((verdicts[name] == labels).mean()),
                "auroc": _or_none(auroc(labels, scored[name].astype(np.float64))),
            }
            for name in sessions
        },
        "same_verdict": float((verdicts["float32"] == verdicts["int8"]).mean()),
        "mean_abs_difference_crack_prob": float(np.abs(scored["float32"] - scored["int8"]).mean()),
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def _batches(images: ImageSet, rows: Sequence[int]) -> Iterator[tuple[list[int], Tiles]]:
    wanted, waiting = set(rows), list[tuple[int, Tiles]]()
    for row, encoded in images.encoded():
        if row in wanted:
            waiting.append((row, _decode(row, encoded)))
        if len(waiting) == SCORED_AT_ONCE:
            yield [number for number, _ in waiting], np.stack([tile for _, tile in waiting])
            waiting = []
    if waiting:
        yield [number for number, _ in waiting], np.stack([tile for _, tile in waiting])


def with_metadata(encoded: bytes, contract: Mapping[str, Any]) -> bytes:
    """The same model with the contract in its metadata, so that one file is enough to use it rightly."""
    import onnx

    proto = onnx.load_from_string(encoded)
    _strip(proto)
    proto.metadata_props.add(key=CONTRACT, value=json.dumps(contract, sort_keys=True))
    written: bytes = proto.SerializeToString(deterministic=True)
    return written


def to_onnx(locator: Locator, tile_hw: tuple[int, int], opset: int) -> bytes:
    """Convert to ONNX in float32 with a free batch size.

    The bytes depend on the weights, the opset and the versions of the libraries alone.
    """
    import onnx
    import torch

    example = torch.zeros(2, *tile_hw, 3, dtype=torch.uint8)
    with redirect_stdout(StringIO()):  # it praises itself in the middle of our summary
        program = torch.onnx.export(
            locator,
            (example,),
            dynamo=True,
            input_names=["tiles"],
            output_names=OUTPUTS,
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


def _parity(locator: Locator, encoded: bytes, tiles_NHWC: Tiles, run: Run) -> dict[str, Any]:
    """Compare onnxruntime with torch in float32 on the CPU, at several batch sizes."""
    session = _session(encoded)
    expected = _torch_scores(locator, tiles_NHWC)
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


def _session(encoded: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])


def _torch_scores(locator: Locator, tiles_NHWC: Tiles) -> Scores:
    import torch

    with torch.inference_mode():
        batches = [locator(batch) for batch in torch.split(torch.from_numpy(tiles_NHWC), 64)]
    return {
        name: torch.cat(parts).numpy()
        for name, parts in zip(OUTPUTS, zip(*batches, strict=True), strict=True)
    }


def _onnx_scores(session: Any, tiles_NHWC: Tiles, batch_size: int) -> Scores:
    starts = range(0, len(tiles_NHWC), batch_size)
    scored = [session.run(OUTPUTS, {"tiles": tiles_NHWC[start : start + batch_size]}) for start in starts]
    return {name: np.concatenate([row[place] for row in scored]) for place, name in enumerate(OUTPUTS)}


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
