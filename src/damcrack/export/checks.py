"""How far an exported model is from the original, on real tiles: onnxruntime from torch, half precision from exact."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from damcrack.data.imageset import ImageSet
from damcrack.export.config import PARITY_BATCHES
from damcrack.export.deployed import OUTPUTS, Deployed
from damcrack.files import num_workers
from damcrack.run import Run
from damcrack.train.decoded import decode_image

TORCH_BATCH = 16

Tiles = npt.NDArray[np.uint8]
Scores = dict[str, npt.NDArray[np.float32]]


def compare_with_torch(deployed: Deployed, encoded: bytes, tiles_NHWC: Tiles, run: Run) -> dict[str, Any]:
    """Compare onnxruntime with torch in float32 on the CPU, at several batch sizes."""
    session = _session(encoded)
    expected = torch_scores(deployed, tiles_NHWC)
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


def difference(encoded: bytes, other: bytes, tiles_NHWC: Tiles) -> dict[str, float]:
    """Largest absolute differences between two exported models, and the share of tiles with the same verdict."""
    first, second = (_onnx_scores(_session(one), tiles_NHWC, 1) for one in (encoded, other))
    return _differences(first, second)


def _differences(found: Scores, expected: Scores) -> dict[str, float]:
    worst = {name: float(np.abs(found[name] - expected[name]).max()) for name in expected}
    same = (found["crack_prob"] > 0.5) == (expected["crack_prob"] > 0.5)
    return {**worst, "same_verdict": float(same.mean())}


def torch_scores(deployed: Deployed, tiles_NHWC: Tiles) -> Scores:
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


def evenly(rows: Sequence[int], num: int) -> list[int]:
    """At most `num` of the rows, evenly over them."""
    return [
        rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, min(num, len(rows))).astype(int))
    ]


def decoded(images: ImageSet, rows: Sequence[int]) -> Tiles:
    """The tiles of some rows of a set, (N, H, W, 3) uint8, in the set's order."""
    wanted = set(rows)
    return np.stack([decode_image(row, encoded) for row, encoded in images.encoded() if row in wanted])
