"""The exported model behind onnxruntime: checked before use, tiles in, probabilities and maps out."""

import json
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from damcrack.errors import InputError
from damcrack.outputs import sha256_bytes

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.int64]
Precision = Literal["int8", "float32"]

CONTRACT = "damcrack"  # key of the ONNX metadata, as `damcrack export` writes it
FORMAT = 2
FILES = {"int8": "model-int8.onnx", "float32": "model.onnx"}
BATCH_SIZE = 16
OUTPUTS = ("crack_prob", "crack_map")


@dataclass(frozen=True)
class BlockScores:
    """`crack_prob` (N,) in [0, 1]; `crack_map` (N, h, w), the logit of "crack" less that of "none" at each place."""

    crack_prob: Floats
    crack_map: Floats


class OnnxDetector:
    """One exported model. `tile_px` is the side of its blocks; `contract` what the file says of itself."""

    def __init__(
        self, session: Any, contract: Mapping[str, Any], sha256: str, card: Mapping[str, Any]
    ) -> None:
        self._session = session
        self.contract = contract
        self.sha256 = sha256
        self.card = card
        self.tile_px = int(contract["input"]["shape"][1])

    @classmethod
    def load(cls, path: Path, precision: Precision = "int8") -> "OnnxDetector":
        """Load an ONNX file, or the one of `precision` in a folder that `damcrack export` wrote.

        Raises:
            InputError: no such file, no model of ours, changed since it was exported, or of another contract.
        """
        file = path / FILES[precision] if path.is_dir() else path
        try:
            encoded = file.read_bytes()
        except FileNotFoundError as error:
            raise InputError(
                f"no model {file}; give an ONNX file or the folder that `damcrack export` wrote"
            ) from error
        session = _session(encoded, file)
        contract = _contract(session, file)
        card = _card(file, sha256_bytes(encoded))
        return cls(session, contract, sha256_bytes(encoded), card)

    def score(self, rgb: Pixels, boxes: Boxes, workers: Executor) -> BlockScores:
        """Score the boxes (N, 4) of one photo (H, W, 3), a few at a time on every worker."""
        starts = range(0, len(boxes), BATCH_SIZE)
        parts = list(workers.map(partial(self._score_batch, rgb, boxes), starts))
        return BlockScores(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def score_tiles(self, tiles: Pixels) -> Floats:
        """Crack probabilities (N,) of tiles (N, tile, tile, 3) that are cut already."""
        crack_prob: Floats = self._session.run(["crack_prob"], {"tiles": tiles})[0]
        return crack_prob

    def _score_batch(self, rgb: Pixels, boxes: Boxes, start: int) -> tuple[Floats, Floats]:
        tiles = self.cut(rgb, boxes[start : start + BATCH_SIZE])
        crack_prob, crack_map = self._session.run(OUTPUTS, {"tiles": tiles})
        return crack_prob, crack_map

    @staticmethod
    def cut(rgb: Pixels, boxes: Boxes) -> Pixels:
        """Copies (N, tile, tile, 3) of the boxes (N, 4) of a photo."""
        return np.stack([rgb[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist()])


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
        raise InputError(f"{file} is no ONNX model, or a damaged one; copy it again") from error


def _contract(session: Any, file: Path) -> Mapping[str, Any]:
    """What the file says of itself, when it fits what it really takes and gives."""
    text = session.get_modelmeta().custom_metadata_map.get(CONTRACT)
    if text is None:
        raise InputError(f"{file} was not written by `damcrack export`: it does not say what it expects")
    contract: Mapping[str, Any] = json.loads(text)
    if contract.get("format") != FORMAT:
        raise InputError(
            f"{file} has contract format {contract.get('format')}, expected {FORMAT}; export it again with this version"
        )
    found = [(one.name, one.type, len(one.shape)) for one in session.get_inputs()]
    expected = [("tiles", "tensor(uint8)", 4)]
    side_px, colour = contract["input"]["shape"][1:3], contract["input"]["colour"]
    fixed = [one.shape[1:] for one in session.get_inputs()]
    if found != expected or colour != "RGB" or fixed != [[*side_px, 3]] or side_px[0] != side_px[1]:
        raise InputError(
            f"{file} takes {found} of {fixed} in {colour}, expected square uint8 RGB `tiles` of shape "
            f"(batch, {side_px[0]}, {side_px[0]}, 3); export it again"
        )
    missing = set(OUTPUTS) - {one.name for one in session.get_outputs()}
    if missing:
        raise InputError(f"{file} gives no {', '.join(sorted(missing))}; export it again")
    return contract


def _card(file: Path, sha256: str) -> Mapping[str, Any]:
    """The model.json beside the file, if there is one; the file must be the one that it names.

    Raises:
        InputError: the ONNX file was changed since, or belongs to another export.
    """
    path = file.with_name("model.json")
    if not path.is_file():
        return {}
    card: Mapping[str, Any] = json.loads(path.read_text())
    if sha256 not in (card.get("onnx_sha256"), card.get("int8_sha256")):
        raise InputError(
            f"{file} has sha256 {sha256[:12]}, {path} names {str(card.get('onnx_sha256'))[:12]} and "
            f"{str(card.get('int8_sha256'))[:12]}; the file was changed: export it again"
        )
    return card
