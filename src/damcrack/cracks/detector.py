"""The exported model behind onnxruntime: checked before use, photos and tiles in, crack maps and probabilities out."""

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.windows import CELL_PX, MULTIPLE_PX, Windows, num_cells, up_to_multiple
from damcrack.files import InputError, read_json, sha256_bytes

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.int64]

CONTRACT = "damcrack"  # key of the ONNX metadata, as `damcrack export` writes it
FORMAT = 3
OUTPUTS = ["crack_prob", "crack_map"]
EXPECTED = {
    "format": FORMAT,
    "inputs": [("tiles", "tensor(uint8)")],
    "shape": [["any", "any", "any", 3]],
    "colour": "RGB",
    "multiple_of": MULTIPLE_PX,
    "map_stride_px": CELL_PX,
    "outputs": OUTPUTS,
}
FILE = "model.onnx"
SHIPPED = Path(__file__).parents[1] / "shipped"  # the detector that comes with the package
BATCH_PX = 2**18  # one window: a larger batch is no faster on one thread, and takes more memory
BLOCKS_AT_ONCE = 256
MIN_PROB = 1e-6  # the logit of 0 and 1 is infinite


class OnnxDetector:
    """One exported model. `tile_px` is the side of its blocks; `contract` what the file says of itself."""

    def __init__(self, session: Any, contract: Mapping[str, Any], sha256: str) -> None:
        self._session = session
        self.contract = contract
        self.sha256 = sha256
        self.tile_px = int(contract["tile_px"])

    @classmethod
    def load(cls, path: Path) -> "OnnxDetector":
        """Load an ONNX file, or the one in a folder that `damcrack export` wrote.

        Raises:
            InputError: no such file, no model of ours, changed since it was exported, or of another contract.
        """
        file = path / FILE if path.is_dir() else path
        try:
            encoded = file.read_bytes()
        except FileNotFoundError as error:
            raise InputError(
                f"no model {file}; give an ONNX file or the folder that `damcrack export` wrote"
            ) from error
        session = _session(encoded, file)
        contract = _contract(session, file)
        sha256 = sha256_bytes(encoded)
        _check_unchanged(file, sha256)
        return cls(session, contract, sha256)

    def score_tiles(self, tiles: Pixels) -> Floats:
        """Crack probabilities (N,) of tiles (N, H, W, 3) that are cut already.

        A tile whose sides are no multiples of 32 is seen with its border reflected; what lies beyond does not count.
        """
        height, width = tiles.shape[1:3]
        seen = [up_to_multiple(length, MULTIPLE_PX) for length in (height, width)]
        beyond = ((0, 0), (0, seen[0] - height), (0, seen[1] - width), (0, 0))
        size = max(1, BATCH_PX // math.prod(seen))
        probs = np.empty(len(tiles), np.float32)
        for start in range(0, len(tiles), size):
            batch = np.pad(tiles[start : start + size], beyond, mode="reflect")
            crack_prob, crack_map = self._session.run(OUTPUTS, {"tiles": batch})
            if seen != [height, width]:
                crack_prob = self._probs(crack_map[:, : num_cells(height), : num_cells(width)])
            probs[start : start + size] = crack_prob
        return probs

    def map_photo(
        self, rgb: Pixels, workers: Executor, scales: Sequence[float] = (1.0,), refine_from: float = 0.0
    ) -> Floats:
        """Probability (ceil(H/2), ceil(W/2)) that 2x2 pixels of a photo (H, W, 3) are crack.

        The photo is seen at every one of `scales`, which are 2 and 1 divided by whole numbers, the smallest first.
        Probabilities at full and at double size are averaged; of that and those at smaller sizes the highest counts.
        A window in which the scales before show less than `refine_from` is left out.
        Only maps of the photo and the windows that the workers look at are in memory.
        """
        size_hw, least = [num_cells(length) for length in rgb.shape[:2]], 0.0
        smaller, full = np.zeros(size_hw, np.float32), np.zeros(size_hw, np.float32)
        for shrink in sorted((1 / scale for scale in set(scales)), reverse=True):
            windows = Windows.of((rgb.shape[0], rgb.shape[1]), shrink)
            highest = np.maximum(smaller, full)
            places = [place for place in windows if highest[windows.cells(*place)].max() >= least]
            del highest
            if shrink > 1:
                np.maximum(smaller, self._map_of_smaller(rgb, workers, windows, places), out=smaller)
            elif shrink == 1:
                self._look(full, rgb, workers, windows, places)
            else:
                double = full.copy()
                self._look(double, rgb, workers, windows, places)
                full = np.float32(0.5) * (full + double)
            least = refine_from
        return np.maximum(smaller, full, out=full)

    def _map_of_smaller(
        self, rgb: Pixels, workers: Executor, windows: Windows, places: Sequence[tuple[int, int]]
    ) -> Floats:
        """What the windows at some places of a smaller photo see, 0 elsewhere: (ceil(H/2), ceil(W/2))."""
        size_hw = [num_cells(side.length_px) for side in (windows.down, windows.across)]
        crack_map = np.zeros(size_hw, np.float32)
        self._look(crack_map, rgb, workers, windows, places)
        large_wh = [round(length * windows.shrink) for length in crack_map.shape[::-1]]
        large = cv2.resize(crack_map, large_wh, interpolation=cv2.INTER_LINEAR)
        return np.asarray(large[: num_cells(rgb.shape[0]), : num_cells(rgb.shape[1])], np.float32)

    def _look(
        self,
        crack_map: Floats,
        rgb: Pixels,
        workers: Executor,
        windows: Windows,
        places: Sequence[tuple[int, int]],
    ) -> None:
        """Write what the windows at some places see into a map."""
        size = max(1, BATCH_PX // math.prod(windows.seen_hw))
        batches = [places[start : start + size] for start in range(0, len(places), size)]
        list(workers.map(partial(self._fill, crack_map, rgb, windows), batches))

    def _fill(
        self, crack_map: Floats, rgb: Pixels, windows: Windows, places: Sequence[tuple[int, int]]
    ) -> None:
        """Write what some windows see into a map, each to its own place; the highest of the values of a cell."""
        batch = np.stack([windows.cut(rgb, top, left) for top, left in places])
        (found,) = self._session.run(["crack_map"], {"tiles": batch})
        num = windows.cell_px // CELL_PX
        height, width = (length // num for length in found.shape[1:])
        found = found.reshape(-1, height, num, width, num).max(axis=(2, 4))
        for (top, left), part in zip(places, found, strict=True):
            (rows, own_rows) = windows.down.own_part(top, windows.cell_px)
            (columns, own_columns) = windows.across.own_part(left, windows.cell_px)
            crack_map[rows, columns] = part[own_rows, own_columns]

    def block_probs(self, crack_map: Floats, boxes_xyxy: Boxes) -> Floats:
        """Calibrated crack probabilities (N,) of blocks (N, 4) of one size, in pixels, from their photo's map."""
        probs = np.empty(len(boxes_xyxy), np.float32)
        for start in range(0, len(boxes_xyxy), BLOCKS_AT_ONCE):
            boxes = boxes_xyxy[start : start + BLOCKS_AT_ONCE]
            height, width = (num_cells(int(boxes[0, axis + 2] - boxes[0, axis])) for axis in (1, 0))
            cells = [
                crack_map[top : top + height, left : left + width]
                for left, top in (boxes[:, :2] // CELL_PX).tolist()
            ]
            probs[start : start + BLOCKS_AT_ONCE] = self._probs(np.stack(cells))
        return probs

    def _probs(self, maps: Floats) -> Floats:
        """Crack probabilities (N,) of maps (N, h, w): the mean of their highest values, calibrated."""
        cells = maps.reshape(len(maps), -1)
        num = max(1, math.floor(self.contract["block_share"] * cells.shape[1]))
        highest = np.partition(cells, cells.shape[1] - num, axis=1)[:, -num:]
        share = np.clip(highest.mean(axis=1, dtype=np.float64), MIN_PROB, 1 - MIN_PROB)
        logit = np.log(share) - np.log1p(-share)
        return np.asarray(1 / (1 + np.exp(-logit / self.contract["calibration"]["temperature"])), np.float32)


def _session(encoded: bytes, file: Path) -> Any:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import (
        Fail,
        InvalidArgument,
        InvalidGraph,
        InvalidProtobuf,
    )

    options = onnxruntime.SessionOptions()
    # Batches run side by side instead: no threads wait for each other inside of one.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(encoded, options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
        raise InputError(f"{file} is not an ONNX model, or is damaged; copy it again") from error


def _contract(session: Any, file: Path) -> Mapping[str, Any]:
    """What the file says of itself, when it fits what it really takes and gives."""
    text = session.get_modelmeta().custom_metadata_map.get(CONTRACT)
    if text is None:
        raise InputError(f"{file} was not written by `damcrack export`: it does not say what it expects")
    try:
        contract: Mapping[str, Any] = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{file} is damaged: what it says of itself cannot be read; export it again"
        ) from error
    given, sizes = contract.get("input") or {}, [list(one.shape) for one in session.get_inputs()]
    found = {
        "format": contract.get("format"),
        "inputs": [(one.name, one.type) for one in session.get_inputs()],
        # Of free height and width: the batch may have any size.
        "shape": [["any", *(one if isinstance(one, int) else "any" for one in size[1:])] for size in sizes],
        "colour": given.get("colour"),
        "multiple_of": given.get("multiple_of"),
        "map_stride_px": contract.get("map_stride_px"),
        "outputs": [name for name in OUTPUTS if name in {one.name for one in session.get_outputs()}],
    }
    for name, expected in EXPECTED.items():
        if found[name] != expected:
            raise InputError(
                f"{file} has the {name} {found[name]}, expected {expected}; export it again with this version"
            )
    return contract


def _check_unchanged(file: Path, sha256: str) -> None:
    """Compare with the model.json beside the file, if there is one.

    Raises:
        InputError: the ONNX file was changed since, or belongs to another export.
    """
    path = file.with_name("model.json")
    expected = read_json(path, "export the model again").get("onnx_sha256") if path.is_file() else sha256
    if sha256 != expected:
        raise InputError(
            f"{file} has sha256 {sha256[:12]}, {path} expects {str(expected)[:12]}; "
            "the file was changed: export it again"
        )
