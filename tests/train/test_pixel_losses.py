"""The losses of pixels against an independent float64 NumPy reference."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from damcrack.data.targets import CLEAN, CRACK, SOMEWHERE, UNKNOWN
from damcrack.train.losses import (
    DICE_WEIGHT,
    PIXEL_WEIGHT,
    SOMEWHERE_SHARE,
    pixel_divergence,
    pixel_loss,
    soft_cross_entropy,
    soft_divergence,
    weigh,
)

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]
CODES = (CLEAN, UNKNOWN, SOMEWHERE, CRACK)


def reference_loss(logits: Array, codes: Codes) -> float:
    """Pixel by pixel, as the docstring says it."""
    prob = 1 / (1 + np.exp(-logits))
    entropies, overlap, areas = [], 0.0, 0.0
    for p, code in zip(prob.ravel(), codes.ravel(), strict=True):
        if code == CRACK:
            entropies.append(-np.log(p))
            overlap, areas = overlap + p, areas + p + 1
        if code == CLEAN:
            entropies.append(-np.log(1 - p))
            areas += p
    cross_entropy = float(np.mean(entropies)) if entropies else 0.0
    dice = (2 * overlap + 1) / (areas + 1)
    num, somewhere = max(1, round(SOMEWHERE_SHARE * logits[0].size)), 0.0
    for tile, code in zip(prob, codes, strict=True):
        highest = sorted(tile[code == SOMEWHERE], reverse=True)[:num]
        somewhere -= np.log(np.mean(highest)) if highest else 0.0
    num_known = max(1, sum(bool((code != UNKNOWN).any()) for code in codes))
    return PIXEL_WEIGHT * cross_entropy + DICE_WEIGHT * (1 - dice) + somewhere / num_known


def example(seed: int = 0, side: int = 24, codes: tuple[int, ...] = CODES) -> tuple[Array, Codes]:
    """Three tiles of logits and codes; of 24 x 24 pixels the three most confident ones count in SOMEWHERE."""
    random = np.random.default_rng(seed)
    return random.normal(0, 3, (3, side, side)), random.choice(np.array(codes, np.uint8), (3, side, side))


def gradient(logits: Array, codes: Codes) -> Array:
    values = torch.tensor(logits, requires_grad=True)
    pixel_loss(values, torch.tensor(codes)).backward()
    assert values.grad is not None
    return values.grad.numpy()


@given(
    seed=st.integers(0, 2**32 - 1),
    side=st.integers(1, 20),
    codes=st.sets(st.sampled_from(CODES), min_size=1).map(tuple),
)
def test_loss_agrees_with_the_reference(seed: int, side: int, codes: tuple[int, ...]) -> None:
    """Whatever codes there are, the value is the float64 reference's."""
    logits, targets = example(seed, side, codes)
    got = pixel_loss(torch.tensor(logits), torch.tensor(targets)).item()
    assert got == pytest.approx(reference_loss(logits, targets), rel=1e-10, abs=1e-12)


def test_gradient_agrees_with_finite_differences() -> None:
    """Every pixel's slope, of all codes together, is the loss's."""
    logits, codes = example(side=8)
    torch.autograd.gradcheck(
        lambda z: pixel_loss(z, torch.tensor(codes)), torch.tensor(logits, requires_grad=True)
    )


@given(seed=st.integers(0, 2**32 - 1))
def test_unknown_pixels_teach_nothing(seed: int) -> None:
    """Their gradient is zero, and their logits may be anything."""
    logits, codes = example(seed, side=8)
    unknown = codes == UNKNOWN
    assert not gradient(logits, codes)[unknown].any()
    changed = np.where(unknown, 50.0, logits)
    losses = [pixel_loss(torch.tensor(z), torch.tensor(codes)).item() for z in (logits, changed)]
    assert losses[0] == losses[1]


def test_a_batch_of_which_nothing_is_known_has_no_loss() -> None:
    """The loss is zero and so is its gradient, not a division by no pixels."""
    logits, codes = example(codes=(UNKNOWN,))
    assert pixel_loss(torch.tensor(logits), torch.tensor(codes)).item() == 0
    assert not gradient(logits, codes).any()


