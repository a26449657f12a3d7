import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damcrack.data.splits import choose_groups, choose_per_class, split_at_random, split_by_group
from damcrack.files import InputError

SEEDS = st.integers(0, 50)
FRACTIONS = st.sampled_from([0.1, 0.2, 0.35, 0.5])


@st.composite
def grouped_labels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of two classes and the group of each member, groups of 1 to 6 mixed at will."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=40))
    group = np.repeat(np.arange(len(sizes)) * 7, sizes)
    labels = np.random.default_rng(draw(SEEDS)).integers(0, 2, len(group))
    return labels, group


def num_divided(group: np.ndarray, in_val: np.ndarray) -> int:
    """How many groups have members on both sides."""
    return len(set(group[in_val]) & set(group[~in_val]))


@given(SEEDS, st.integers(1, 30))
def test_equally_many_of_each_class_are_chosen(seed: int, per_class: int) -> None:
    """Exactly per_class different members of each class, ascending, the same for the same seed."""
    labels = np.random.default_rng(seed).permutation(np.repeat([0, 1], [30, 45]))
    chosen = choose_per_class(labels, per_class, seed)
    assert np.bincount(labels[chosen]).tolist() == [per_class, per_class]
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, choose_per_class(labels, per_class, seed))


def test_without_a_number_the_scarcer_class_decides() -> None:
    """None takes all of the scarcer class and as many of the other."""
    labels = np.repeat([0, 1], [9, 4])
    assert np.bincount(labels[choose_per_class(labels, None, 0)]).tolist() == [4, 4]


@given(grouped_labels(), FRACTIONS, SEEDS)
def test_a_random_split_keeps_groups_together(
    members: tuple[np.ndarray, np.ndarray], fraction: float, seed: int
) -> None:
    """No group has members on both sides, and the same seed gives the same split."""
    labels, group = members
    in_val = split_at_random(labels, group, fraction, seed)
    assert num_divided(group, in_val) == 0
    assert np.array_equal(in_val, split_at_random(labels, group, fraction, seed))


@given(grouped_labels(), FRACTIONS, SEEDS)
def test_a_random_split_is_exact_where_singletons_allow(
    members: tuple[np.ndarray, np.ndarray], fraction: float, seed: int
) -> None:
    """With as many single members as grouped ones, each class has exactly round(n * val_fraction)."""
    labels, group = members
    singles = np.arange(2 * len(labels)) + group.max() + 1
    labels = np.concatenate([labels, labels, 1 - labels])
    group = np.concatenate([group, singles])
    in_val = split_at_random(labels, group, fraction, seed)
    for label in (0, 1):
        total = int((labels == label).sum())
        assert int((in_val & (labels == label)).sum()) == round(total * fraction)


def test_groups_go_to_both_sides_of_a_random_split() -> None:
    """Validation gets about its share of the grouped members, not all or none of them."""
    group = np.concatenate([np.repeat(np.arange(100), 3), np.arange(100, 800)])
    labels = np.arange(1000) % 2
    grouped_in_val = split_at_random(labels, group, 0.2, 0)[:300].sum()
    assert 45 <= grouped_in_val <= 75


@settings(max_examples=30)
@given(grouped_labels(), FRACTIONS, SEEDS)
def test_a_split_by_group_never_divides_a_group(
    members: tuple[np.ndarray, np.ndarray], fraction: float, seed: int
) -> None:
    """Whole groups on one side, neither side empty, deterministic."""
    labels, group = members
    in_val = split_by_group(labels, group, fraction, seed)
    assert num_divided(group, in_val) == 0
    assert 0 < in_val.mean() < 1
    assert np.array_equal(in_val, split_by_group(labels, group, fraction, seed))


def test_a_split_by_group_comes_near_the_fraction() -> None:
    """With 50 photos of very different size, validation holds 20 % of each class within 2 points."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(50), rng.integers(5, 200, 50))
    labels = (rng.random(len(group)) < 0.3).astype(np.int64)
    in_val = split_by_group(labels, group, 0.2, 0)
    for label in (0, 1):
        assert in_val[labels == label].mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_both_classes_are_on_both_sides_where_groups_allow(seed: int) -> None:
    """Two small groups hold all cracks: one of them goes to each side."""
    group = np.repeat(np.arange(12), 10)
    labels = np.isin(group, [3, 8]).astype(np.int64)
    in_val = split_by_group(labels, group, 0.2, seed)
    assert sorted([bool(in_val[group == 3].all()), bool(in_val[group == 8].all())]) == [False, True]


@pytest.mark.parametrize("num", [2, 3, 4])
def test_few_groups_of_one_class_each_give_both_sides_both(num: int) -> None:
    """A fifth of four to eight such groups is less than two: one of each class goes to validation all the same."""
    group = np.repeat(np.arange(2 * num), 5)
    labels = (group < num).astype(np.int64)
    in_val = split_by_group(labels, group, 0.1, 0)
    assert set(labels[in_val].tolist()) == set(labels[~in_val].tolist()) == {0, 1}


def test_one_group_cannot_be_split() -> None:
    """A single photo group is refused with what to do about it."""
    with pytest.raises(InputError, match="at least two groups of photos, there are 1"):
        split_by_group(np.array([0, 1, 1]), np.array([5, 5, 5]), 0.2, 0)


def test_the_share_of_groups_is_met_when_all_are_alike() -> None:
    """Of 40 equal groups a fifth is 8."""
    assert choose_groups(np.full((40, 2), 6), 0.2, 1).sum() == 8
