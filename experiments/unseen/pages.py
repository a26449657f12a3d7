"""The results to read: Markdown tables of numbers, and one picture for each source."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.data.photo import encode_jpeg
from damcrack.files import write_bytes
from experiments.commands import table
from experiments.unseen.measure import Counts, Measured

Pixels = npt.NDArray[np.uint8]

SHOWN_PX = 320  # width of each photo
SHOWN_PHOTOS = 4  # best, typical and worst ones
GREEN, RED, YELLOW = (0, 255, 0), (255, 0, 0), (255, 255, 0)


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A page of the results of one or several detectors, by name: what they come to, then each one's tables."""
    parts = [_overview(results)]
    for name, result in results.items():
        parts += [f"## {name}", _block_table(result)]
        parts += [_pixel_table(result)] if any(row["pixels"] for row in result["sources"].values()) else []
        parts += [_tile_table(result["tiles"])] if result["tiles"] else []
    return "\n\n".join(parts) + "\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(one: Mapping[str, float | None] | None, scale: float = 100.0) -> str:
    """The value, and its interval where there is one."""
    if one is None or one["value"] is None:
        return "-"
    text = f"{scale * one['value']:.1f}"
    if one["low"] is None or one["high"] is None:
        return text
    return f"{text} ({scale * one['low']:.1f} to {scale * one['high']:.1f})"


def _overview(results: Mapping[str, Mapping[str, Any]]) -> str:
    heads = ["judged by", "worst source", "mean AUROC", "worst", "without asphalt", "asphalt"]
    heads += ["F1, pixels", "clIoU", "clean photos called cracked", "blocks right"]
    heads.append("clean blocks called cracked at 95 % recall")
    rows = []
    for name, result in results.items():
        worst, alarms = result["worst_auroc"], result["false_alarms"]
        pixels, blocks = ((result["overall"] or {}).get(of) or {} for of in ("pixels", "blocks"))
        rows.append(
            [
                name,
                worst["source"] if worst else "-",
                with_interval(result["mean_auroc"]),
                _percent(worst["value"] if worst else None),
                *(with_interval(result[part]["mean_auroc"]) for part in ("concrete", "asphalt")),
                *(with_interval(pixels.get(one)) for one in ("f1", "cliou")),
                _alarms(alarms),
                *(with_interval(blocks.get(one)) for one in ("accuracy", "false_alarms_at_recall")),
            ]
        )
    return table(heads, 2, rows)


def _alarms(alarms: Mapping[str, Any] | None) -> str:
    if alarms is None:
        return "-"
    share, blocks = with_interval(alarms["share_of_photos"]), with_interval(alarms["blocks_per_photo"], 1.0)
    return f"{share}, {blocks} blocks a photo"


def _block_table(result: Mapping[str, Any]) -> str:
    heads = ["photos", "against", "number", "cracked", "clean", "AUROC", "AP", "accuracy", "F1"]
    heads += ["clean called cracked at 95 % recall", "AUROC against the walls"]
    overall = {"all blocks": result["overall"]} if result["overall"] else {}
    return table(heads, 2, [_block_line(*one) for one in (result["sources"] | overall).items()])


def _block_line(name: str, row: Mapping[str, Any]) -> list[str]:
    """One source; where nothing can be measured the reason stands in the place of what it is measured against."""
    measures = row.get("blocks", {})
    names = ("auroc", "average_precision", "accuracy", "f1", "false_alarms_at_recall")
    numbers = [str(row["photos"]), str(row["cracked_blocks"])]
    numbers.append(str(row.get("clean_blocks_against", row["clean_blocks"])))
    cells = [with_interval(measures.get(one)) for one in names]
    return [name, row["against"] or row["note"], *numbers, *cells, _percent(row["auroc_against_walls"])]


def _pixel_table(result: Mapping[str, Any]) -> str:
    heads = ["pixels of", "tolerance, px", "precision", "recall", "F1", "clIoU (4 px)"]
    rows = [
        [name, str(row["tolerance_px"]), *(with_interval(one) for one in row["pixels"].values())]
        for name, row in result["sources"].items()
        if row["pixels"]
    ]
    return table(heads, 1, rows)


def _tile_table(tiles: Mapping[str, Any]) -> str:
    rows = [
        [name, str(row["cracked_blocks"]), str(row["clean_blocks"])]
        + [with_interval(row.get("blocks", {}).get(one)) for one in ("auroc", "accuracy")]
        for name, row in tiles.items()
    ]
    return table(["ready tiles", "cracked", "clean", "AUROC", "accuracy"], 1, rows)


def draw(rgb: Pixels, true: Pixels | None, found: Pixels) -> bytes:
    """JPEG of the photo beside itself with the true mask in green, the found one in red, both in yellow."""
    size_wh = SHOWN_PX, max(1, round(SHOWN_PX * rgb.shape[0] / rgb.shape[1]))
    photo = np.asarray(cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    is_true = _shrunk(true, size_wh) if true is not None else np.zeros(photo.shape[:2], np.bool_)
    is_found = _shrunk(found, size_wh)
    marked = photo // 2
    for where, colour in ((is_true, GREEN), (is_found, RED), (is_true & is_found, YELLOW)):
        marked[where] = colour
    return encode_jpeg(np.hstack([photo, marked]), 88)


def _shrunk(mask: Pixels, size_wh: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A mask at another size in which a line of one pixel stays a line."""
    step = max(1, math.ceil(mask.shape[1] / size_wh[0]))
    thick = cv2.dilate(mask, np.ones((step, step), np.uint8))
    return np.asarray(cv2.resize(thick, size_wh, interpolation=cv2.INTER_NEAREST) > 0)


def write_pictures(folder: Path, rows: Mapping[str, Sequence[Measured]]) -> None:
    """FOLDER/SOURCE.jpg: the best, typical and worst photos of each source, in three columns."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, results in rows.items():
        ranked = sorted(results, key=agreement, reverse=True)
        middle = max(0, len(ranked) // 2 - SHOWN_PHOTOS // 2)
        thirds = {"best": ranked, "typical": ranked[middle:], "worst": ranked[::-1]}
        columns = [_column(head, of[:SHOWN_PHOTOS]) for head, of in thirds.items()]
        place = folder / f"{name.replace(', ', '-').replace(' ', '-')}.jpg"
        write_bytes(place, encode_jpeg(_beside(columns), 88))


def agreement(one: Measured) -> float:
    """How well a photo went, 0 to 1: its clIoU; without lines to compare, 1 - the mean error of its block scores."""
    if one.counts is not None and (lines := sum(Counts(*one.counts)[4:])):
        return one.counts.line_hit / lines
    return 1 - float(np.abs(one.labels - one.scores).mean()) if len(one.labels) else 0.0


def _column(head: str, results: Sequence[Measured]) -> Pixels:
    pictures = [cv2.imdecode(np.frombuffer(one.picture, np.uint8), cv2.IMREAD_COLOR_RGB) for one in results]
    texts = [f"{head} {agreement(one):.2f} {one.photo.file.name}" for one in results]
    return np.vstack([_headed(text, np.asarray(one)) for text, one in zip(texts, pictures, strict=True)])


def _headed(text: str, picture: Pixels) -> Pixels:
    head = np.full((20, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(head, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([head, picture])


def _beside(columns: Sequence[Pixels]) -> Pixels:
    height = max(one.shape[0] for one in columns)
    return np.hstack(
        [np.pad(one, ((0, height - len(one)), (0, 8), (0, 0)), constant_values=255) for one in columns]
    )
