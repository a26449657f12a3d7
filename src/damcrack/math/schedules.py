"""What changes with training, as pure functions of the step or the epoch."""

import math


def learning_rate(step: int, steps_per_epoch: int, epochs: int, warmup_epochs: int, peak: float) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up to `peak`, then a cosine towards 0.

    Source: paper, section 3.1 (one warm-up epoch, cosine annealing; Loshchilov & Hutter 2017). The last step
    still moves: the cosine would reach 0 one step after it.
    """
    warmup_steps = warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    annealing_steps = max(1, epochs * steps_per_epoch - warmup_steps)
    return peak * (1 + math.cos(math.pi * (step - warmup_steps) / annealing_steps)) / 2


def reversal_weight(epoch: int, ramp_epochs: int) -> float:
    """Weight lambda of the reversed gradient in epoch `epoch` (from 1): 0 -> 1 along half a cosine.

    Source: curriculum temperature (Li et al. 2023): (1 - cos(pi * min(i, L) / L)) / 2 with i counted from 1.
    """
    return (1 - math.cos(math.pi * min(epoch, ramp_epochs) / ramp_epochs)) / 2
