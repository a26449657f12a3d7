"""What a batch is trained towards: labels alone, or labels and a teacher.

Shape suffixes: B images, C classes, H rows, W columns.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from damcrack.train.batches import Batch
from damcrack.train.config import SoftLoss, Teaching
from damcrack.train.frozen import Frozen
from damcrack.train.losses import PIXEL_WEIGHT, SOFT_LOSSES, TILE_WEIGHT, pixel_divergence, pixel_loss, weigh
from damcrack.train.networks import Forward
from damcrack.train.schedules import reversal_weight
from damcrack.train.temperature import DynamicTemperature, build_temperature


class Answer(NamedTuple):
    """Float32 logits of the tiles, and of "crack" at every pixel if the network has a pixel head."""

    tile_BC: Tensor
    pixel_BHW: Tensor | None = None


def answer(forward: Forward, inputs: Tensor) -> Answer:
    """What a network says of a batch, whether it has one head or two."""
    said = forward(inputs)
    return Answer(said.float()) if isinstance(said, Tensor) else Answer(said[0].float(), said[1].float())


class StepTerms(NamedTuple):
    """Scalars of one step, and the student's logits; `soft` and `temperature` are NaN without a teacher."""

    total: Tensor
    hard: Tensor
    soft: Tensor
    temperature: Tensor
    logits_BC: Tensor


class Supervised(nn.Module):
    """Cross-entropy with the labels, of logits divided by `temperature`.

    A later teacher may be trained at the temperature at which it teaches (paper, section 2.1); 1 is plain.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Forward, batch: Batch, epoch: int) -> StepTerms:
        """One step's terms; all objectives are called alike."""
        said = answer(student, batch.inputs)
        hard = _hard(said, batch, self.temperature)
        absent = torch.full_like(hard, torch.nan)
        return StepTerms(hard, hard, absent, absent, said.tile_BC)

    def state_row(self, epoch: int) -> dict[str, float]:
        """What else to record of an epoch."""
        return {}


class Distillation(nn.Module):
    """The paper's loss (Algorithm 1): one backward pass trains the student and, reversed, the temperature.

    The teacher is no submodule, so it is never checkpointed; it is not run on batches that bring its answer.
    """

    def __init__(self, teacher: Frozen, teaching: Teaching, epochs: int) -> None:
        super().__init__()
        self.teacher = teacher
        self.teaching = teaching
        self.temperature = build_temperature(teaching.temperature)
        self.epochs = epochs

    def forward(self, student: Forward, batch: Batch, epoch: int) -> StepTerms:
        """One step's terms, with the temperature's gradient reversed as strongly as the epoch says."""
        stored = batch.teacher_logits_BC
        taught = answer(self.teacher, batch.inputs) if stored is None else Answer(stored)
        said = answer(student, batch.inputs)
        how, temperature = self.teaching, self._temperature(epoch)
        soft, hard = _soft(said, taught, temperature, how.soft_loss), _hard(said, batch)
        terms = weigh(hard, soft, temperature, how.alpha, how.temperature_scale)
        return StepTerms(*terms, temperature.detach(), said.tile_BC)

    def _temperature(self, epoch: int) -> Tensor:
        temperature: Tensor = self.temperature(self._reversal_weight(epoch))
        if epoch > self.epochs - self.teaching.temperature.epochs_at_one:
            return torch.ones_like(temperature)
        return temperature

    def _reversal_weight(self, epoch: int) -> float:
        how = self.teaching.temperature
        return reversal_weight(epoch, how.ramp_epochs, how.ramp)

    def state_row(self, epoch: int) -> dict[str, float]:
        """Theta and lambda after an epoch; nothing if the temperature is fixed."""
        if not isinstance(self.temperature, DynamicTemperature):
            return {}
        theta = float(self.temperature.theta.detach())
        return {"theta": theta, "reversal_weight": self._reversal_weight(epoch)}


def _hard(said: Answer, batch: Batch, temperature: float = 1.0) -> Tensor:
    """What the labels teach: cross-entropy of tiles, and what is known of their pixels; -1 teaches nothing."""
    of_tiles = F.cross_entropy(said.tile_BC / temperature, batch.labels_B, ignore_index=-1)
    if said.pixel_BHW is None:
        return of_tiles
    assert batch.targets_BHW is not None
    return TILE_WEIGHT * of_tiles + pixel_loss(said.pixel_BHW, batch.targets_BHW)


def _soft(said: Answer, taught: Answer, temperature: Tensor, soft_loss: SoftLoss) -> Tensor:
    """What the teacher teaches at T, not yet times T^2: of tiles, and of pixels where both have a pixel head."""
    of_tiles = SOFT_LOSSES[soft_loss](said.tile_BC, taught.tile_BC, temperature)
    if said.pixel_BHW is None or taught.pixel_BHW is None:
        return of_tiles
    of_pixels = pixel_divergence(said.pixel_BHW, taught.pixel_BHW, temperature, soft_loss)
    return TILE_WEIGHT * of_tiles + PIXEL_WEIGHT * of_pixels


Objective = Supervised | Distillation
