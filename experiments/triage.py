"""Fit how much evidence a traced line has, and what photos are called by it (damcrack.cracks.measure).

    python -m experiments.triage --data DIR --work .bench/triage

DIR holds the real sources (experiments/unseen/sources.py). Lines are traced once and stored under --work. Numbers are
fitted on the sources of FITTED and on every other clean wall; all other photos are what the table reports.
"""

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from damcrack.cracks.detector import SHIPPED, OnnxDetector
from damcrack.cracks.measure import confidence
from damcrack.cracks.photo import Rules, look_at
from damcrack.inspection.config import InspectConfig
from experiments.commands import command, table, with_data
from experiments.unseen.sources import WALLS, read_photos, read_pixels

FITTED = ("cfd", "deepcrack", "recife-crackconcrete", "recife-cracktile", "rissbilder", "uav-embankment")
REPORTED = ("hires", "masonry240", "nha12d", "toshi-specimen", "uav75")
NEAR_PX, REAL_SHARE, FALSE_SHARE = 10, 0.5, 0.1  # of a line that lies on marked cracks
FROM = 0.0  # evidence above which lines on clean walls are counted
Row = dict[str, Any]


def traced(photos: Sequence[Any]) -> Iterator[Row]:
    """Lines of each photo, with the share of each that lies near a marked crack."""
    config, detector = InspectConfig(), OnnxDetector.load(SHIPPED)
    rules = Rules.of(config)
    with ThreadPoolExecutor(1) as workers:
        for photo in photos:
            rgb, true = read_pixels(photo)
            if true is None or min(rgb.shape[:2]) < detector.tile_px:
                continue
            near = cv2.dilate(true, np.ones((2 * NEAR_PX + 1,) * 2, np.uint8))
            lines = [
                {
                    "logit": math.log(crack.crack_prob / (1 - crack.crack_prob)),
                    "log_length": math.log(crack.length_px),
                    "log_width": math.log(crack.width_max_px),
                    "on_cracks": float(near[tuple(crack.samples[:, 1::-1].T.astype(int))].mean()),
                }
                for crack in look_at(rgb, detector, rules, workers).cracks
            ]
            known = {"source": photo.source, "megapixels": rgb.shape[0] * rgb.shape[1] / 1e6}
            yield known | {"cracked": bool(true.any()), "lines": lines}


def features(line: Row) -> list[float]:
    """What a line's evidence is made of."""
    return [line["logit"], line["log_length"], line["log_width"]]


def is_clear(line: Row) -> bool:
    """Whether it lies on marked cracks, or on none."""
    return not FALSE_SHARE <= line["on_cracks"] < REAL_SHARE


def fit(rows: Sequence[Row]) -> LogisticRegression:
    """Log odds of a line; sources weigh by the root of their number of lines, so that none speaks for all."""
    clear = [(row["source"], line) for row in rows for line in row["lines"] if is_clear(line)]
    kinds = [(source, line["on_cracks"] >= REAL_SHARE) for source, line in clear]
    weights = [1 / math.sqrt(kinds.count(kind)) for kind in kinds]
    model = LogisticRegression(C=100, max_iter=1000)
    return model.fit([features(line) for _, line in clear], [real for _, real in kinds], weights)


def log_odds(model: LogisticRegression, row: Row) -> list[float]:
    """Of each line of a photo."""
    if not row["lines"]:
        return []
    found: list[float] = model.decision_function([features(line) for line in row["lines"]]).tolist()
    return found


def false_rate(model: LogisticRegression, walls: Sequence[Row]) -> float:
    """Lines of evidence 0 or more on a megapixel of clean wall."""
    found = [value for row in walls for value in log_odds(model, row) if value >= FROM]
    return len(found) / sum(row["megapixels"] for row in walls)


def separation(model: LogisticRegression, rows: Sequence[Row]) -> str:
    """How well lines on marked cracks and lines on none are told apart, by evidence and by probability alone."""
    lines = [one for row in rows for one in zip(log_odds(model, row), row["lines"], strict=True)]
    clear = [(value, line) for value, line in lines if is_clear(line)]
    real = [line["on_cracks"] >= REAL_SHARE for _, line in clear]
    evidence = roc_auc_score(real, [value for value, _ in clear])
    prob = roc_auc_score(real, [line["logit"] for _, line in clear])
    return (
        f"AUROC of {len(real)} lines, {sum(real)} of them cracks: {evidence:.3f}, by probability {prob:.3f}"
    )


def called(model: LogisticRegression, rows: Sequence[Row]) -> str:
    """Markdown: what photos are called by their most convincing line, and by whether they have one at all."""
    heads = ["photos", "number", "megapixels each", "crack or unsure", "crack", "with any traced line"]
    heads.append("crack or unsure by a line on no marked crack")
    lines = []
    unsure, crack = InspectConfig().confident
    names = sorted({(row["source"], row["cracked"]) for row in rows})
    for source, cracked in names:
        of = [row for row in rows if (row["source"], row["cracked"]) == (source, cracked)]
        best, by_mistake = [], []
        for row in of:
            found = [
                (confidence(value, row["megapixels"]), line["on_cracks"] < FALSE_SHARE)
                for value, line in zip(log_odds(model, row), row["lines"], strict=True)
            ]
            best.append(max((value for value, _ in found), default=0.0))
            by_mistake.append(max((value for value, is_false in found if is_false), default=0.0))
        shares = [np.mean(np.array(best) >= cut) for cut in (unsure, crack, 1e-9)]
        shares.append(np.mean(np.array(by_mistake) >= unsure))
        size = np.mean([row["megapixels"] for row in of])
        numbers = [str(len(of)), f"{size:.1f}", *(f"{100 * share:.0f} %" for share in shares)]
        lines.append([f"{source}, {'cracked' if cracked else 'clean'}", *numbers])
    return table(heads, 1, lines)


def main() -> None:
    """Trace what is missing, fit, print."""
    parser = command("triage", __doc__)
    parser.add_argument("--work", type=Path, default=Path(".bench/triage"))
    parser.add_argument("--max-per-source", type=int, default=60)
    args = with_data(parser)
    args.work.mkdir(parents=True, exist_ok=True)
    rows = dict[str, list[Row]]()
    for source in (*FITTED, *REPORTED, WALLS):
        stored = args.work / f"{source}.json"
        if not stored.exists():
            limit = None if source == WALLS else args.max_per_source
            stored.write_text(json.dumps(list(traced(read_photos(args.data, [source], limit)))))
        rows[source] = json.loads(stored.read_text())
    walls = rows.pop(WALLS)
    model = fit([row for source in FITTED for row in rows[source]] + walls[::2])
    reported = [row for source in REPORTED for row in rows[source]] + walls[1::2]
    weights, bias = model.coef_[0].round(2), model.intercept_.round(2)
    print(f"weights of logit, log length, log width: {weights} bias: {bias}")
    fitted, others = (round(false_rate(model, part), 2) for part in (walls[::2], walls[1::2]))
    print(f"false lines per megapixel of clean wall: {fitted} fitted, {others} on the others")
    print("all reported:", separation(model, reported))
    for source in REPORTED:
        print(f"{source}:", separation(model, rows[source]))
    print(called(model, reported))


if __name__ == "__main__":
    main()
