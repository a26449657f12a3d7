"""The distillation loss, as named terms; for tiles, and for pixels.

Shape suffixes: B images in the batch, C classes, H rows, W columns.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from damcrack.data.targets import CLEAN, CRACK, SOMEWHERE, UNKNOWN
from damcrack.train.config import SoftLoss, TemperatureScale

# Weights of the losses of a network with two heads, against each other.
TILE_WEIGHT, PIXEL_WEIGHT, DICE_WEIGHT = 0.3, 4.0, 0.5
SOMEWHERE_SHARE = 0.005  # 250 pixels of a tile of 224


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


def weigh(
    hard: Tensor, soft: Tensor, temperature: Tensor, alpha: float, temperature_scale: TemperatureScale
) -> Tensor:
    """L = alpha * T^2 * soft + (1 - alpha) * hard: the soft loss at T, and the cross-entropy with the labels.

    T^2 keeps the soft gradient's size independent of T (Hinton et al. 2015). `temperature_scale` says whether
    the gradient of a learned T also flows through T^2: "inside" (as curriculum temperature does; T is then
    driven up) or "detached" (T is driven down). The student's gradient is the same either way.
    """
    scale = temperature if temperature_scale == "inside" else temperature.detach()
    return alpha * scale**2 * soft + (1 - alpha) * hard


def pixel_divergence(
    student_logits_BHW: Tensor, teacher_logits_BHW: Tensor, temperature: Tensor, soft_loss: SoftLoss = "kl"
) -> Tensor:
    """`soft_divergence` of the two classes of every pixel, mean over the pixels; a logit is that of "crack".

    A softmax over the logits (0, z) at T is a sigmoid of z / T, so one logit a pixel is enough.
    """
    student, teacher = (_at_least_float32(z) / temperature for z in (student_logits_BHW, teacher_logits_BHW))
    crack_prob = torch.sigmoid(teacher)
    cross_entropy = F.binary_cross_entropy_with_logits(student, crack_prob, reduction="none")
    if soft_loss == "cross-entropy":
        return cross_entropy.mean()
    entropy = F.binary_cross_entropy_with_logits(teacher, crack_prob, reduction="none")
    return (cross_entropy - entropy).mean()


def pixel_loss(logits_BHW: Tensor, targets_BHW: Tensor) -> Tensor:
    """What the pixels of labelled tiles teach; `targets_BHW` are the codes of damcrack.data.targets.

    PIXEL_WEIGHT * cross-entropy and DICE_WEIGHT * (1 - Dice), both over the pixels that are known to be crack or
    clean; and for each tile in which a crack runs somewhere, the cross-entropy of the mean probability of its
    SOMEWHERE_SHARE most confident pixels there with "crack" (multiple-instance learning).
    """
    logits_BHW = _at_least_float32(logits_BHW)
    crack_BHW = (targets_BHW == CRACK).to(logits_BHW.dtype)
    known_BHW = crack_BHW + (targets_BHW == CLEAN)
    each_BHW = F.binary_cross_entropy_with_logits(logits_BHW, crack_BHW, reduction="none")
    cross_entropy = (each_BHW * known_BHW).sum() / known_BHW.sum().clamp(min=1)
    prob_BHW = torch.sigmoid(logits_BHW)
    overlap, both = (prob_BHW * crack_BHW).sum(), ((prob_BHW + crack_BHW) * known_BHW).sum()
    dice = (2 * overlap + 1) / (both + 1)
    somewhere = _somewhere_loss(logits_BHW, targets_BHW)
    return PIXEL_WEIGHT * cross_entropy + DICE_WEIGHT * (1 - dice) + somewhere


def _somewhere_loss(logits_BHW: Tensor, targets_BHW: Tensor) -> Tensor:
    """-log of the mean probability of the most confident pixels of each tile's SOMEWHERE, if it has any.

    The mean over the tiles of which anything is known: those without a label change nothing.
    """
    num = max(1, round(SOMEWHERE_SHARE * logits_BHW[0].numel()))
    logits_BN, somewhere_BN = logits_BHW.flatten(1), (targets_BHW == SOMEWHERE).flatten(1)
    count_B = somewhere_BN.sum(1).clamp(max=num)
    elsewhere = torch.finfo(logits_BHW.dtype).min  # probability 0, and finite
    highest_BK = torch.where(somewhere_BN, logits_BN, elsewhere).topk(num, dim=1).values
    # In logarithms: a tile that is missed altogether still pulls.
    log_mean_B = F.logsigmoid(highest_BK).logsumexp(1) - count_B.clamp(min=1).log()
    num_known = (targets_BHW != UNKNOWN).flatten(1).any(1).sum().clamp(min=1)
    return -torch.where(count_B > 0, log_mean_B, 0.0).sum() / num_known


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
