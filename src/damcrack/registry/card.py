"""The model card: what a version is for, how it was made, how well it does and where it fails.

card.md           text and tables; its start is the version's description in the registry
card.html         the same on one page that needs no network, pictures inside
calibration.png   crack probability against the share of cracks
failures.jpg      the surest errors
"""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.files import read_csv, sha256_file, write_bytes
from damcrack.registry.contest import Contest
from damcrack.registry.frozen import FrozenSet
from damcrack.registry.policy import Bools, Floats, Ints, Policy, Truth, is_wide, mark
from damcrack.scores.metrics import reliability
from damcrack.scores.statistics import Interval, difference_interval

WIDTHS_PX = (0.0, 2.0, 4.0, 8.0, 16.0, math.inf)
NUM_FAILURES, FAILURES_A_ROW, FAILURE_PX = 6, 6, 140
STYLE = Path(__file__).parents[1] / "style.css"
ABSENT = "–"  # noqa: RUF001 - an en dash, as tables have it


def write_card(folder: Path, contest: Contest, export: Path, trained_on: Path, policy: Policy) -> None:
    """Write the card of the contest's challenger, exported to `export`, judged on the contest's set."""
    folder.mkdir()
    frozen, probs = contest.frozen, contest.scores(contest.challenger)
    wrong = _surest_errors(frozen.truth, probs)
    write_bytes(folder / "calibration.png", _calibration(frozen.truth, probs, policy.ece_bins))
    write_bytes(folder / "failures.jpg", _failures(frozen, wrong))
    model = json.loads((export / "model.json").read_text())
    sections = (
        _what_it_is(model, contest),
        _data(model, read_csv(trained_on), contest),
        _how_well(frozen, probs, policy),
        _where_it_fails(frozen, probs, wrong),
        _how_to_verify(export, model, contest),
    )
    text = "\n\n".join("\n".join(lines) for lines in sections) + "\n"
    write_bytes(folder / "card.md", text.encode())
    write_bytes(folder / "card.html", _page(f"Model card: {model['name']}", text, folder).encode())


def _what_it_is(model: Mapping[str, Any], contest: Contest) -> list[str]:
    detector, parents = contest.challenger.detector, model.get("parents", {})
    calibration = detector.contract.get("calibration", {})
    taught = f", taught by {parents['teacher_sha256'][:12]}" if parents.get("teacher_sha256") else ""
    start = f"from weights {parents['init_sha256'][:12]}" if parents.get("init_sha256") else "from scratch"
    return [
        f"# Model card: {_cell(model['name'])}",
        "",
        f"A {_cell(str(model.get('network', 'network')))} that says of a tile of {detector.tile_px} px of a photograph "
        f"of concrete how likely it shows a crack; trained {start}{taught}. Probabilities are calibrated "
        f"(temperature {float(calibration.get('temperature', 1.0)):.2f}); a tile is a crack tile above 0.5.",
        "",
        "## Intended use",
        "",
        "To point an inspection engineer at places on concrete dams that deserve a look, in photographs like "
        "those below. It is not meant to certify that a wall has no cracks, to measure them, to judge other "
        "materials, or to act without somebody looking.",
    ]


def _data(model: Mapping[str, Any], trained: Sequence[Mapping[str, str]], contest: Contest) -> list[str]:
    frozen = contest.frozen
    num_seen = int((~contest.unseen([contest.challenger])).sum())
    unseen = "of photos that trained and chose nothing"
    if num_seen:
        unseen = (
            f"**{num_seen} of its {len(frozen.images)} tiles of photos that trained or chose this model**"
        )
    lines = [
        "## Data and split",
        "",
        f"Trained on tiles `{model['data_digest']}`; judged on evaluation set `{frozen.digest}`, {unseen}:",
        "",
        "| source | split | photos | tiles |",
        "| --- | --- | ---: | ---: |",
    ]
    counted: dict[tuple[str, str], tuple[int, int]] = {}
    for row in trained:
        photos, tiles = counted.get((row["source"], row["split"]), (0, 0))
        counted[row["source"], row["split"]] = photos + 1, tiles + int(row["num_tiles"])
    for source, mask in _by_source(frozen):
        counted[source, "evaluation"] = len(set(frozen.column("photo")[mask])), int(mask.sum())
    order = ("train", "val", "evaluation")
    for source, split in sorted(counted, key=lambda pair: (pair[0], order.index(pair[1]))):
        photos, tiles = counted[source, split]
        lines.append(f"| {_cell(source)} | {split} | {photos} | {tiles} |")
    return lines


