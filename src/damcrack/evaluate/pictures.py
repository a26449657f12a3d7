"""Figures that show tiles: sample detections, feature maps (paper, table 3), threshold segmentation."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from damcrack.evaluate.baselines import decode_grey
from damcrack.evaluate.drawing import (
    CANVAS_IN,
    COLOURS,
    Drawing,
    Picture,
    canvas_of,
    finish,
    house_look,
    put_picture,
)
from damcrack.evaluate.feature_maps import StageMaps, feature_maps
from damcrack.evaluate.results import Results
from damcrack.evaluate.shown import MOST_EXAMPLES, SAMPLES, Kind, ShownTiles
from damcrack.run import Run
from damcrack.scores.thresholds import adaptive_dark, otsu_dark

CLASSES = ("no crack", "crack")
RIGHT, WRONG = COLOURS[2], COLOURS[3]
FRAMES = "Green frame: right; red frame: wrong."
HEAD_IN, FOOT_IN, GAP_IN = 0.4, 0.48, 0.1  # room for words above and below tiles, and between tiles
LINE_IN = 0.16  # from one line of words to the next
SMALL_PT = 8.5

Pixels = npt.NDArray[np.uint8]
# the baselines whose dark pixels make a picture; one level for all tiles does not
MASKS = {"otsu_threshold": ("Otsu", otsu_dark), "adaptive_threshold": ("local mean", adaptive_dark)}
# name, figure, caption, the figure in words
Parts = tuple[str, Figure, str, str]


def draw_pictures(results: Results, shown: ShownTiles, run: Run) -> list[Drawing]:
    """Draw every figure of tiles; feature maps only of networks that have such stages."""
    with house_look():
        return [finish(*parts) for parts in _pictures(results, shown, run)]


def _pictures(results: Results, shown: ShownTiles, run: Run) -> Iterator[Parts]:
    yield _sample_detections(results, shown)
    numbers = shown.examples.tolist()
    tiles = np.stack([_decode_rgb(shown.jpegs[number]) for number in numbers])
    if stages := feature_maps(results.chosen.model.folder, tiles):
        yield _feature_maps(results, shown, tiles, stages)
    else:
        network = results.chosen.model.info.network
        run.say(f"no figure of feature maps: {network} has neither residual stages nor poolings")
    yield _threshold_segmentation(results, shown, tiles)


def _decode_rgb(encoded: bytes) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def _sample_detections(results: Results, shown: ShownTiles) -> Parts:
    side = CANVAS_IN / SAMPLES - GAP_IN
    heights = [HEAD_IN + (side + FOOT_IN) * bool(len(numbers)) for numbers in shown.samples.values()]
    figure, axes = canvas_of(sum(heights))
    for kind, top in zip(shown.samples, np.cumsum([0, *heights]), strict=False):
        axes.text(GAP_IN / 2, top + HEAD_IN - 0.12, _kind_words(kind, shown))
        for column, number in enumerate(shown.samples[kind].tolist()):
            corner = CANVAS_IN / SAMPLES * column + GAP_IN / 2, top + HEAD_IN
            words = [f"{results.chosen.probs[number]:.1%} crack", _source(results, number)]
            tile = _decode_rgb(shown.jpegs[number])
            _panel(axes, tile, corner, side, words, RIGHT if kind.truth == kind.verdict else WRONG)
    caption = f"Sample detections: the surest of each kind, sources and photos in turn. {FRAMES}"
    return "sample_detections", figure, caption, _sample_words(results, shown)


def _kind_words(kind: Kind, shown: ShownTiles) -> str:
    num_shown, num = len(shown.samples[kind]), shown.num_of[kind]
    counts = f"{num_shown} of {num}" if num else "none"
    return f"{kind.words} (truth: {CLASSES[kind.truth]}, verdict: {CLASSES[kind.verdict]}): {counts}"


def _source(results: Results, number: int) -> str:
    source: str = results.data.tiles.rows[results.data.rows[number]]["source"]
    return source if len(source) <= 20 else source[:19] + "…"


def _panel(
    axes: Axes,
    picture: Picture,
    corner: tuple[float, float],
    side_in: float,
    words: Sequence[str],
    frame: str | None = None,
) -> None:
    """A picture with lines of words below it."""
    put_picture(axes, picture, corner, side_in, frame)
    _lines(axes, (corner[0], corner[1] + side_in + 0.04), words)


def _lines(axes: Axes, corner: tuple[float, float], words: Sequence[str]) -> None:
    for line, text in enumerate(words, 1):
        axes.text(corner[0], corner[1] + line * LINE_IN, text, fontsize=SMALL_PT)


def _sample_words(results: Results, shown: ShownTiles) -> str:
    """`_sample_detections` in words."""
    lines = []
    for kind, numbers in shown.samples.items():
        probs = [f"{results.chosen.probs[n]:.1%} ({_source(results, n)})" for n in numbers.tolist()]
        lines.append(_kind_words(kind, shown) + (f", {', '.join(probs)}" if probs else ""))
    return "Rows of tiles with crack probability and source. " + ". ".join(lines) + "."


def _feature_maps(results: Results, shown: ShownTiles, tiles: Pixels, stages: Sequence[StageMaps]) -> Parts:
    column_in = CANVAS_IN / (1 + len(stages))
    side, row_in, head_in = column_in - GAP_IN, column_in - GAP_IN + FOOT_IN, 4 * LINE_IN
    figure, axes = canvas_of(head_in + row_in * len(tiles))
    lefts = [column_in * column + GAP_IN / 2 for column in range(1 + len(stages))]
    for left, stage in zip(lefts[1:], stages, strict=True):
        _lines(axes, (left, 0.04), _stage_words(stage))
    for row, number in enumerate(shown.examples.tolist()):
        top = head_in + row_in * row
        words, frame = _verdict_words(results, number), _frame_of(results, number)
        _panel(axes, tiles[row], (lefts[0], top), side, words, frame)
        for left, stage in zip(lefts[1:], stages, strict=True):
            put_picture(axes, _two_by_two(stage.maps_NKHW[row]), (left, top), side)
    caption = (
        f"Feature maps of the first stages (the paper's table 3): the {len(stages[0].channels)} channels with the "
        f"highest mean absolute activation over these tiles, dark (low) to bright, on one scale in all rows. {FRAMES}"
    )
    return "feature_maps", figure, caption, _feature_words(results, shown, stages)


def _stage_words(stage: StageMaps) -> list[str]:
    height, width = stage.size_hw
    shown = ", ".join(map(str, stage.channels))
    return [stage.stage, f"{stage.num_channels} channels, {height} x {width} px", f"shown: {shown}"]


def _verdict_words(results: Results, number: int) -> list[str]:
    truth = CLASSES[results.data.labels[number]]
    return [f"truth: {truth}", f"network: {results.chosen.probs[number]:.1%} crack"]


def _frame_of(results: Results, number: int) -> str:
    return RIGHT if results.chosen.predicted[number] == results.data.labels[number] else WRONG


def _two_by_two(maps_KHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """At most four maps as one picture, row by row, with a gap of nothing between them."""
    _, height, width = maps_KHW.shape
    gap = max(1, height // 25)
    picture = np.full((2 * height + gap, 2 * width + gap), np.nan, dtype=np.float32)
    for place, one_HW in enumerate(maps_KHW):
        y, x = (place // 2) * (height + gap), (place % 2) * (width + gap)
        picture[y : y + height, x : x + width] = one_HW
    return picture


def _feature_words(results: Results, shown: ShownTiles, stages: Sequence[StageMaps]) -> str:
    """`_feature_maps` in words: the strength of each stage's channels on each tile, in percent of the scale."""
    lines = []
    for row, number in enumerate(shown.examples.tolist()):
        means = [f"{stage.stage} {stage.maps_NKHW[row].mean():.0%}" for stage in stages]
        lines.append(f"{', '.join(_verdict_words(results, number))}; mean brightness {', '.join(means)}")
    return "Rows of a tile and its maps, four channels to a stage. " + ". ".join(lines) + "."