def test_tiles_of_which_nothing_is_known_change_no_loss() -> None:
    """What they are in a batch for is the teacher's answer; the others teach as without them."""
    logits, codes = example()
    more = np.concatenate([logits, example(1)[0]]), np.concatenate([codes, np.full_like(codes, UNKNOWN)])
    losses = [pixel_loss(torch.tensor(z), torch.tensor(c)).item() for z, c in ((logits, codes), more)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
def test_somewhere_pulls_the_most_confident_pixels_alone(seed: int) -> None:
    """Three of 576 pixels, those of the highest logits within the region, are drawn towards crack."""
    logits, codes = example(seed, codes=(SOMEWHERE, CLEAN, UNKNOWN))
    pulled = gradient(logits, codes)
    for tile, code, slope in zip(logits, codes, pulled, strict=True):
        inside = code == SOMEWHERE
        highest = inside & (tile >= np.sort(tile[inside])[-3])
        assert (slope[highest] < 0).all()
        assert not slope[inside & ~highest].any()


def test_a_region_of_fewer_pixels_counts_whole() -> None:
    """Where a box holds one pixel, that one is judged, not clean ones beside it."""
    logits, codes = np.full((1, 24, 24), -2.0), np.full((1, 24, 24), UNKNOWN, np.uint8)
    codes[0, 5, 7] = SOMEWHERE
    pulled = gradient(logits, codes)
    assert np.argwhere(pulled).tolist() == [[0, 5, 7]]
    assert pulled[0, 5, 7] == pytest.approx(-1 / (1 + np.exp(-2.0)))  # of -log sigmoid(z)


@pytest.mark.parametrize("logit", [-40.0, 40.0])
def test_sure_answers_stay_finite_and_wrong_ones_still_learn(logit: float) -> None:
    """At probabilities of nearly 0 and 1 in float32 there is a finite loss, and what is wrong is pulled back."""
    logits = torch.full((4, 24, 24), logit, requires_grad=True)
    codes = torch.tensor(CODES, dtype=torch.uint8)[:, None, None].expand(4, 24, 24)
    loss = pixel_loss(logits, codes)
    loss.backward()
    assert logits.grad is not None
    assert loss.isfinite() and logits.grad.isfinite().all()
    wrong = [SOMEWHERE, CRACK] if logit < 0 else [CLEAN]
    assert [code for code, slope in zip(CODES, logits.grad, strict=True) if slope.abs().max() > 1e-4] == wrong


@given(seed=st.integers(0, 2**32 - 1), t=st.sampled_from([1.0, 2.0, 4.0, 10.0]))
def test_divergence_of_pixels_is_that_of_two_classes(seed: int, t: float) -> None:
    """A pixel's logit z is the pair (0, z): divergence and cross-entropy are those of the tiles' losses."""
    student, teacher = torch.tensor(np.random.default_rng(seed).normal(0, 4, (2, 3, 5, 4)))
    temperature = torch.tensor(t, dtype=torch.float64)
    pairs = [torch.stack([torch.zeros_like(z), z], dim=-1).reshape(-1, 2) for z in (student, teacher)]
    for kind, of_tiles in (("kl", soft_divergence), ("cross-entropy", soft_cross_entropy)):
        got = pixel_divergence(student, teacher, temperature, kind)  # type: ignore[arg-type]
        assert got.item() == pytest.approx(of_tiles(*pairs, temperature).item(), rel=1e-9, abs=1e-12)


@given(z=st.floats(-10, 10), gap=st.floats(0.1, 5), t=st.floats(0.5, 20))
def test_divergence_of_pixels_is_zero_for_equal_logits_alone(z: float, gap: float, t: float) -> None:
    """Unlike tiles, pixels have one logit, so no constant may be added to it."""
    temperature = torch.tensor(t, dtype=torch.float64)
    one = torch.full((1, 2, 2), z, dtype=torch.float64)
    assert pixel_divergence(one, one, temperature).item() == 0
    moved = one.clone()
    moved[0, 0, 0] += gap
    assert pixel_divergence(one, moved, temperature).item() > 0


@pytest.mark.parametrize("soft_loss", ["kl", "cross-entropy"])
@pytest.mark.parametrize("t", [1.0, 3.0])
def test_divergence_of_pixels_has_the_right_gradients(t: float, soft_loss: str) -> None:
    """By the student's logits and by the temperature."""
    student, teacher = torch.tensor(np.random.default_rng(0).normal(0, 3, (2, 2, 3, 4)))
    temperature = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(
        lambda z, temperature: pixel_divergence(z, teacher, temperature, soft_loss),  # type: ignore[arg-type]
        (student.requires_grad_(), temperature),
    )


def test_bfloat16_pixels_are_judged_in_float32() -> None:
    """Half-precision logits give the float32 value of the same numbers."""
    logits, codes = (torch.tensor(value) for value in example())
    coarse = logits.bfloat16()
    assert pixel_loss(coarse, codes).item() == pixel_loss(coarse.float(), codes).item()
    got = pixel_divergence(coarse, coarse.flip(0), torch.tensor(4.0))
    assert got.dtype == torch.float32
    assert got.item() == pixel_divergence(coarse.float(), coarse.flip(0).float(), torch.tensor(4.0)).item()


@pytest.mark.parametrize(("scale", "by_t"), [("inside", 2 * 0.6 * 3 * 0.5), ("detached", 0.0)])
def test_weighing_scales_the_soft_loss_by_the_squared_temperature(scale: str, by_t: float) -> None:
    """L = alpha T^2 soft + (1 - alpha) hard; the gradient flows through T^2 only inside."""
    hard, soft = torch.tensor(2.0), torch.tensor(0.5)
    temperature = torch.tensor(3.0, requires_grad=True)
    total = weigh(hard, soft + 0 * temperature, temperature, 0.6, scale)  # type: ignore[arg-type]
    total.backward()
    assert total.item() == pytest.approx(0.6 * 9 * 0.5 + 0.4 * 2)
    assert temperature.grad is not None
    assert temperature.grad.item() == pytest.approx(by_t, abs=1e-7)
