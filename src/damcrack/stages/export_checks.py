"""How far an exported model is from the original: onnxruntime from torch, int8 from float32, on real tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.errors import InputError
from damcrack.images.imageset import ImageSet
from damcrack.math.metrics import auroc
from damcrack.stages.export_onnx import OUTPUTS
from damcrack.stages.run import Run

if TYPE_CHECKING:
    from damcrack.engine.locator import Locator

PARITY_BATCHES = (1, 2, 7)
SCORED_AT_ONCE = 32

Tiles = npt.NDArray[np.uint8]
Scores = dict[str, npt.NDArray[np.float32]]


def compare_with_torch(locator: Locator, encoded: bytes, tiles_NHWC: Tiles, run: Run) -> dict[str, Any]:
    """Compare onnxruntime with torch in float32 on the CPU, at several batch sizes."""
    session = _session(encoded)
    expected = torch_scores(locator, tiles_NHWC)
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


def _differences(found: Scores, expected: Scores) -> dict[str, float]:
    """Largest absolute differences, and the share of tiles with the same verdict."""
    worst = {name: float(np.abs(found[name] - expected[name]).max()) for name in expected}
    same = (found["crack_prob"] > 0.5) == (expected["crack_prob"] > 0.5)
    return {**worst, "same_verdict": float(same.mean())}


def torch_scores(locator: Locator, tiles_NHWC: Tiles) -> Scores:
    """All outputs for tiles (N, H, W, 3) uint8, by torch in float32, by name."""
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


def compare_with_int8(
    float32: bytes, int8: bytes, images: ImageSet, rows: Sequence[int], run: Run
) -> dict[str, Any]:
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


def _session(encoded: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])


def evenly(rows: Sequence[int], num: int) -> list[int]:
    """At most `num` of the rows, evenly over them."""
    return [
        rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, min(num, len(rows))).astype(int))
    ]


def decoded(images: ImageSet, rows: Sequence[int]) -> Tiles:
    """The tiles of some rows of a set, (N, H, W, 3) uint8, in the set's order."""
    wanted = set(rows)
    return np.stack([_decode(row, encoded) for row, encoded in images.encoded() if row in wanted])


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


def _decode(row: int, encoded: bytes) -> Tiles:
    pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise InputError(f"tile of row {row} cannot be decoded; make the set again")
    return pixels.astype(np.uint8, copy=False)
