"""Is int8 worth it? The shipped detector in float32 and statically quantised, on the same windows and photos.

    python -m experiments.int8 --data DIR [--photos 30]

Windows of 512 px are timed in turns on one thread; pixels are compared on photos with exact masks (DIR/deepcrack), from
which the scales of the quantisation are not taken. The verdict is in docs/LOG.md: int8 has gone.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from damcrack.cracks.detector import SHIPPED
from damcrack.cracks.pixel_scores import PixelCounts, count_pixels
from damcrack.sample.concrete import render_photo
from experiments.commands import add_data, command
from experiments.unseen.sources import read_photos, read_pixels

WINDOW_PX, ROUNDS, CALIBRATION_PHOTOS = 512, 9, 12


class Windows(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
    """Windows of rendered photos, from which the scales are taken."""

    def __init__(self) -> None:
        self._photos = iter(range(CALIBRATION_PHOTOS))

    def get_next(self) -> dict[str, Any] | None:
        """The next window by input name, None at the end."""
        index = next(self._photos, None)
        return None if index is None else {"tiles": render_photo(1, index, (WINDOW_PX, WINDOW_PX)).rgb[None]}


def quantised(model: Path) -> bytes:
    """The model with int8 convolutions (QDQ, a scale for each output channel); `reduce_range` cannot overflow."""
    with tempfile.TemporaryDirectory() as folder:
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            Windows(),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
        return made.read_bytes()


def session_of(encoded: bytes) -> onnxruntime.InferenceSession:
    """One thread, so that two of them can be compared on a busy machine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(encoded, options, providers=["CPUExecutionProvider"])


def times_ms(sessions: dict[str, Any]) -> dict[str, list[float]]:
    """Processor time of one window in turns."""
    window = render_photo(2, 0, (WINDOW_PX, WINDOW_PX)).rgb[None]
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            started = time.process_time()
            session.run(["crack_map"], {"tiles": window})
            times[name].append(1000 * (time.process_time() - started))
    return times


def counted(sessions: dict[str, Any], data: Path, num: int) -> dict[str, PixelCounts]:
    """Pixels right and wrong of each model at probability 0.5."""
    totals = {name: PixelCounts() for name in sessions}
    for photo in read_photos(data, ["deepcrack"], num):
        rgb, truth = read_pixels(photo)
        assert truth is not None
        height, width = (side // 32 * 32 for side in truth.shape)
        for name, session in sessions.items():
            (cells,) = session.run(["crack_map"], {"tiles": rgb[None, :height, :width]})
            found = (cells[0] >= 0.5).repeat(2, axis=0).repeat(2, axis=1).astype(np.uint8)
            totals[name] += count_pixels(found, truth[:height, :width])
    return totals


def main() -> None:
    """Print both, side by side."""
    parser = command("int8", __doc__)
    add_data(parser)
    parser.add_argument("--photos", type=int, default=30)
    args = parser.parse_args()
    model = SHIPPED / "model.onnx"
    sessions = {"float32": session_of(model.read_bytes()), "int8": session_of(quantised(model))}
    times = times_ms(sessions)
    ratio = np.median(np.array(times["float32"]) / np.array(times["int8"]))
    totals = counted(sessions, args.data, args.photos) if args.data else {}
    for name in sessions:
        f1 = f", pixel F1 {totals[name].shares()['f1']:.4f}" if totals else ""
        print(f"{name}: {np.median(times[name]):.1f} ms a window{f1}")
    print(f"float32 takes {ratio:.2f} times as long as int8")


if __name__ == "__main__":
    main()