class Segmented(NamedTuple):
    """A tile's dark pixels by one threshold, and whether the rule fitted on their share is right."""

    dark: npt.NDArray[np.bool_]
    words: list[str]
    is_right: bool


def _threshold_segmentation(results: Results, shown: ShownTiles, tiles: Pixels) -> Parts:
    column_in = CANVAS_IN / MOST_EXAMPLES
    side = column_in - GAP_IN
    figure, axes = canvas_of((side + FOOT_IN) * (1 + len(MASKS)))
    spoken = []
    for column, number in enumerate(shown.examples.tolist()):
        corner, words = (column * column_in + GAP_IN / 2, 0.04), _verdict_words(results, number)
        _panel(axes, tiles[column], corner, side, words, _frame_of(results, number))
        segmented = _segmented(results, shown, number)
        for row, one in enumerate(segmented, 1):
            corner = corner[0], row * (side + FOOT_IN) + 0.04
            white = np.where(one.dark, np.uint8(0), np.uint8(255))[..., None].repeat(3, axis=2)
            _panel(axes, white, corner, side, one.words, RIGHT if one.is_right else WRONG)
        spoken.append("; ".join([", ".join(words), *(", ".join(one.words) for one in segmented)]))
    caption = (
        "Threshold segmentation of the same tiles: black is what Otsu's level, or the mean of the surroundings, "
        f"calls dark; below it the verdict of the rule fitted on the training tiles. {FRAMES}"
    )
    alt = "Columns of a tile and its dark pixels. " + ". ".join(spoken) + "."
    return "threshold_segmentation", figure, caption, alt


def _segmented(results: Results, shown: ShownTiles, number: int) -> list[Segmented]:
    grey = decode_grey(int(results.data.rows[number]), shown.jpegs[number])
    found = []
    for baseline in results.baselines:
        if baseline.name in MASKS:
            title, find = MASKS[baseline.name]
            dark, verdict = find(grey), int(baseline.predicted[number])
            words = [f"{title}: {dark.mean():.1%} dark", f"verdict: {CLASSES[verdict]}"]
            found.append(Segmented(dark, words, verdict == results.data.labels[number]))
    return found
