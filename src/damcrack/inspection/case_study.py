"""The paper's case study (section 4) on held-out photos: blocks and pixels against their masks.

OUT/case-study.json       blocks and pixels by source: the network, and brightness thresholds beside it
OUT/figures/found.jpg     photos with what was found: true in green, found in red, both in yellow; thresholds beside
OUT/figures/attention.jpg the most confident blocks, right and wrong ones, and the network's crack map of each
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.findings import Findings, Pixels, read_picture
from damcrack.cracks.pixel_scores import PixelCounts, count_pixels
from damcrack.data.imageset import ImageSet, decode_image
from damcrack.data.photo import decode_file, decode_mask, decode_photo, encode_jpeg
from damcrack.data.tiling import crack_fractions
from damcrack.files import InputError, in_order, read_csv, write_bytes, write_json
from damcrack.inspection.config import InspectConfig
from damcrack.run import Run
from damcrack.scores import metrics
from damcrack.scores.thresholds import (
    LEVELS,
    GlobalThreshold,
    adaptive_dark,
    darker_share,
    fit_global_threshold,
    otsu_dark,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CALIBRATION_BINS = 10
NETWORK, THRESHOLD = "network", "global threshold"
SHOWN_PHOTOS, SHOWN_PX = 6, 448
SHOWN_BLOCKS, BLOCK_SHOWN_PX = 8, 160
QUALITY = 88


def unseen_photos(photos: Path, tiles: Path) -> list[dict[str, str]]:
    """Rows of photos.csv whose tiles all lie in the test split: neither training nor a choice saw them.

    Raises:
        InputError: there is none with a mask.
    """
    cut = ImageSet.open(tiles).rows
    tested = {row["photo"] for row in cut} - {row["photo"] for row in cut if row["split"] != "test"}
    rows = [row for row in read_csv(photos / "photos.csv") if row["photo"] in tested and row["mask"]]
    if not rows:
        raise InputError(
            f"{tiles}: no photo with a mask lies in the test split as a whole; "
            "set tile.split: photo and tile.test_fraction"
        )
    return rows


def study(
    photos: Path,
    tiles: Path,
    out: Path,
    folders: Sequence[Path],
    detector: OnnxDetector,
    config: InspectConfig,
    run: Run,
) -> dict[str, Any]:
    """Compare what was found in the photos' folders with the masks; write the results and return them."""
    rows = {row["photo"]: row for row in unseen_photos(photos, tiles)}
    level = _fit_threshold(ImageSet.open(tiles), run)
    threshold, crack_fraction = config.threshold, config.crack_fraction
    blocks, pixels = list[tuple[str, Floats]](), dict[str, dict[str, PixelCounts]]()
    pictures = list[Pixels]()
    places = np.linspace(0, len(folders) - 1, min(SHOWN_PHOTOS, len(folders))).astype(int)
    for number, folder in enumerate(run.track(folders, "comparing with masks", len(folders))):
        findings = Findings.read(folder)
        row = rows[findings.photo]
        rgb = decode_file(photos / row["file"], decode_photo)
        truth = (decode_file(photos / row["mask"], decode_mask) > 0).astype(np.uint8)
        blocks.append((row["source"], _judged_blocks(findings, rgb, truth, level, crack_fraction)))
        masks = segmentations(rgb, findings, folder, threshold, level.level)
        for method, mask in masks.items():
            by_source = pixels.setdefault(method, {})
            by_source[row["source"]] = by_source.get(row["source"], PixelCounts()) + count_pixels(mask, truth)
        if number in places:
            pictures.append(_side_by_side(rgb, truth, masks))
    (out / "figures").mkdir(exist_ok=True)
    files = {name: photos / row["file"] for name, row in rows.items()}
    for name, picture in (
        ("found", np.vstack(pictures)),
        ("attention", _attention(files, folders, detector)),
    ):
        write_bytes(out / "figures" / f"{name}.jpg", encode_jpeg(picture, QUALITY))
    results = {
        "num_photos": len(folders),
        "crack_fraction": crack_fraction,
        "level": level.level,
        "paper_block_accuracy": 0.9839,
        "blocks": _block_scores(blocks, threshold),
        "pixels": {method: _pixel_scores(by_source) for method, by_source in pixels.items()},
    }
    write_json(out / "case-study.json", results)
    return results


def _fit_threshold(tiles: ImageSet, run: Run) -> GlobalThreshold:
    """The darkness that tells cracks best on the training tiles."""
    train = set(tiles.where("train"))
    wanted = ((row, encoded) for row, encoded in tiles.encoded() if row in train)
    found = list(run.track(in_order(_histogram, wanted), "fitting the threshold", len(train)))
    histograms = np.stack([histogram for _, histogram in found])
    labels = np.array([tiles.labels[row] for row, _ in found], np.int64)
    return fit_global_threshold(histograms, labels)


def _histogram(tile: tuple[int, bytes]) -> tuple[int, Ints]:
    row, encoded = tile
    grey = decode_image(row, encoded, grey=True)
    return row, np.bincount(grey.ravel(), minlength=LEVELS)


