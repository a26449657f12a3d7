"""The gate that every new champion passes: both models scored from their exported files on the same tiles."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.cracks.detector import OnnxDetector
from damcrack.files import InputError, read_csv
from damcrack.registry.champion import Registry, new_record, present_champion, rollback_from
from damcrack.registry.config import Policy
from damcrack.registry.evaluation_set import EvaluationSet
from damcrack.registry.policy import Bools, Decision, Floats, Scores, compare, decide, score
from damcrack.run import Run

TRAINED_ON = "photos.csv"  # next to the model, rows of evaluation_set.PHOTO_COLUMNS


@dataclass(frozen=True)
class ScoredModel:
    """An exported model with its crack probability of every tile of an evaluation set.

    `trained_on` holds the sha256 of every photo used for training or model selection.
    """

    detector: OnnxDetector
    trained_on: frozenset[str]
    probs_N: Floats

    @classmethod
    def load(
        cls, name: str, folder: Path, evaluation_set: EvaluationSet, run: Run, photos: Path | None = None
    ) -> "ScoredModel":
        """Load an export whose files match its model.json, and score the set's tiles.

        `photos` lists the photos it was trained on, by default the list in its folder.

        Raises:
            InputError: it cannot be loaded, was changed, or takes other tiles; a tile of the set was changed.
        """
        try:
            detector = OnnxDetector.load(folder)
        except InputError as error:
            raise InputError(f"{name} cannot be loaded: {error}") from error
        _check_contract(name, detector, evaluation_set)
        photos = photos or folder / TRAINED_ON
        rows = read_csv(photos) if photos.is_file() else []
        probs_N = np.full(len(evaluation_set.images), np.nan)
        for numbers, tiles in run.track(evaluation_set.batches(), f"scoring {name}"):
            probs_N[numbers] = detector.score_tiles(tiles)
        return cls(detector, frozenset(row["sha256"] for row in rows), probs_N)


def _check_contract(name: str, detector: OnnxDetector, evaluation_set: EvaluationSet) -> None:
    classes = tuple(detector.contract["classes"])
    if detector.tile_px != evaluation_set.tile_px or classes != evaluation_set.images.classes:
        raise InputError(
            f"{name} takes tiles of {detector.tile_px} px with classes {', '.join(classes)}, the evaluation set "
            f"{evaluation_set.digest[:12]} holds tiles of {evaluation_set.tile_px} px with "
            f"{', '.join(evaluation_set.images.classes)}: they cannot be compared; use another evaluation set, or "
            "register this kind of model under another name"
        )


def held_out(evaluation_set: EvaluationSet, models: Sequence[ScoredModel]) -> Bools:
    """Tiles (N,) of photos that were not used to train or select any of the models."""
    used = frozenset[str]().union(*(model.trained_on for model in models))
    held_out_N: Bools = ~np.isin(evaluation_set.column("photo_sha256"), list(used))
    return held_out_N


@dataclass(frozen=True)
class Gate:
    """Decides over versions of one model on one evaluation set by one policy."""

    model_name: str
    policy: Policy
    evaluation_set: EvaluationSet
    registry: Registry
    run: Run

    def decide(self, challenger: ScoredModel, version: str | None) -> tuple[Decision, dict[str, Any]]:
        """Decide whether the challenger, `version` or not registered yet, becomes champion; nothing is written.

        Returns the decision and its record, which is empty if nothing was compared.
        """
        champion = present_champion(self.registry, self.model_name, version)
        if version and champion == version:
            return Decision("kept", "it is the champion already"), {}
        if version and (rollback := rollback_from(self.registry.records(self.model_name), version)):
            reason = (
                f"version {version} was rolled back ({rollback['reason']}); "
                f"`damcrack rollback --to {version} --reason ...` makes it champion again"
            )
            return Decision("refused", reason), {}
        return self._compare(challenger, version, champion)

    def _compare(
        self, challenger: ScoredModel, version: str | None, champion: str | None
    ) -> tuple[Decision, dict[str, Any]]:
        """Tiles of photos that were used to train or select one of the two are left out for both."""
        models = [challenger, *([self._load(champion)] if champion else [])]
        held_out_N = held_out(self.evaluation_set, models)
        truth = self.evaluation_set.truth.where(held_out_N)
        probs = [model.probs_N[held_out_N] for model in models]
        scores = [score(truth, probs_N, self.policy) for probs_N in probs]
        gain = compare(truth, probs[1], probs[0], self.policy) if champion else None
        decision = decide(scores[0], gain, self.policy)
        sides = [_side(model, side) for model, side in zip(models, scores, strict=True)]
        record = new_record(self.model_name, version, decision.outcome, decision.reason, champion) | {
            "checks": [without_nan(check._asdict()) for check in decision.checks],
            "evaluation_set": {
                "sha256": self.evaluation_set.digest,
                "num_tiles": int(held_out_N.sum()),
                "num_photos": scores[0].num_photos,
                "num_tiles_left_out": int((~held_out_N).sum()),
            },
            "challenger": sides[0],
            "champion": sides[1] if champion else None,
            "gain": without_nan(gain._asdict() | {"photos": gain.photos._asdict()}) if gain else None,
            "policy": asdict(self.policy),
        }
        return decision, record

    def _load(self, champion: str) -> ScoredModel:
        folder = self.registry.fetch(self.model_name, champion)
        name = f"champion {self.model_name} version {champion}"
        try:
            return ScoredModel.load(name, folder, self.evaluation_set, self.run)
        except InputError as error:
            raise InputError(
                f"{error}; the champion was not changed. `damcrack rollback` returns to the champion before"
            ) from error


def _side(model: ScoredModel, scores: Scores) -> dict[str, Any]:
    contract = model.detector.contract
    return {
        "name": contract["name"],
        "weights_sha256": contract["weights_sha256"],
        "onnx_sha256": model.detector.sha256,
        "photos_known": bool(model.trained_on),
        **without_nan(scores._asdict()),
    }


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with None for NaN, which JSON does not have."""
    return {
        name: without_nan(value) if isinstance(value, Mapping) else None if value != value else value
        for name, value in values.items()
    }
