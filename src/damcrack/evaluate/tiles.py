"""Which tiles the page shows, and the figures of them: sample detections, feature maps, threshold masks.

A tile is named by its number within the evaluation set.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from damcrack.evaluate.baselines import decode_grey
from damcrack.evaluate.drawing import COLOURS, Drawing, finish, house_look
from damcrack.evaluate.feature_maps import StageMaps, feature_maps
from damcrack.evaluate.scored import HeldOutTiles, Results
from damcrack.run import Run
from damcrack.scores.thresholds import adaptive_dark, otsu_dark

NUM_SAMPLES = 6  # tiles of each kind in the figure of sample detections
NUM_EXAMPLES = 4  # tiles to look into
SHEET_IN, TITLE_IN, WORDS_IN = 9.0, 0.3, 0.35  # width of a sheet, height of a title and of two lines of words
CLASSES = ("no crack", "crack")
FRAMES = "Green frame: right; red frame: wrong."
# the baselines whose dark pixels make a picture; one level for all tiles does not
MASKS = {"otsu_threshold": ("Otsu", otsu_dark), "adaptive_threshold": ("local mean", adaptive_dark)}

Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


# the four cases: truth and verdict, 1 is crack
KINDS = {"cracks found": (1, 1), "true negatives": (0, 0), "false alarms": (0, 1), "missed cracks": (1, 0)}


@dataclass(frozen=True)
class ShownTiles:
    """Tiles of the chosen experiment by kind: all, the most confident first, and those that are shown.

    `examples` are looked into; `jpegs` holds the shown ones.
    """

    ranked: Mapping[str, Ints]
    samples: Mapping[str, Ints]
    errors: Mapping[str, Ints]
    examples: Ints
    jpegs: Mapping[int, bytes]


def choose_tiles(results: Results, worst_tiles: int) -> ShownTiles:
    """Choose, for the same results always the same, and read the chosen in one pass; `worst_tiles` errors in all."""
    labels, predicted = results.data.labels, results.chosen.predicted
    ranked = {
        kind: _by_confidence(results, np.flatnonzero((labels == truth) & (predicted == verdict)))
        for kind, (truth, verdict) in KINDS.items()
    }
    mixed = {kind: _in_turns(numbers, results.data) for kind, numbers in ranked.items()}
    samples = {kind: numbers[:NUM_SAMPLES] for kind, numbers in mixed.items()}
    alarms = ranked["false alarms"][: max(worst_tiles // 2, worst_tiles - len(ranked["missed cracks"]))]
    misses = ranked["missed cracks"][: worst_tiles - len(alarms)]
    examples = _examples(results, mixed)
    jpegs = _read(results.data, np.concatenate([*samples.values(), alarms, misses, examples]))
    return ShownTiles(ranked, samples, {"false alarms": alarms, "missed cracks": misses}, examples, jpegs)


def _by_confidence(results: Results, numbers: Ints) -> Ints:
    return numbers[np.argsort(-np.abs(results.chosen.probs[numbers] - 0.5), kind="stable")]


def _in_turns(numbers: Ints, data: HeldOutTiles) -> Ints:
    """Take turns among sources, and within a source among photos; a group's first stays its first."""
    for column in ("photo", "source"):
        seen, turns = Counter[str](), []
        for group in data.column(column)[numbers].tolist():
            turns.append(seen[group])
            seen[group] += 1
        numbers = numbers[np.argsort(np.array(turns, np.int64), kind="stable")]
    return numbers


def _examples(results: Results, mixed: Mapping[str, Ints]) -> Ints:
    """Two found cracks, the true negative that fools most of the thresholds, the most confident error."""
    num_fooled = np.sum([baseline.predicted for baseline in results.baselines], axis=0)
    passed = mixed["true negatives"]
    passed = passed[np.argsort(-num_fooled[passed], kind="stable")]
    errors = np.concatenate([mixed["false alarms"][:1], mixed["missed cracks"][:1]])
    return np.concatenate([mixed["cracks found"][:2], passed[:1], _by_confidence(results, errors)[:1]])


def _read(data: HeldOutTiles, numbers: Ints) -> dict[int, bytes]:
    number_of = {int(data.rows[number]): int(number) for number in numbers}
    return {number_of[row]: jpeg for row, jpeg in data.tiles.encoded() if row in number_of}


def draw_tiles(results: Results, shown: ShownTiles, run: Run) -> list[Drawing]:
    """Draw every figure of tiles; feature maps only of networks that have such stages."""
    with house_look():
        return [finish(*parts) for parts in _figures(results, shown, run)]


def _figures(results: Results, shown: ShownTiles, run: Run) -> Iterator[tuple[str, Figure, str]]:
    caption = f"Sample detections: the most confident of each kind, sources and photos in turn. {FRAMES}"
    yield "sample_detections", _samples(results, shown), caption
    tiles = np.stack([_decode_rgb(shown.jpegs[number]) for number in shown.examples.tolist()])
    if stages := feature_maps(results.chosen.model.folder, tiles):
        caption = (
            f"Feature maps of the first stages (the paper's table 3): the {len(stages[0].channels)} channels with "
            "the highest mean absolute activation over these tiles, dark (low) to bright, on one scale in all rows. "
            f"{FRAMES}"
        )
        yield "feature_maps", _maps(results, shown, tiles, stages), caption
    else:
        network = results.chosen.model.info.network
        run.say(f"no figure of feature maps: {network} has neither residual stages nor poolings")
    caption = (
        "Threshold segmentation of the same tiles: black is what Otsu's level, or the mean of the surroundings, "
        f"calls dark; below it the verdict of the rule fitted on the training tiles. {FRAMES}"
    )
    yield "threshold_segmentation", _segmentations(results, shown, tiles), caption


def _decode_rgb(encoded: bytes) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def _sheet(rows: float, columns: int, header_in: float) -> Figure:
    """An empty sheet for rows of square pictures with two lines of words below each."""
    height_in = header_in + (SHEET_IN / columns + WORDS_IN) * rows
    return Figure(figsize=(SHEET_IN, height_in), layout="constrained")


def _grid(figure: FigureBase, rows: int, columns: int) -> npt.NDArray[Any]:
    """Places for pictures, each an empty Axes."""
    grid: npt.NDArray[Any] = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return grid


def _show(
    axes: Axes, picture: npt.NDArray[np.generic], words: str = "", is_right: bool | None = None
) -> None:
    """Show a picture, uint8 RGB or 0..1 with NaN for nothing, above its words, framed if there is a verdict."""
    axes.imshow(picture, cmap="viridis", vmin=0, vmax=1)
    axes.set_axis_on()
    axes.set_anchor("N")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(words, fontsize=8.5, loc="left")
    axes.spines[:].set_visible(is_right is not None)
    axes.spines[:].set(linewidth=2.5, edgecolor=COLOURS[2] if is_right else COLOURS[3])


def _samples(results: Results, shown: ShownTiles) -> Figure:
    num_rows = sum(bool(len(numbers)) for numbers in shown.samples.values())
    figure = _sheet(num_rows, NUM_SAMPLES, TITLE_IN * len(KINDS))
    row_in = SHEET_IN / NUM_SAMPLES + WORDS_IN
    heights = [TITLE_IN + row_in * bool(len(numbers)) for numbers in shown.samples.values()]
    parts = figure.subfigures(len(KINDS), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (kind, (truth, verdict)) in zip(parts, KINDS.items(), strict=True):
        counts = f"{len(shown.samples[kind])} of {len(shown.ranked[kind])}"
        title = f"{kind} (truth: {CLASSES[truth]}, verdict: {CLASSES[verdict]}): {counts}"
        part.suptitle(title, x=0.005, ha="left", fontsize=10.5)
        places = _grid(part, 1, NUM_SAMPLES)[0] if len(shown.samples[kind]) else ()
        for axes, number in zip(places, shown.samples[kind].tolist(), strict=False):
            words = f"{results.chosen.probs[number]:.1%} crack\n{_source(results, number)}"
            _show(axes, _decode_rgb(shown.jpegs[number]), words, truth == verdict)
    return figure


def _source(results: Results, number: int) -> str:
    source: str = results.data.tiles.rows[results.data.rows[number]]["source"]
    return source if len(source) <= 20 else source[:19] + "…"


def _show_example(axes: Axes, results: Results, number: int, tile: Pixels) -> None:
    truth, probability = results.data.labels[number], results.chosen.probs[number]
    words = f"truth: {CLASSES[truth]}\nnetwork: {probability:.1%} crack"
    _show(axes, tile, words, bool(results.chosen.predicted[number] == truth))


def _maps(results: Results, shown: ShownTiles, tiles: Pixels, stages: Sequence[StageMaps]) -> Figure:
    figure = _sheet(len(tiles), 1 + len(stages), 2 * TITLE_IN)
    grid = _grid(figure, len(tiles), 1 + len(stages))
    for row, tile, number in zip(range(len(tiles)), tiles, shown.examples.tolist(), strict=True):
        _show_example(grid[row, 0], results, number, tile)
        for axes, stage in zip(grid[row, 1:], stages, strict=True):
            _show(axes, _two_by_two(stage.maps_NKHW[row]))
    for axes, stage in zip(grid[0, 1:], stages, strict=True):
        height, width = stage.size_hw
        channels = ", ".join(map(str, stage.channels))
        title = f"{stage.stage}\n{stage.num_channels} channels, {height} x {width} px\nshown: {channels}"
        axes.set_title(title, loc="left", fontsize=8.5)
    return figure


def _two_by_two(maps_KHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """At most four maps as one picture, row by row, with a gap of nothing between them."""
    _, height, width = maps_KHW.shape
    gap = max(1, height // 25)
    picture = np.full((2 * height + gap, 2 * width + gap), np.nan, dtype=np.float32)
    for place, one_HW in enumerate(maps_KHW):
        y, x = (place // 2) * (height + gap), (place % 2) * (width + gap)
        picture[y : y + height, x : x + width] = one_HW
    return picture


def _segmentations(results: Results, shown: ShownTiles, tiles: Pixels) -> Figure:
    baselines = [baseline for baseline in results.baselines if baseline.name in MASKS]
    figure = _sheet(1 + len(baselines), NUM_EXAMPLES, 0)
    grid = _grid(figure, 1 + len(baselines), NUM_EXAMPLES)
    for column, tile, number in zip(grid.T, tiles, shown.examples.tolist(), strict=False):
        _show_example(column[0], results, number, tile)
        grey = decode_grey(int(results.data.rows[number]), shown.jpegs[number])
        for axes, baseline in zip(column[1:], baselines, strict=True):
            title, find = MASKS[baseline.name]
            dark, verdict = find(grey), int(baseline.predicted[number])
            words = f"{title}: {dark.mean():.1%} dark\nverdict: {CLASSES[verdict]}"
            white = np.where(dark, np.uint8(0), np.uint8(255))[..., None].repeat(3, axis=2)
            _show(axes, white, words, verdict == results.data.labels[number])
    return figure
