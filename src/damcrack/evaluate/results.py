"""Everything that tables, figures and the page are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from damcrack.evaluate.baselines import Baseline
from damcrack.evaluate.scoring import EvaluationSet, Scored
from damcrack.evaluate.trained import TrainedModel


@dataclass(frozen=True)
class Results:
    """What was scored, the scored models and baselines, the pretraining, and `metrics` as in metrics.json."""

    data: EvaluationSet
    experiments: Sequence[Scored]
    baselines: Sequence[Baseline]
    pretraining: Sequence[TrainedModel]
    metrics: Mapping[str, Any]

    @property
    def chosen(self) -> Scored:
        """The experiment that validation prefers."""
        name = self.metrics["chosen"]
        return next(scored for scored in self.experiments if scored.model.name == name)

    def scores_of(self, scored: Scored) -> Mapping[str, Any]:
        """An experiment's entry in metrics.json."""
        scores: Mapping[str, Any] = self.metrics["experiments"][scored.model.name]
        return scores
