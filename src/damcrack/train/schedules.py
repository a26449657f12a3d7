"""What changes with training, as pure functions of the step or the epoch."""

import math

from damcrack.train.config import Ramp


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


def reversal_weight(epoch: int, ramp_epochs: int, ramp: Ramp = "cosine") -> float:
    """Weight lambda of the reversed gradient in epoch `epoch` (from 1), 1 from epoch `ramp_epochs` on.

    "cosine" rises along half a cosine, (1 - cos(pi * min(i, L) / L)) / 2 with i counted from 1 (curriculum
    temperature, Li et al. 2023); "linear" is min(i, L) / L; "constant" is 1 from the first epoch.
    """
    share = min(epoch, ramp_epochs) / ramp_epochs
    return {"cosine": (1 - math.cos(math.pi * share)) / 2, "linear": share, "constant": 1.0}[ramp]
