"""Pictures of the case study: what was found beside what is true, and the network's crack map."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.findings import Findings, Pixels
from damcrack.data.photo import decode_file, decode_photo

SHOWN_PX = 448
SHOWN_BLOCKS, BLOCK_SHOWN_PX = 8, 160


def side_by_side(rgb: Pixels, truth: Pixels, masks: Mapping[str, Pixels]) -> Pixels:
    """One photo, then each method's mask (red) over the true one (green) on it."""
    columns = [_labelled(_scaled(rgb), "photo")]
    for method, mask in masks.items():
        shown = (rgb // 2).astype(np.uint8)
        kernel = np.ones((3, 3), np.uint8) if max(rgb.shape) < 1500 else np.ones((9, 9), np.uint8)
        for channel, one in ((0, mask), (1, truth)):
            shown[..., channel][cv2.dilate(one, kernel) > 0] = 255
        columns.append(_labelled(_scaled(shown), method))
    return np.hstack(columns)


def _scaled(rgb: Pixels) -> Pixels:
    height = max(1, round(rgb.shape[0] * SHOWN_PX / rgb.shape[1]))
    return np.asarray(cv2.resize(rgb, (SHOWN_PX, height), interpolation=cv2.INTER_AREA), np.uint8)


def _labelled(rgb: Pixels, text: str) -> Pixels:
    head = np.full((24, rgb.shape[1], 3), 255, np.uint8)
    cv2.putText(head, text, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([head, rgb])


def stacked(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures of different widths, one below the other."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        cv2.copyMakeBorder(picture, 0, 8, 0, width - picture.shape[1], cv2.BORDER_CONSTANT, value=(255,) * 3)
        for picture in pictures
    ]
    return np.asarray(np.vstack(padded), np.uint8)


def attention(
    photos: Path, rows: Mapping[str, Mapping[str, str]], folders: Sequence[Path], detector: OnnxDetector
) -> Pixels | None:
    """The most confident blocks of different photos, and below each the same with the network's crack map laid over."""
    chosen = list(_most_confident(folders))[:SHOWN_BLOCKS]
    if not chosen:
        return None
    columns = []
    with ThreadPoolExecutor(1) as worker:
        for photo, box in chosen:
            rgb = decode_file(photos / rows[photo]["file"], decode_photo)
            x0, y0, x1, y1 = box
            block = rgb[y0:y1, x0:x1]
            columns.append(np.vstack(_map_over(block, detector.map_photo(block, worker))))
    return np.hstack(columns)


def _most_confident(folders: Sequence[Path]) -> Iterator[tuple[str, list[int]]]:
    """The most confident block of each photo, the most confident photo first."""
    best = []
    for folder in folders:
        findings = Findings.read(folder)
        *box, prob = max(findings.blocks, key=lambda block: block.crack_prob)
        best.append((-prob, findings.photo, box))
    for _, photo, box in sorted(best):
        yield photo, box


def _map_over(block: Pixels, crack_map: npt.NDArray[np.float32]) -> list[Pixels]:
    side = (BLOCK_SHOWN_PX, BLOCK_SHOWN_PX)
    shown = np.asarray(cv2.resize(block, side, interpolation=cv2.INTER_AREA), np.uint8)
    large = cv2.resize((255 * crack_map).astype(np.uint8), side, interpolation=cv2.INTER_AREA)
    colours = cv2.cvtColor(cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    return [shown, np.asarray(cv2.addWeighted(shown, 0.45, colours, 0.55, 0), np.uint8)]


def as_jpeg(rgb: Pixels) -> bytes:
    """JPEG bytes of a picture (H, W, 3)."""
    _, encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return bytes(encoded)
