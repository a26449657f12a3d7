"""The distillation loss against an independent float64 NumPy reference."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from damcrack.train.losses import soft_cross_entropy, soft_divergence, weigh

Array = npt.NDArray[np.float64]


def distillation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    temperature: torch.Tensor,
    alpha: float,
    scale: str = "inside",
) -> torch.Tensor:
    soft = soft_divergence(student, teacher, temperature)
    return weigh(torch.nn.functional.cross_entropy(student, labels), soft, temperature, alpha, scale)  # type: ignore[arg-type]


def reference_softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def reference_loss(
    student: Array, teacher: Array, labels: npt.NDArray[np.int64], t: float, alpha: float
) -> tuple[float, Array, float]:
    """Loss, gradient by the student's logits, and gradient by T (through T^2 and the softening), by hand."""
    p, q = reference_softmax(teacher / t), reference_softmax(student / t)
    divergence = (p * (np.log(p) - np.log(q))).sum(axis=1)
    hard = -np.log(reference_softmax(student)[np.arange(len(labels)), labels])
    loss = alpha * t**2 * divergence.mean() + (1 - alpha) * hard.mean()
    one_hot = np.eye(student.shape[1])[labels]
    by_student = (alpha * t * (q - p) + (1 - alpha) * (reference_softmax(student) - one_hot)) / len(labels)
    # d/dT of KL: p moves with u = teacher / T, q with v = student / T; du/dT = -u / T.
    u, v, log_ratio = teacher / t, student / t, np.log(p) - np.log(q)
    dp = p * (-u / t - (p * -u / t).sum(axis=1, keepdims=True))
    dlog_q = -v / t - (q * -v / t).sum(axis=1, keepdims=True)
    by_divergence = (dp * log_ratio).sum(axis=1) - (p * dlog_q).sum(axis=1)
    by_t = alpha * (2 * t * divergence.mean() + t**2 * by_divergence.mean())
    return float(loss), by_student, float(by_t)


def example(num: int = 7, classes: int = 5) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    random = np.random.default_rng(3)
    student, teacher = random.normal(0, 2, (2, num, classes))
    return student, teacher, random.integers(0, classes, num)


@pytest.mark.parametrize("t", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_loss_and_gradients_agree_with_the_reference(t: float, alpha: float) -> None:
    """Value, student gradient and temperature gradient equal the float64 reference."""
    student, teacher, labels = example()
    logits = torch.tensor(student, requires_grad=True)
    temperature = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    loss = distillation_loss(logits, torch.tensor(teacher), torch.tensor(labels), temperature, alpha)
    loss.backward()
    expected, by_student, by_t = reference_loss(student, teacher, labels, t, alpha)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(logits.grad, by_student, rtol=1e-10, atol=1e-14)
    assert temperature.grad is not None
    assert temperature.grad.item() == pytest.approx(by_t, rel=1e-10, abs=1e-14)


def test_reference_temperature_gradient_agrees_with_finite_differences() -> None:
    """The reference itself is right: its derivative by T is the slope of its loss."""
    student, teacher, labels = example()
    step = 1e-5
    above = reference_loss(student, teacher, labels, 3 + step, 0.6)[0]
    below = reference_loss(student, teacher, labels, 3 - step, 0.6)[0]
    assert reference_loss(student, teacher, labels, 3, 0.6)[2] == pytest.approx((above - below) / (2 * step))


@pytest.mark.parametrize(("scale", "direction"), [("inside", 1), ("detached", -1)])
def test_squared_temperature_decides_the_direction_of_its_gradient(scale: str, direction: int) -> None:
    """With T^2 inside the graph the loss grows with T here; with it detached the loss falls."""
    student, teacher, labels = (torch.tensor(value) for value in example())
    temperature = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    loss = distillation_loss(student, teacher, labels, temperature, 1.0, scale)
    loss.backward()
    assert temperature.grad is not None
    assert np.sign(temperature.grad.item()) == direction


def test_soft_cross_entropy_is_the_divergence_plus_the_teachers_entropy() -> None:
    """The value, the same gradient by the student, and another gradient by T: the entropy's is added."""
    student, teacher, _ = example()
    t, step = 3.0, 1e-5

    def entropy(at: float) -> float:
        p = reference_softmax(teacher / at)
        return float(-(p * np.log(p)).sum(axis=1).mean())

    by_student, by_t, values = [], [], []
    for soft in (soft_divergence, soft_cross_entropy):
        logits = torch.tensor(student, requires_grad=True)
        temperature = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        values.append(soft(logits, torch.tensor(teacher), temperature))
        values[-1].backward()
        assert temperature.grad is not None
        by_student.append(logits.grad)
        by_t.append(temperature.grad.item())
    assert values[1].item() == pytest.approx(values[0].item() + entropy(t), rel=1e-12)
    np.testing.assert_allclose(by_student[1], by_student[0], rtol=1e-9, atol=1e-15)
    slope = (entropy(t + step) - entropy(t - step)) / (2 * step)
    assert by_t[1] - by_t[0] == pytest.approx(slope, rel=1e-6)


@given(
    shift=st.floats(-50, 50),
    t=st.floats(0.5, 20),
    values=st.lists(st.floats(-10, 10), min_size=4, max_size=4),
)
def test_divergence_is_zero_for_logits_that_differ_by_a_constant(
    shift: float, t: float, values: list[float]
) -> None:
    """A constant added to all logits of an image changes nothing."""
    logits = torch.tensor([values], dtype=torch.float64)
    divergence = soft_divergence(logits, logits + shift, torch.tensor(t, dtype=torch.float64))
    assert abs(divergence.item()) < 1e-10


@given(
    gap=st.floats(0.1, 5),
    t=st.floats(0.5, 20),
    values=st.lists(st.floats(-10, 10), min_size=4, max_size=4),
)
def test_divergence_is_positive_for_different_distributions(
    gap: float, t: float, values: list[float]
) -> None:
    """One logit moved by itself is a different distribution."""
    logits = torch.tensor([values], dtype=torch.float64)
    moved = logits + torch.tensor([gap, 0, 0, 0], dtype=torch.float64)
    assert soft_divergence(logits, moved, torch.tensor(t, dtype=torch.float64)).item() > 0


def test_bfloat16_logits_are_softened_in_float32() -> None:
    """Half-precision logits give the float32 value of the same numbers, and a float32 result."""
    student, teacher, _ = (torch.tensor(value) for value in example())
    coarse = student.bfloat16(), teacher.bfloat16()
    temperature = torch.tensor(4.0)
    got = soft_divergence(*coarse, temperature)
    assert got.dtype == torch.float32
    assert got.item() == soft_divergence(coarse[0].float(), coarse[1].float(), temperature).item()


def test_extreme_logits_stay_finite() -> None:
    """Logits of a very sure teacher give a finite loss and gradient."""
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = distillation_loss(
        student, torch.tensor([[-1e4, 1e4]]), torch.tensor([1]), torch.tensor(1.0), alpha=0.6
    )
    loss.backward()
    assert student.grad is not None
    assert loss.isfinite() and student.grad.isfinite().all()
