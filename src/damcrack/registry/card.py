"""The model card: intended use, data, scores and failures of a version.

card.md           text and tables, from card.md.j2; its start is the version's description in the registry
card.html         the same on one page that needs no network, pictures inside
failures.jpg      the most confident errors
"""

import base64
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.data.imageset import UNLABELLED
from damcrack.files import read_csv, read_json, sha256_file, write_bytes
from damcrack.registry.config import Policy
from damcrack.registry.evaluation_set import EvaluationSet
from damcrack.registry.gate import ScoredModel, held_out
from damcrack.registry.policy import Bools, Floats, Truth, is_wide, score
from damcrack.scores.metrics import reliability
from damcrack.scores.statistics import difference_interval

WIDTHS_PX = (0.0, 2.0, 4.0, 8.0, 16.0, math.inf)
NUM_FAILURES, FAILURE_PX = 6, 140
SPLITS = ("train", UNLABELLED, "val", "evaluation")
FILES = ("model.onnx", "weights.safetensors", "model.json")
STYLE = Path(__file__).parents[1] / "style.css"
ABSENT = "–"  # noqa: RUF001 - an en dash, as tables have it


def write_card(
    folder: Path, scored: ScoredModel, chosen: EvaluationSet, export: Path, trained_on: Path, policy: Policy
) -> None:
    """Write the card of the model exported to `export`, scored on the evaluation set `chosen`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder.mkdir()
    truth, probs_N = chosen.truth, scored.probs_N
    missed, alarms = _errors(truth, probs_N)
    shown = [*missed[:NUM_FAILURES], *alarms[:NUM_FAILURES]]
    write_bytes(folder / "failures.jpg", _failures(chosen, shown))

    model = read_json(export / "model.json")
    # The text is Markdown: `cell` escapes names from outside, and the page is rendered without raw HTML.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["cell"] = _cell
    text = environment.get_template("card.md.j2").render(
        model=model,
        parents={"init_sha256": None, "teacher_sha256": None, **model.get("parents", {})},
        tile_px=chosen.tile_px,
        temperature=scored.detector.contract.get("calibration", {}).get("temperature", 1.0),
        digest=chosen.digest,
        num_tiles=len(probs_N),
        num_used=int((~held_out(chosen, [scored])).sum()),
        data=list(_data(read_csv(trained_on), chosen)),
        tables=_tables(chosen, probs_N, policy),
        ece=score(truth, probs_N, policy).ece,
        calibration=list(_calibration(truth, probs_N)),
        num_missed=len(missed),
        num_alarms=len(alarms),
        errors=[
            {
                "kind": "missed" if truth.labels_N[number] else "false alarm",
                "photo": chosen.images.rows[number]["photo"],
                "prob": probs_N[number],
                "width_px": truth.width_px_N[number],
            }
            for number in shown
        ],
        files=[(sha256_file(export / name), name) for name in FILES if (export / name).is_file()],
        onnx_sha256=scored.detector.sha256,
    )
    write_bytes(folder / "card.md", text.encode())
    write_bytes(folder / "card.html", _page(f"Model card: {model['name']}", text, folder).encode())


def _data(trained: Sequence[Mapping[str, str]], chosen: EvaluationSet) -> Iterator[tuple[str, str, int, int]]:
    """Source, split, number of photos and of tiles."""
    photos, tiles = defaultdict[tuple[str, str], set[str]](set), Counter[tuple[str, str]]()
    for row in trained:
        photos[row["source"], row["split"]].add(row["photo"])
        tiles[row["source"], row["split"]] += int(row["num_tiles"])
    for row in chosen.images.rows:
        photos[row["source"], "evaluation"].add(row["photo"])
        tiles[row["source"], "evaluation"] += 1
    for source, split in sorted(tiles, key=lambda pair: (pair[0], SPLITS.index(pair[1]))):
        yield source, split, len(photos[source, split]), tiles[source, split]


def _tables(chosen: EvaluationSet, probs_N: Floats, policy: Policy) -> list[tuple[str, list[dict[str, Any]]]]:
    truth = chosen.truth
    crack_N, all_N = truth.labels_N == 1, np.ones(len(probs_N), np.bool_)
    right_N = (probs_N > 0.5) == crack_N

    def rows(masks: Mapping[str, Bools]) -> list[dict[str, Any]]:
        return [_row(name, right_N, mask_N, truth) for name, mask_N in masks.items()]

    overall = {
        "accuracy": all_N,
        "recall: cracks found": crack_N,
        "specificity: tiles without a crack left alone": ~crack_N,
        f"recall on cracks from {policy.wide_crack_px:g} px": is_wide(truth, policy.wide_crack_px),
    }
    by_width = {
        f"{low:g} px and more" if math.isinf(high) else f"{low:g} to {high:g} px": crack_N
        & (truth.width_px_N >= low)
        & (truth.width_px_N < high)
        for low, high in pairwise(WIDTHS_PX)
    }
    unknown_N = crack_N & np.isnan(truth.width_px_N)
    sources = chosen.column("source")
    by_source = {
        f"{source}: {name}": (sources == source) & mask_N
        for source in np.unique(sources)
        for name, mask_N in (("accuracy", all_N), ("recall", crack_N))
    }
    widths = "Cracks found, by the width of the tile's widest crack, in pixels of the photograph:"
    return [
        ("", rows(overall)),
        (widths, rows(by_width | ({"unknown (ready tiles)": unknown_N} if unknown_N.any() else {}))),
        ("By source of the photographs:", rows(by_source)),
    ]


def _row(name: str, right_N: Bools, mask_N: Bools, truth: Truth) -> dict[str, Any]:
    right_1N, photo_N = right_N[None, mask_N], truth.photo_N[mask_N]
    share, low, high = difference_interval(np.zeros_like(right_1N), right_1N, photo_N)
    return {
        "name": name,
        "share": ABSENT if math.isnan(share) else f"{share:.1%}",
        "interval": ABSENT if math.isnan(low) else f"{low:.1%} to {high:.1%}",
        "num_tiles": len(photo_N),
        "num_photos": len(np.unique(photo_N)),
    }


def _errors(truth: Truth, probs_N: Floats) -> tuple[list[int], list[int]]:
    """Missed cracks and false alarms, the most confident first."""
    order, found_N = np.argsort(probs_N, kind="stable").tolist(), probs_N > 0.5
    missed = [number for number in order if truth.labels_N[number] == 1 and not found_N[number]]
    alarms = [number for number in reversed(order) if truth.labels_N[number] == 0 and found_N[number]]
    return missed, alarms


def _calibration(truth: Truth, probs_N: Floats) -> Iterator[tuple[str, int, float, float]]:
    """Bins of probability with tiles in them: name, tiles, mean probability, share of cracks."""
    bins = reliability(truth.labels_N, probs_N)
    for number, (num, prob, share) in enumerate(zip(*(part.tolist() for part in bins), strict=True)):
        if num:
            yield f"{10 * number} to {10 * number + 10} %", num, prob, share


def _failures(chosen: EvaluationSet, shown: Sequence[int]) -> bytes:
    """Tiles in rows of NUM_FAILURES, as JPEG; an empty strip if there was no error."""
    num_rows = max(1, math.ceil(len(shown) / NUM_FAILURES))
    sheet = np.full((num_rows, NUM_FAILURES, FAILURE_PX, FAILURE_PX, 3), 255, np.uint8)
    for numbers, tiles in chosen.batches():
        for number, tile in zip(numbers, tiles, strict=True):
            if number in shown:
                place, side = divmod(shown.index(number), NUM_FAILURES), FAILURE_PX - 4
                sheet[place][:side, :side] = cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA)
    rows = sheet.swapaxes(1, 2).reshape(num_rows * FAILURE_PX, -1, 3)
    encoded = cv2.imencode(".jpg", rows[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return bytes(encoded)


def _cell(text: str) -> str:
    """Names from outside, with what Markdown would interpret escaped."""
    return "".join(
        f"\\{letter}" if letter in r"\`*_{}[]()#!|<>" else letter for letter in text.replace("\n", " ")
    )


def _page(title: str, markdown: str, folder: Path) -> str:
    from markdown_it import MarkdownIt

    body: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    data = base64.b64encode((folder / "failures.jpg").read_bytes()).decode()
    body = body.replace('src="failures.jpg"', f'src="data:image/jpeg;base64,{data}"')
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    style = STYLE.read_text(encoding="utf-8") + "img { max-width: 100%; }"
    return f'<!doctype html><html lang="en"><head>{head}<style>{style}</style></head><body>{body}</body></html>\n'
