"""Functions from a photo to the crack probability of each pixel: detectors, and filters that learned nothing."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.photo import Rules
from damcrack.cracks.segment import without_specks
from damcrack.cracks.windows import CELL_PX
from damcrack.files import InputError
from damcrack.inspection.config import InspectConfig
from experiments.unseen.measure import Score

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# RGB (h, w, 3), sides multiples of STRIDE_PX -> probabilities (h / c, w / c) of cells of c x c pixels
MapOf = Callable[[Pixels], Floats]

STRIDE_PX = 32
WINDOW_PX, MARGIN_PX = 1504, 64  # a larger photo is seen in windows that share so much on each side
DARK_BLUR_PX = 2.0
FRANGI_SCALES_PX = (1, 2, 4, 8)
FRANGI_CONTRAST = 0.05  # of the brightness 0 to 1


def in_windows(map_of: MapOf, rgb: Pixels) -> Floats:
    """Probabilities (H, W) of a photo of any size, which is mirrored beyond its edges; each cell's value fills it."""
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % STRIDE_PX), (0, -width % STRIDE_PX), (0, 0)), mode="reflect")
    probs = np.empty(padded.shape[:2], np.float32)
    for top, bottom, y0, y1 in _windows(padded.shape[0]):
        for left, right, x0, x1 in _windows(padded.shape[1]):
            window = padded[top:bottom, left:right]
            part = _filled(map_of(window), window)
            probs[y0:y1, x0:x1] = part[y0 - top : y1 - top, x0 - left : x1 - left]
    return probs[:height, :width]


def _windows(length: int) -> Iterator[tuple[int, int, int, int]]:
    """Start and stop of each window, and of its part that is used."""
    if length <= WINDOW_PX:
        yield 0, length, 0, length
        return
    step = WINDOW_PX - 2 * MARGIN_PX
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield max(0, start - MARGIN_PX), min(length, stop + MARGIN_PX), start, stop


def _filled(cells: Floats, rgb: Pixels) -> Floats:
    """The value of each cell at all of its pixels, (H, W) as the photo; the last cells may reach beyond it."""
    height, width = rgb.shape[:2]
    cell_px = -(-height // cells.shape[0])
    return cells.repeat(cell_px, axis=0)[:height].repeat(cell_px, axis=1)[:, :width]


def onnx_score(path: Path, config: InspectConfig) -> Score:
    """The detector of a folder that `damcrack export` wrote, with the values of an inspection.

    As there, pieces too short to be a crack count for nothing.
    """
    detector, rules = OnnxDetector.load(path), Rules.of(config)
    workers = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def score(rgb: Pixels) -> Floats:
        found = detector.map_photo(rgb, workers, rules.scales_of(rgb.shape), rules.refine_from)
        return _filled(without_specks(found, CELL_PX, rules.segmentation), rgb)

    return score


def torch_score(folder: Path) -> Score:
    """The network of a folder that `damcrack finetune` wrote, on a GPU if there is one; its map is that of the export.

    Raises:
        InputError: there is none, or one that says nothing about pixels.
    """
    import torch

    from damcrack.train.pixels import PixelNetwork
    from damcrack.train.weights import load_model

    network, info = load_model(folder)
    if not isinstance(network, PixelNetwork):
        raise InputError(f"{folder}: the network has no pixel head; train one with pixel_channels")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (info.mean, info.std))

    @torch.inference_mode()
    def map_of(window: Pixels) -> Floats:
        tiles = torch.from_numpy(np.ascontiguousarray(window[None])).to(device)
        _, logits = network.both_at_half_size((tiles.permute(0, 3, 1, 2) / 255 - mean) / std)
        return np.asarray(logits[0].sigmoid().cpu().numpy(), np.float32)

    return lambda rgb: in_windows(map_of, rgb)


def darkness(rgb: Pixels) -> Floats:
    """How dark the blurred photo is: 0 white, 1 black."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(1 - cv2.GaussianBlur(grey, (0, 0), DARK_BLUR_PX) / 255, np.float32)


def frangi_lines(rgb: Pixels) -> Floats:
    """Frangi's filter (1998) for dark lines, with one contrast for all photos, so that their scores can be compared.

    skimage's own choice, half of the photo's strongest contrast, calls something a crack in every photo: on 12 photos
    of each of five sources AUROC 0.44 to 0.80, with FRANGI_CONTRAST 0.73 to 0.97.
    """
    from skimage.filters import frangi

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) / 255.0
    lines = frangi(grey, FRANGI_SCALES_PX, black_ridges=True, mode="reflect", gamma=FRANGI_CONTRAST)
    return np.asarray(lines, np.float32)


BASELINES: dict[str, Score] = {"darkness": darkness, "Frangi": frangi_lines}
