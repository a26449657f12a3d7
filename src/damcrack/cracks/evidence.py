"""How much speaks for a traced line being a crack, and what that is worth in a photo of its size.

A crack is long, thin and clear to the network. `evidence` puts that into one number, the log odds of a logistic
regression. Clean walls show such lines too, the more of them the larger the photo: so a line is worth what it is
unlikely to be there by mistake (`confidence`). All numbers are fitted by `python -m experiments.triage`.
"""

import math

from damcrack.cracks.measure import Crack

PROB_WEIGHT, LENGTH_WEIGHT, WIDTH_WEIGHT, BIAS = 2.39, 1.38, -2.37, -3.56
FALSE_PER_MEGAPIXEL = (
    0.6  # lines of evidence 0 or more on clean walls; with each unit of evidence e times fewer
)

WEIGHTS = (PROB_WEIGHT, LENGTH_WEIGHT, WIDTH_WEIGHT, BIAS, FALSE_PER_MEGAPIXEL)


def evidence(crack: Crack) -> float:
    """Log odds that a traced line is a crack: 0 where as many are as are not."""
    prob = min(max(crack.crack_prob, 1e-3), 1 - 1e-3)
    return (
        PROB_WEIGHT * math.log(prob / (1 - prob))
        + LENGTH_WEIGHT * math.log(crack.length_px)
        + WIDTH_WEIGHT * math.log(crack.width_max_px)
        + BIAS
    )


def chance(log_odds: float) -> float:
    """The probability of log odds."""
    return 1 / (1 + math.exp(-log_odds))


def confidence(log_odds: float, megapixels: float) -> float:
    """Chance that a clean wall in a photo of so many megapixels shows no line of this evidence or more."""
    return math.exp(-megapixels * FALSE_PER_MEGAPIXEL * math.exp(-log_odds))
