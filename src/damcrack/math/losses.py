"""The distillation loss, as named terms.

Shape suffixes: B images in the batch, C classes.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TemperatureScale = Literal["inside", "detached"]
SoftLoss = Literal["kl", "cross-entropy"]


class DistillationTerms(NamedTuple):
    """Scalars: what is minimised, cross-entropy with the labels, and the soft loss at T, not yet times T^2."""

    total: Tensor
    hard: Tensor
    soft: Tensor


def soft_divergence(student_logits_BC: Tensor, teacher_logits_BC: Tensor, temperature: Tensor) -> Tensor:
    """KL(teacher || student) of the distributions softened by `temperature`, mean over the batch.

    Zero exactly when the logits differ by a constant per image. Log-softmax runs in float32 (or better)
    whatever the logits come in. Source: Hinton et al. 2015; paper, equation of the soft loss.
    """
    student_log_prob_BC = F.log_softmax(_at_least_float32(student_logits_BC) / temperature, dim=1)
    teacher_log_prob_BC = F.log_softmax(_at_least_float32(teacher_logits_BC) / temperature, dim=1)
    return F.kl_div(student_log_prob_BC, teacher_log_prob_BC, reduction="batchmean", log_target=True)


def soft_cross_entropy(student_logits_BC: Tensor, teacher_logits_BC: Tensor, temperature: Tensor) -> Tensor:
    """CE(teacher, student) of the distributions softened by `temperature`, mean over the batch.

    The divergence plus the teacher's entropy: the student's gradient is the same, that of a learned T is not,
    as the entropy grows with T. Source: Hinton et al. 2015, section 2.
    """
    student_log_prob_BC = F.log_softmax(_at_least_float32(student_logits_BC) / temperature, dim=1)
    teacher_prob_BC = F.softmax(_at_least_float32(teacher_logits_BC) / temperature, dim=1)
    return -(teacher_prob_BC * student_log_prob_BC).sum(dim=1).mean()


SOFT_LOSSES = {"kl": soft_divergence, "cross-entropy": soft_cross_entropy}


def distillation_loss(
    student_logits_BC: Tensor,
    teacher_logits_BC: Tensor,
    labels_B: Tensor,
    temperature: Tensor,
    alpha: float,
    temperature_scale: TemperatureScale = "inside",
    soft_loss: SoftLoss = "kl",
) -> DistillationTerms:
    """L = alpha * T^2 * soft + (1 - alpha) * CE(student, labels); soft is KL(teacher || student at T), or their CE.

    T^2 keeps the soft gradient's size independent of T (Hinton et al. 2015). `temperature_scale` says whether
    the gradient of a learned T also flows through T^2: "inside" (as curriculum temperature does; T is then
    driven up) or "detached" (T is driven down). The student's gradient is the same either way.
    """
    soft = SOFT_LOSSES[soft_loss](student_logits_BC, teacher_logits_BC, temperature)
    hard = F.cross_entropy(_at_least_float32(student_logits_BC), labels_B)
    scale = temperature if temperature_scale == "inside" else temperature.detach()
    return DistillationTerms(alpha * scale**2 * soft + (1 - alpha) * hard, hard, soft)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