def _judged_blocks(
    findings: Findings, rgb: Pixels, truth: Pixels, level: GlobalThreshold, crack_fraction: float
) -> Floats:
    """Label, probability of the network and verdict of the threshold (N, 3) of the blocks of one photo.

    Those with fewer crack pixels than count, but some, are left out as in training.
    """
    boxes = np.array([block.box_xyxy for block in findings.blocks], np.int64)
    probs = np.array([block.crack_prob for block in findings.blocks], np.float64)
    fractions = crack_fractions(truth, boxes)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    histograms = np.stack(
        [np.bincount(grey[y0:y1, x0:x1].ravel(), minlength=LEVELS) for x0, y0, x1, y1 in boxes.tolist()]
    )
    dark = level.rule.decide(darker_share(histograms)[:, level.level])
    clear = (fractions >= crack_fraction) | (fractions == 0)
    judged: Floats = np.column_stack([fractions >= crack_fraction, probs, dark])[clear]
    return judged


def segmentations(
    rgb: Pixels, findings: Findings, folder: Path, threshold: float, level: int
) -> dict[str, Pixels]:
    """Masks (H, W) of 0/1 by method: the network's, and brightness thresholds in the blocks that it calls cracked."""
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    masks = {name: np.zeros(grey.shape, np.uint8) for name in (NETWORK, THRESHOLD, "Otsu", "adaptive")}
    if (folder / "mask.png").is_file():
        masks[NETWORK][read_picture(folder / "mask.png", cv2.IMREAD_GRAYSCALE) > 0] = 1
    adaptive = adaptive_dark(grey)
    for x0, y0, x1, y1, prob in findings.blocks:
        if prob >= threshold:
            block = grey[y0:y1, x0:x1]
            masks[THRESHOLD][y0:y1, x0:x1] |= block < level
            masks["Otsu"][y0:y1, x0:x1] |= otsu_dark(block)
            masks["adaptive"][y0:y1, x0:x1] |= adaptive[y0:y1, x0:x1]
    return masks


def _block_scores(judged: Sequence[tuple[str, Floats]], threshold: float) -> dict[str, Any]:
    scores = {}
    for source in ["all", *sorted({source for source, _ in judged})]:
        blocks = np.concatenate([blocks for of, blocks in judged if source in ("all", of)])
        labels, probs, dark = blocks[:, 0].astype(np.int64), blocks[:, 1], blocks[:, 2].astype(np.int64)
        bins = metrics.reliability(labels, probs, CALIBRATION_BINS)
        scores[source] = {
            NETWORK: _verdict_scores(labels, (probs >= threshold).astype(np.int64))
            | {
                "auroc": _known(metrics.auroc(labels, probs)),
                "ece": metrics.expected_calibration_error(bins),
            },
            THRESHOLD: _verdict_scores(labels, dark),
        }
    return scores


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _verdict_scores(labels: Ints, predicted: Ints) -> dict[str, Any]:
    confusion = metrics.confusion(labels, predicted)
    names = ("accuracy", "precision", "recall", "f1")
    counts = {"num_blocks": len(labels), "num_crack": int(labels.sum())}
    return counts | {name: _known(getattr(metrics, name)(confusion)) for name in names}


def _pixel_scores(by_source: Mapping[str, PixelCounts]) -> dict[str, Any]:
    whole = sum(by_source.values(), PixelCounts())
    return {name: counts.shares() for name, counts in [("all", whole), *sorted(by_source.items())]}


def _side_by_side(rgb: Pixels, truth: Pixels, masks: Mapping[str, Pixels]) -> Pixels:
    """One photo, then each method's mask (red) over the true one (green) on it, and a white line below."""
    columns = [_labelled(rgb, "photo")]
    for method, mask in masks.items():
        shown = (rgb // 2).astype(np.uint8)
        kernel = np.ones((3, 3), np.uint8) if max(rgb.shape) < 1500 else np.ones((9, 9), np.uint8)
        for channel, one in ((0, mask), (1, truth)):
            shown[..., channel][cv2.dilate(one, kernel) > 0] = 255
        columns.append(_labelled(shown, method))
    row = np.hstack(columns)
    return np.pad(row, ((0, 8), (0, 0), (0, 0)), constant_values=255)


def _labelled(rgb: Pixels, text: str) -> Pixels:
    """The picture at the width that is shown, with a text above."""
    height = max(1, round(rgb.shape[0] * SHOWN_PX / rgb.shape[1]))
    head = np.full((24, SHOWN_PX, 3), 255, np.uint8)
    cv2.putText(head, text, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([head, _resized(rgb, (SHOWN_PX, height))])


def _resized(rgb: Pixels, size_wh: tuple[int, int]) -> Pixels:
    return np.asarray(cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _attention(files: Mapping[str, Path], folders: Sequence[Path], detector: OnnxDetector) -> Pixels:
    """The most confident blocks of different photos, and below each the same with the network's crack map laid over."""
    found = (Findings.read(folder) for folder in folders)
    best = sorted(
        (-block.crack_prob, one.photo, block.box_xyxy)
        for one in found
        for block in [max(one.blocks, key=lambda block: block.crack_prob)]
    )
    columns, side = [], (BLOCK_SHOWN_PX, BLOCK_SHOWN_PX)
    with ThreadPoolExecutor(1) as worker:
        for _, photo, (x0, y0, x1, y1) in best[:SHOWN_BLOCKS]:
            block = decode_file(files[photo], decode_photo)[y0:y1, x0:x1]
            shown = _resized(block, side)
            large = _resized((255 * detector.map_photo(block, worker)).astype(np.uint8), side)
            colours = cv2.cvtColor(cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
            columns.append(np.vstack([shown, cv2.addWeighted(shown, 0.45, colours, 0.55, 0)]))
    return np.asarray(np.hstack(columns), np.uint8)
