"""Brightness thresholding: what a detector that only looks at dark pixels can do.

Shape suffixes: N tiles, L = 256 grey levels, H and W pixels of one tile.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

LEVELS = 256
# Bradley & Roth 2007: an eighth of the image (here the paper's 224 px tile), 15 % darker (here of mid grey). So the
# window is several times as wide as a crack, which then hardly darkens its own mean, and narrower than most shadows.
WINDOW_PX = 29
MARGIN = 19

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


class Rule(NamedTuple):
    """Call a tile a crack if `sign * score >= cut`; sign is -1 where cracks score low."""

    sign: int
    cut: float

    def scores(self, scores_N: Floats) -> Floats:
        """Scores turned so that higher means crack."""
        return self.sign * scores_N

    def decide(self, scores_N: Floats) -> Labels:
        """1 for crack, 0 for none."""
        return (self.scores(scores_N) >= self.cut).astype(np.int64)


def darker_share(histograms_NL: Counts) -> Floats:
    """Share of pixels darker than each level, (N, L): column t counts grey values below t."""
    below_NL = np.cumsum(histograms_NL, axis=1) - histograms_NL
    share_NL: Floats = below_NL / histograms_NL.sum(axis=1, keepdims=True)
    return share_NL


def otsu_dark(grey_HW: Grey) -> Mask:
    """Pixels (H, W) on the dark side of the tile's own level (Otsu 1979); none for one grey above 0."""
    level, _ = cv2.threshold(grey_HW, 0, 1, cv2.THRESH_OTSU)
    mask_HW: Mask = grey_HW <= level
    return mask_HW


def adaptive_dark(grey_HW: Grey) -> Mask:
    """Pixels (H, W) at least MARGIN grey levels darker than the rounded mean of the WINDOW_PX square around them.

    Beyond the border the tile's edge is repeated.
    """
    mean, inverse = cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV
    return cv2.adaptiveThreshold(grey_HW, 1, mean, inverse, WINDOW_PX, MARGIN).astype(np.bool_)


def best_rule(scores_N: Floats, labels_N: Labels) -> tuple[Rule, float]:
    """The cut and direction with the highest accuracy on these tiles, and that accuracy.

    The cut lies midway between neighbouring scores; of equally good ones the lowest, sign +1 first.
    """
    found = [(*_best_cut(sign * scores_N, labels_N), sign) for sign in (1, -1)]
    hits, cut, sign = max(found, key=lambda option: option[0])
    return Rule(sign, cut), hits / len(labels_N)


def _best_cut(scores_N: Floats, labels_N: Labels) -> tuple[int, float]:
    order = np.argsort(scores_N, kind="stable")
    scores_N, labels_N = scores_N[order], labels_N[order]
    # hits[i]: right verdicts if the i lowest scores are called "no crack" and the rest "crack"
    hits = labels_N.sum() + np.append(0, np.cumsum(1 - 2 * labels_N))
    possible = np.append(True, np.append(np.diff(scores_N) > 0, True))
    best = int(np.argmax(np.where(possible, hits, -1)))
    return int(hits[best]), _between(scores_N, best)


def _between(scores_N: Floats, num_below: int) -> float:
    if num_below == 0:
        return float(scores_N[0])
    below = scores_N[num_below - 1]
    just_above = np.nextafter(below, np.inf)
    if num_below == len(scores_N):
        return float(just_above)
    return float(max((below + scores_N[num_below]) / 2, just_above))


class GlobalThreshold(NamedTuple):
    """Count pixels darker than `level`, then apply `rule` to their share."""

    level: int
    rule: Rule


def fit_global_threshold(histograms_NL: Counts, labels_N: Labels) -> GlobalThreshold:
    """Choose the darkness level and the rule together, by accuracy on these tiles."""
    share_NL = darker_share(histograms_NL)
    rules = [best_rule(share_NL[:, level], labels_N) for level in range(LEVELS)]
    level = int(np.argmax([hits for _, hits in rules]))
    return GlobalThreshold(level, rules[level][0])