def _how_well(frozen: FrozenSet, probs_N: Floats, policy: Policy) -> list[str]:
    truth, marks = frozen.truth, mark(frozen.truth, probs_N, policy)
    right_N = (probs_N > 0.5) == (truth.labels_N == 1)
    crack_N, all_N = truth.labels_N == 1, np.ones(len(probs_N), np.bool_)
    wide_N = is_wide(truth, policy.wide_crack_px)
    rows = [
        ("accuracy", right_N, all_N),
        ("recall: cracks found", right_N, crack_N),
        ("specificity: tiles without a crack left alone", right_N, ~crack_N),
        (f"recall on cracks from {policy.wide_crack_px:g} px", right_N, wide_N),
    ]
    by_width = [(name, right_N, mask) for name, mask in _by_width(truth)]
    by_source = [(f"{_cell(name)}: accuracy", right_N, mask) for name, mask in _by_source(frozen)]
    by_source += [(f"{_cell(name)}: recall", right_N, mask & crack_N) for name, mask in _by_source(frozen)]
    return [
        "## How well it does",
        "",
        "Share of tiles, with the 95 % interval of a bootstrap over photos.",
        "",
        *_table("", rows, truth.photo_N, policy),
        "",
        "By the widest place of the crack in the tile, in pixels of the photograph:",
        "",
        *_table("cracks found, width", by_width, truth.photo_N, policy),
        "",
        "By source of the photographs:",
        "",
        *_table("source", sorted(by_source), truth.photo_N, policy),
        "",
        "## Calibration",
        "",
        f"Expected calibration error {marks.ece:.3f} in {policy.ece_bins} bins.",
        "",
        "![crack probability against the share of cracks](calibration.png)",
    ]


def _table(
    title: str, rows: Sequence[tuple[str, Bools, Bools]], photo_N: Ints, policy: Policy
) -> Iterator[str]:
    yield from (
        f"| {title} | share | 95 % interval | tiles | photos |",
        "| --- | ---: | ---: | ---: | ---: |",
    )
    for name, right_N, mask_N in rows:
        interval = _share(right_N[mask_N], photo_N[mask_N], policy)
        bounds = ABSENT if math.isnan(interval.low) else f"{interval.low:.1%} to {interval.high:.1%}"
        share = ABSENT if math.isnan(interval.difference) else f"{interval.difference:.1%}"
        yield f"| {name} | {share} | {bounds} | {mask_N.sum()} | {len(np.unique(photo_N[mask_N]))} |"


def _share(right_N: Bools, photo_N: Ints, policy: Policy) -> Interval:
    nothing = np.zeros((1, len(right_N)), np.bool_)
    return difference_interval(nothing, right_N[None], photo_N, num_draws=policy.num_draws, seed=policy.seed)


def _by_width(truth: Truth) -> Iterator[tuple[str, Bools]]:
    crack_N = truth.labels_N == 1
    for low, high in pairwise(WIDTHS_PX):
        name = f"{low:g} px and more" if math.isinf(high) else f"{low:g} to {high:g} px"
        yield name, crack_N & (truth.width_px_N >= low) & (truth.width_px_N < high)
    unknown_N = crack_N & np.isnan(truth.width_px_N)
    if unknown_N.any():
        yield "unknown (ready tiles)", unknown_N


def _by_source(frozen: FrozenSet) -> Iterator[tuple[str, Bools]]:
    sources = frozen.column("source")
    for source in np.unique(sources):
        yield str(source), sources == source


