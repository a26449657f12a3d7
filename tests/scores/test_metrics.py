import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damcrack.scores import metrics
from damcrack.scores.metrics import Confusion

LABELS = st.lists(st.integers(0, 1), min_size=1, max_size=60)
# few distinct values, so that ties are common
PROBS = st.integers(0, 12).map(lambda step: step / 12)


@st.composite
def labelled_probs(draw):
    labels = np.array(draw(LABELS), dtype=np.int64)
    probs = draw(st.lists(PROBS, min_size=len(labels), max_size=len(labels)))
    return labels, np.array(probs)


@given(labelled_probs())
def test_decision_scores_count_the_four_cases(case):
    """Confusion matrix, accuracy, precision, recall and F1 as defined, undefined ones NaN."""
    labels, probs = case
    pairs = list(zip(labels.tolist(), (probs > 0.5).astype(int).tolist(), strict=True))
    tn, fp, fn, tp = (pairs.count(pair) for pair in [(0, 0), (0, 1), (1, 0), (1, 1)])
    counts = metrics.confusion(labels, (probs > 0.5).astype(np.int64))
    assert counts == (tn, fp, fn, tp)
    assert metrics.accuracy(counts) == np.mean([truth == verdict for truth, verdict in pairs])
    precision = tp / (tp + fp) if tp + fp else math.nan
    recall = tp / (tp + fn) if tp + fn else math.nan
    assert metrics.precision(counts) == pytest.approx(precision, nan_ok=True)
    assert metrics.recall(counts) == pytest.approx(recall, nan_ok=True)
    if precision + recall > 0:
        assert metrics.f1(counts) == pytest.approx(2 / (1 / precision + 1 / recall) if tp else 0)


@given(labelled_probs())
def test_auroc_is_the_share_of_correctly_ordered_pairs(case):
    """AUROC counts pairs of a crack and none, ties half; without both classes it is NaN."""
    labels, probs = case
    cracks, others = probs[labels == 1], probs[labels == 0]
    if not len(cracks) or not len(others):
        assert math.isnan(metrics.auroc(labels, probs))
        return
    above = (cracks[:, None] > others[None]).mean() + (cracks[:, None] == others[None]).mean() / 2
    assert metrics.auroc(labels, probs) == pytest.approx(above, abs=1e-12)


@given(labelled_probs(), st.integers(2, 15))
def test_calibration_error_agrees_with_a_slow_version(case, num_bins):
    """ECE is the tile-weighted mean of |mean probability - share of cracks| over bins of equal width."""
    labels, probs = case
    total = 0.0
    for k in range(num_bins):
        last = k == num_bins - 1
        members = [i for i, p in enumerate(probs) if int(p * num_bins) == k or (last and p == 1.0)]
        if members:
            gap = abs(np.mean(probs[members]) - np.mean(labels[members]))
            total += len(members) / len(labels) * gap
    bins = metrics.reliability(labels, probs, num_bins)
    assert metrics.expected_calibration_error(bins) == pytest.approx(total, abs=1e-12)
    assert bins.num_K.sum() == len(labels)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (0, 0, 0.0, 1.0),  # nothing is known of nothing
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # a published example (Newcombe 1998, table I)
    ],
)
def test_wilson_interval_gives_published_values(right, total, low, high):
    """The score interval is Wilson's, without continuity correction."""
    assert metrics.wilson_interval(right, total) == pytest.approx((low, high), abs=5e-5)


def test_undefined_ratios_are_nan():
    """No verdict "crack": precision has no denominator; no crack: recall has none."""
    assert math.isnan(metrics.precision(Confusion(tn=3, fp=0, fn=1, tp=0)))
    assert math.isnan(metrics.recall(Confusion(tn=3, fp=1, fn=0, tp=0)))


def test_a_machine_that_inspects_needs_neither_scikit_learn_nor_scipy():
    """Scores and the rooms that only inspect photos import without them."""
    code = (
        "import sys\n"
        "import damcrack.inspection.inspect, damcrack.inspection.case_study, damcrack.scores.statistics\n"
        "print('LOADED', sorted({'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout
