"""The paper's case study (section 4) on held-out photos: blocks and pixels against their masks.

OUT/case-study.json       blocks and pixels by source: the network, and brightness thresholds beside it
OUT/figures/found.jpg     photos with what was found: true in green, found in red, both in yellow; thresholds beside
OUT/figures/attention.jpg the most confident blocks, right and wrong ones, and the network's crack map of each
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.findings import Findings, Pixels, read_picture
from damcrack.cracks.pixel_scores import PixelCounts, count_pixels
from damcrack.data.imageset import ImageSet
from damcrack.data.photo import decode_file, decode_mask, decode_photo
from damcrack.data.tiling import crack_fractions
from damcrack.files import InputError, in_order, read_csv, write_bytes, write_json
from damcrack.inspection.case_pictures import as_jpeg, attention, side_by_side, stacked
from damcrack.inspection.sources import Listed
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
SHOWN_PHOTOS = 6


@dataclass
class BlockTally:
    """Labels, probabilities of the network and verdicts of the threshold, block by block; and their sources."""

    labels: list[Ints] = field(default_factory=list)
    probs: list[Floats] = field(default_factory=list)
    dark: list[Ints] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def unseen_photos(photos: Path, tiles: Path) -> list[dict[str, str]]:
    """Rows of photos.csv whose tiles all lie in the test split: neither training nor a choice saw them.

    Raises:
        InputError: there is none with a mask.
    """
    seen = {row["photo"] for row in ImageSet.open(tiles).rows if row["split"] != "test"}
    tested = {row["photo"] for row in ImageSet.open(tiles).rows} - seen
    rows = [row for row in read_csv(photos / "photos.csv") if row["photo"] in tested and row["mask"]]
    if not rows:
        raise InputError(
            f"{tiles}: no photo with a mask lies in the test split as a whole; "
            "set tile.split: photo and tile.test_fraction"
        )
    return rows


def listed_photos(photos: Path, rows: Sequence[Mapping[str, str]]) -> list[Listed]:
    """Photos of the photos stage, by their names there."""
    return [Listed(row["photo"], (photos / row["file"]).read_bytes) for row in rows]


def study(
    photos: Path,
    tiles: Path,
    out: Path,
    folders: Sequence[Path],
    detector: OnnxDetector,
    threshold: float,
    crack_fraction: float,
    run: Run,
) -> dict[str, Any]:
    """Compare what was found with the masks; write the results and return them."""
    rows = {row["photo"]: row for row in unseen_photos(photos, tiles)}
    level = _fit_threshold(ImageSet.open(tiles), run)
    blocks, pixels = BlockTally(), dict[str, dict[str, PixelCounts]]()
    pictures = list[Pixels]()
    shown = {
        folders[place]
        for place in np.linspace(0, len(folders) - 1, min(SHOWN_PHOTOS, len(folders))).astype(int)
    }
    for folder in run.track(folders, "comparing with masks", len(folders)):
        findings = Findings.read(folder)
        row = rows[findings.photo]
        rgb, truth = _read(photos, row)
        _tally(blocks, findings, rgb, truth, row["source"], level, crack_fraction)
        masks = segmentations(rgb, findings, folder, threshold, level.level)
        for method, mask in masks.items():
            by_source = pixels.setdefault(method, {})
            by_source[row["source"]] = by_source.get(row["source"], PixelCounts()) + count_pixels(mask, truth)
        if folder in shown:
            pictures.append(side_by_side(rgb, truth, masks))
    (out / "figures").mkdir(exist_ok=True)
    write_bytes(out / "figures" / "found.jpg", as_jpeg(stacked(pictures)))
    looked = attention(photos, rows, folders, detector)
    if looked is not None:
        write_bytes(out / "figures" / "attention.jpg", as_jpeg(looked))
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


def _read(photos: Path, row: Mapping[str, str]) -> tuple[Pixels, Pixels]:
    rgb = decode_file(photos / row["file"], decode_photo)
    truth = (decode_file(photos / row["mask"], decode_mask) > 0).astype(np.uint8)
    return rgb, truth


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
    grey = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    assert grey is not None, f"tile of row {row} cannot be decoded"
    return row, np.bincount(grey.ravel(), minlength=LEVELS)


def _tally(
    tally: BlockTally,
    findings: Findings,
    rgb: Pixels,
    truth: Pixels,
    source: str,
    level: GlobalThreshold,
    crack_fraction: float,
) -> None:
    """Add the blocks of one photo; those with fewer crack pixels than count, but some, are left out as in training."""
    boxes = np.array([block[:4] for block in findings.blocks], np.int64)
    probs = np.array([block[4] for block in findings.blocks], np.float64)
    fractions = crack_fractions(truth, boxes)
    clear = (fractions >= crack_fraction) | (fractions == 0)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    histograms = np.stack(
        [np.bincount(grey[y0:y1, x0:x1].ravel(), minlength=LEVELS) for x0, y0, x1, y1 in boxes.tolist()]
    )
    dark = level.rule.decide(darker_share(histograms)[:, level.level])
    tally.labels.append((fractions >= crack_fraction)[clear].astype(np.int64))
    tally.probs.append(probs[clear])
    tally.dark.append(dark[clear])
    tally.sources += [source] * int(clear.sum())


def segmentations(
    rgb: Pixels, findings: Findings, folder: Path, threshold: float, level: int
) -> dict[str, Pixels]:
    """Masks (H, W) of 0/1 by method: the network's, and brightness thresholds in the blocks that it calls cracked."""
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    ours = np.zeros(grey.shape, np.uint8)
    if (folder / "mask.png").is_file():
        ours = (read_picture(folder / "mask.png", cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)
    masks = {NETWORK: ours} | {
        name: np.zeros(grey.shape, np.uint8) for name in (THRESHOLD, "Otsu", "adaptive")
    }
    adaptive = adaptive_dark(grey)
    for x0, y0, x1, y1, prob in findings.blocks:
        if prob >= threshold:
            block = grey[y0:y1, x0:x1]
            masks[THRESHOLD][y0:y1, x0:x1] |= block < level
            masks["Otsu"][y0:y1, x0:x1] |= otsu_dark(block)
            masks["adaptive"][y0:y1, x0:x1] |= adaptive[y0:y1, x0:x1]
    return masks


def _block_scores(tally: BlockTally, threshold: float) -> dict[str, Any]:
    labels, probs, dark = (np.concatenate(part) for part in (tally.labels, tally.probs, tally.dark))
    sources = np.array(tally.sources)
    scores = {}
    for source in ["all", *sorted(set(tally.sources))]:
        of = sources == source if source != "all" else np.ones(len(sources), np.bool_)
        bins = metrics.reliability(labels[of], probs[of], CALIBRATION_BINS)
        network = _verdict_scores(labels[of], (probs[of] >= threshold).astype(np.int64))
        ranked = metrics.auroc(labels[of], probs[of])
        scores[source] = {
            NETWORK: network
            | {
                "auroc": None if np.isnan(ranked) else ranked,
                "ece": metrics.expected_calibration_error(bins),
            },
            THRESHOLD: _verdict_scores(labels[of], dark[of]),
        }
    return scores


def _verdict_scores(labels: Ints, predicted: Ints) -> dict[str, Any]:
    confusion = metrics.confusion(labels, predicted)
    parts = {name: getattr(metrics, name)(confusion) for name in ("accuracy", "precision", "recall", "f1")}
    return {
        "num_blocks": len(labels),
        "num_crack": int(labels.sum()),
        **{name: None if np.isnan(value) else value for name, value in parts.items()},
    }


def _pixel_scores(by_source: Mapping[str, PixelCounts]) -> dict[str, Any]:
    whole = sum(by_source.values(), PixelCounts())
    return {name: counts.shares() for name, counts in [("all", whole), *sorted(by_source.items())]}
