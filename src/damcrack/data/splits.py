"""Choosing tiles and dividing them: balanced, deterministic, with everything alike on one side."""

import numpy as np
import numpy.typing as npt

from damcrack.files import InputError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Whole groups are tried in so many random orders; the best division wins.
NUM_ORDERS = 64
# Summed miss of all shares that is good enough to stop at.
GOOD_MISS = 0.01


def choose_per_class(labels: Ints, per_class: int | None, seed: int) -> Ints:
    """Choose `per_class` positions of each class, 0 and 1, at random (None: as many as the scarcer has), ascending."""
    of_classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    wanted = min(map(len, of_classes)) if per_class is None else per_class
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.choice(places, wanted, replace=False) for places in of_classes]))


def split_at_random(labels: Ints, together: Ints, val_fraction: float, seed: int) -> Bools:
    """True (N,) for validation: round(n * val_fraction) of each class, equal `together` numbers on one side.

    Groups are placed first, the largest first, each on the side that has had less than its share; single
    members then fill both sides up, so the counts are exact whenever there are enough of them.
    """
    _, group, sizes = np.unique(together, return_inverse=True, return_counts=True)
    num_classes = int(labels.max(initial=0)) + 1
    rng = np.random.default_rng(seed)
    totals = np.bincount(labels, minlength=num_classes)
    quota = np.array([round(n * val_fraction) for n in totals.tolist()])
    in_val = np.zeros(len(sizes), bool)
    several = rng.permutation(np.flatnonzero(sizes > 1))
    several = several[np.argsort(-sizes[several], kind="stable")]
    in_val[several] = _place_groups(_class_counts(group, labels, num_classes)[several], quota, totals - quota)
    for label in range(num_classes):
        missing = quota[label] - np.count_nonzero(in_val[group] & (labels == label))
        singles = rng.permutation(group[(labels == label) & (sizes[group] == 1)])
        in_val[singles[: max(0, missing)]] = True
    return in_val[group]


def _class_counts(group: Ints, labels: Ints, num_classes: int) -> Ints:
    """Members of each class in each group, (G, C)."""
    num_groups = int(group.max(initial=-1)) + 1
    flat = np.bincount(group * num_classes + labels, minlength=num_groups * num_classes)
    return flat.reshape(num_groups, num_classes)


def _place_groups(counts: Ints, val_quota: Ints, train_quota: Ints) -> Bools:
    """True for each group (G, C) that goes to validation, in the given order."""
    quotas = np.stack([train_quota, val_quota])
    held, placed = np.zeros_like(quotas), np.zeros(len(counts), bool)
    for number, group in enumerate(counts):
        filled = held.sum(axis=1) / np.maximum(1, quotas.sum(axis=1))
        overflow = np.maximum(held + group - quotas, 0).sum(axis=1)
        side = min((0, 1), key=lambda each: (overflow[each], filled[each]))
        held[side] += group
        placed[number] = side == 1
    return placed


def split_by_group(labels: Ints, groups: Ints, val_fraction: float, seed: int) -> Bools:
    """True (N,) for validation: whole groups, near `val_fraction` of each class's tiles and of the groups.

    Of many random orders, each filled greedily, the first best one is taken; a side without one of the
    classes is worse than any other miss.

    Raises:
        InputError: fewer than two groups.
    """
    _, group = np.unique(groups, return_inverse=True)
    counts = _class_counts(group, labels, int(labels.max(initial=0)) + 1)
    if len(counts) < 2:
        raise InputError(
            f"a split by photo needs at least two groups of photos, there are {len(counts)}; "
            "add photos, use split: random, or set keep_duplicates_together: false"
        )
    return choose_groups(counts, val_fraction, seed)[group]


def choose_groups(counts: Ints, fraction: float, seed: int) -> Bools:
    """Choose groups, at least one and not all, that hold near `fraction` of each column of counts (G, C).

    Few groups may hold more, so that both sides have something of each column.
    """
    counts = np.concatenate([np.ones((len(counts), 1), np.int64), counts], axis=1)
    counts = counts[:, counts.sum(axis=0) > 0]
    shares = counts / counts.sum(axis=0)
    rng = np.random.default_rng(seed)
    best, best_score = np.zeros(len(counts), bool), (np.inf, np.inf)
    for number in range(2 * NUM_ORDERS):
        if number >= NUM_ORDERS and best_score[0] == 0:
            break
        chosen = _fill(shares, rng.permutation(len(counts)), fraction, complete=number >= NUM_ORDERS)
        held = shares[chosen].sum(axis=0)
        lacking = sum(np.count_nonzero(~counts[side].any(axis=0)) for side in (chosen, ~chosen))
        score = (float(lacking), float(np.abs(held - fraction).sum()))
        if score < best_score:
            best, best_score = chosen, score
        if best_score <= (0, GOOD_MISS):
            break
    return best


def _fill(shares: npt.NDArray[np.float64], order: Ints, fraction: float, complete: bool) -> Bools:
    """Take groups in order, each if it brings the held shares nearer to `fraction`; the first in any case.

    With `complete` a group with something of a column of which nothing is held is taken too.
    """
    chosen = np.zeros(len(order), bool)
    chosen[order[0]] = True
    held = shares[order[0]]
    for number in order[1:-1]:
        with_it = held + shares[number]
        nearer = np.abs(with_it - fraction).sum() < np.abs(held - fraction).sum()
        if nearer or (complete and ((held == 0) & (with_it > 0)).any()):
            chosen[number] = True
            held = with_it
    return chosen