def _calibration(truth: Truth, probs_N: Floats, num_bins: int) -> bytes:
    from matplotlib.figure import Figure

    from damcrack.evaluate.drawing import COLOURS, MUTED, finish, house_look

    bins = reliability(truth.labels_N, probs_N, num_bins)
    filled = bins.num_K > 0
    with house_look():
        figure = Figure(figsize=(4.2, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
        axes.plot(bins.mean_prob_K[filled], bins.crack_share_K[filled], color=COLOURS[0], lw=1)
        sizes = 15 + 200 * bins.num_K / bins.num_K.sum()
        axes.scatter(bins.mean_prob_K, bins.crack_share_K, s=sizes, color=COLOURS[0], alpha=0.75)
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xlabel="crack probability", ylabel="share of cracks")
        return finish("calibration", figure, "").png


def _surest_errors(truth: Truth, probs_N: Floats) -> list[int]:
    """Missed cracks, then false alarms, the surest first."""
    missed = np.flatnonzero((truth.labels_N == 1) & (probs_N <= 0.5))
    alarms = np.flatnonzero((truth.labels_N == 0) & (probs_N > 0.5))
    missed = missed[np.argsort(probs_N[missed], kind="stable")][:NUM_FAILURES]
    alarms = alarms[np.argsort(-probs_N[alarms], kind="stable")][:NUM_FAILURES]
    return [*missed.tolist(), *alarms.tolist()]


def _failures(frozen: FrozenSet, wrong: Sequence[int]) -> bytes:
    """A numbered sheet of tiles, as JPEG; an empty strip if there was no error."""
    pixels = {
        number: tile
        for numbers, tiles in frozen.batches()
        for number, tile in zip(numbers, tiles, strict=True)
        if number in wrong
    }
    num_rows = max(1, -(-len(wrong) // FAILURES_A_ROW))
    sheet = np.full((num_rows * FAILURE_PX, FAILURES_A_ROW * FAILURE_PX, 3), 255, np.uint8)
    for place, number in enumerate(wrong):
        y, x = (FAILURE_PX * part for part in divmod(place, FAILURES_A_ROW))
        side = FAILURE_PX - 4
        tile = cv2.resize(pixels[number], (side, side), interpolation=cv2.INTER_AREA)
        cv2.rectangle(tile, (0, 0), (22, 18), (255, 255, 255), -1)
        cv2.putText(tile, str(place + 1), (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        sheet[y : y + side, x : x + side] = tile
    done, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return bytes(encoded)


def _where_it_fails(frozen: FrozenSet, probs_N: Floats, wrong: Sequence[int]) -> list[str]:
    truth = frozen.truth
    missed_N = (truth.labels_N == 1) & (probs_N <= 0.5)
    alarms_N = (truth.labels_N == 0) & (probs_N > 0.5)
    lines = [
        "## Known failures",
        "",
        f"{missed_N.sum()} cracks missed, {alarms_N.sum()} false alarms on {len(probs_N)} tiles. The surest of both:",
        "",
        "![the surest errors](failures.jpg)",
        "",
    ]
    for place, number in enumerate(wrong, 1):
        row, width = frozen.images.rows[number], truth.width_px_N[number]
        what = "missed" if truth.labels_N[number] else "false alarm"
        wide = f", crack {width:.1f} px wide" if width > 0 else ""
        lines.append(
            f"{place}. {what} in {_cell(row['photo'])}, crack probability {probs_N[number]:.2f}{wide}"
        )
    return lines


def _how_to_verify(export: Path, model: Mapping[str, Any], contest: Contest) -> list[str]:
    files = ("model.onnx", "weights.safetensors", "model.json")
    sums = [f"{sha256_file(export / name)}  {name}" for name in files if (export / name).is_file()]
    return [
        "## How to verify the files",
        "",
        "In the folder with the version's files, `sha256sum --check` takes these lines; `damcrack inspect` and "
        "`damcrack promote` do the same by themselves, against the tags of the version.",
        "",
        "```",
        *sums,
        "```",
        "",
        f"The weights are `{model['weights_sha256']}`; `damcrack lineage VERSION` leads from them to code, data and "
        "teacher. The numbers above are those of the file with sha256 "
        f"`{contest.challenger.detector.sha256}`.",
    ]


def _cell(text: str) -> str:
    """Names from outside, without what Markdown would take for its own."""
    return "".join(
        f"\\{letter}" if letter in r"\`*_{}[]()#!|<>" else letter for letter in text.replace("\n", " ")
    )


def _page(title: str, markdown: str, folder: Path) -> str:
    from markdown_it import MarkdownIt

    body: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    for name, kind in (("calibration.png", "png"), ("failures.jpg", "jpeg")):
        data = base64.b64encode((folder / name).read_bytes()).decode()
        body = body.replace(f'src="{name}"', f'src="data:image/{kind};base64,{data}"')
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    style = STYLE.read_text(encoding="utf-8") + "img { max-width: 100%; }"
    return f'<!doctype html><html lang="en"><head>{head}<style>{style}</style></head><body>{body}</body></html>\n'
