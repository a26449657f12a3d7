"""How often the promotion gate decides rightly, on simulated answers of two models to the same tiles.

    python -m experiments.promotion [--draws 1000]   # five minutes on one core; prints docs/promotion.md's table

Photos hold 8 to 32 tiles (20 on average), half of them with a crack. A model is right on a tile where a normal
variable with four parts is below a threshold: how hard the photo is (15 % of the variance, common to both models), how
well *this* model suits *this* photo (10 or 25 %), how hard the tile is (40 %, common to both), and chance. The second
part makes the tiles of a photo agree about which model is better; the table shows how much, as the intraclass
correlation of the difference within photos. The champion is right on 90 % of the tiles.
"""

import argparse
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from damcrack.params import read_params, stage_config
from damcrack.registry.config import Policy
from damcrack.registry.policy import Floats, Ints, Truth, compare, decide, score
from experiments.commands import table

SEED = 0
ACCURACY = 0.90
HARD_PHOTO, HARD_TILE = 0.15, 0.40
MEDIAN_WIDTH_PX = 8.0  # half of the simulated cracks count as wide
SURE = 0.92  # probability of the answer: close to how often it is right
CASES = (
    # photos, gain in points, share of the variance that is how well this model suits this photo
    (200, 0.0, 0.10),
    (200, 0.0, 0.25),
    (50, 0.0, 0.10),
    (50, 0.0, 0.25),
    (20, 0.0, 0.10),
    (20, 0.0, 0.25),
    (200, 3.0, 0.10),
    (200, 3.0, 0.25),
    (200, 2.0, 0.10),
    (200, 1.0, 0.10),
    (50, 3.0, 0.10),
    (20, 3.0, 0.10),
    (20, 6.0, 0.10),
    (200, -3.0, 0.10),
)


@dataclass(frozen=True)
class Outcome:
    """What the gate decided in one draw, and what two simpler rules would have."""

    decision: str
    higher_accuracy: bool
    mcnemar_alone: bool
    correlation: float


def outcome(rng: np.random.Generator, num_photos: int, gain: float, suits: float, policy: Policy) -> Outcome:
    """Draw the answers of champion and challenger once and let the gate decide."""
    truth = _truth(rng, num_photos)
    champion, challenger = _answers(rng, truth, (ACCURACY, ACCURACY + gain), suits)
    compared = compare(truth, champion, challenger, policy)
    better = compared.tiles > 0
    return Outcome(
        decision=decide(score(truth, challenger, policy), compared, policy).outcome,
        higher_accuracy=better,
        mcnemar_alone=better and compared.p <= 1 - policy.confidence,
        correlation=intraclass_correlation(_difference(truth, champion, challenger), truth.photo_N),
    )


def _difference(truth: Truth, champion: Floats, challenger: Floats) -> Floats:
    crack = truth.labels_N == 1
    return ((challenger > 0.5) == crack).astype(np.float64) - ((champion > 0.5) == crack)


def intraclass_correlation(values_N: Floats, photo_N: Ints) -> float:
    """How much the tiles of one photo agree, from the one-way analysis of variance (Fisher 1925)."""
    _, index_N, size_G = np.unique(photo_N, return_inverse=True, return_counts=True)
    mean_G, num, groups = np.bincount(index_N, weights=values_N) / size_G, len(values_N), len(size_G)
    between = (size_G * (mean_G - values_N.mean()) ** 2).sum() / (groups - 1)
    within = ((values_N - mean_G[index_N]) ** 2).sum() / (num - groups)
    usual_size = (num - (size_G**2).sum() / num) / (groups - 1)
    return float((between - within) / (between + (usual_size - 1) * within))


def _truth(rng: np.random.Generator, num_photos: int) -> Truth:
    photo = np.repeat(np.arange(num_photos), rng.integers(8, 33, num_photos))
    labels = rng.permutation(np.arange(len(photo)) % 2)
    width = np.where(labels == 1, rng.lognormal(math.log(MEDIAN_WIDTH_PX), 0.6, len(photo)), 0.0)
    return Truth(labels, photo, width)


def _answers(
    rng: np.random.Generator, truth: Truth, accuracies: tuple[float, float], suits: float
) -> list[Floats]:
    num, num_photos = len(truth.photo_N), int(truth.photo_N[-1]) + 1
    common = math.sqrt(HARD_PHOTO) * rng.normal(size=num_photos)[truth.photo_N]
    common += math.sqrt(HARD_TILE) * rng.normal(size=num)
    left = 1 - HARD_PHOTO - HARD_TILE - suits
    answers = []
    for accuracy in accuracies:
        own = math.sqrt(suits) * rng.normal(size=num_photos)[truth.photo_N]
        own += math.sqrt(left) * rng.normal(size=num)
        right = common + own < NormalDist().inv_cdf(accuracy)
        says_crack = right == (truth.labels_N == 1)
        answers.append(np.where(says_crack, SURE, 1 - SURE))
    return answers


def simulated(num_draws: int, policy: Policy) -> str:
    """The cases as a Markdown table: shares of the draws in which each rule promotes."""
    heads = ["photos", "gain, points", "correlation", "the gate promotes"]
    rows = []
    for number, (num_photos, points, suits) in enumerate(CASES):
        rng = np.random.default_rng([number, SEED])
        drawn = [outcome(rng, num_photos, points / 100, suits, policy) for _ in range(num_draws)]
        shares = (
            Counter(one.decision for one in drawn)["promoted"],
            sum(one.higher_accuracy for one in drawn),
            sum(one.mcnemar_alone for one in drawn),
        )
        correlation = float(np.mean([one.correlation for one in drawn]))
        row = [str(num_photos), f"{points:+.0f}", f"{correlation:.2f}"]
        rows.append(row + [f"{share / num_draws:.1%}" for share in shares])
        print(*rows[-1], sep=" | ", flush=True)
    return table([*heads, "higher accuracy would", "McNemar alone would"], 0, rows)


def main() -> None:
    """Print the table for the policy of the demo values, whose floors do not matter here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000)
    draws = parser.parse_args().draws
    policy = stage_config(read_params(Path("params/demo.yaml")), "register", None)
    print(f"\n{simulated(draws, policy)}\n\n{draws} draws a row, policy of params/demo.yaml.")


if __name__ == "__main__":
    main()
