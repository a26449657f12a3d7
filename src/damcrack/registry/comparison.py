"""Champion and challenger on the same tiles: both scored from their exported files, and timed in turns."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.files import InputError, read_csv
from damcrack.inspection.detector import OnnxDetector
from damcrack.registry.evaluation_set import EvaluationSet, Tiles
from damcrack.registry.policy import Bools, Floats, Gain, Policy, Scores, compare, score
from damcrack.run import Run

TRAINED_ON = "photos.csv"  # next to the model, rows of evaluation_set.PHOTO_COLUMNS
TIMED_TILES, TIMED_ROUNDS, WARM_UP_ROUNDS = 8, 15, 2


@dataclass(frozen=True)
class LoadedModel:
    """An exported model; `trained_on` holds the sha256 of every photo used for training or model selection."""

    name: str
    detector: OnnxDetector
    trained_on: frozenset[str]

    @classmethod
    def load(
        cls, name: str, folder: Path, evaluation_set: EvaluationSet, photos: Path | None = None
    ) -> "LoadedModel":
        """Load an export whose files match its model.json, and that takes the set's tiles.

        `photos` lists the photos it was trained on, by default the list in its folder.

        Raises:
            InputError: it cannot be loaded, was changed, or takes other tiles.
        """
        try:
            detector = OnnxDetector.load(folder)
        except InputError as error:
            raise InputError(f"{name} cannot be loaded: {error}") from error
        _check_contract(name, detector, evaluation_set)
        photos = photos or folder / TRAINED_ON
        rows = read_csv(photos) if photos.is_file() else []
        return cls(name, detector, frozenset(row["sha256"] for row in rows))


def _check_contract(name: str, detector: OnnxDetector, evaluation_set: EvaluationSet) -> None:
    classes = tuple(detector.contract["classes"])
    if detector.tile_px != evaluation_set.tile_px or classes != evaluation_set.images.classes:
        raise InputError(
            f"{name} takes tiles of {detector.tile_px} px with classes {', '.join(classes)}, the evaluation set "
            f"{evaluation_set.digest[:12]} holds tiles of {evaluation_set.tile_px} px with "
            f"{', '.join(evaluation_set.images.classes)}: they cannot be compared; use another evaluation set, or "
            "register this kind of model under another name"
        )


class Comparison:
    """One challenger on one evaluation set, alone or with the champion; each model is scored once."""

    def __init__(
        self, challenger: LoadedModel, evaluation_set: EvaluationSet, policy: Policy, run: Run
    ) -> None:
        self.challenger = challenger
        self.evaluation_set = evaluation_set
        self._policy = policy
        self._run = run
        self._probs: dict[str, Floats] = {}

    def probs(self, model: LoadedModel) -> Floats:
        """Crack probability of every tile of the set (N,)."""
        key = model.detector.sha256
        if key not in self._probs:
            probs = np.full(len(self.evaluation_set.images), np.nan)
            for numbers, tiles in self._run.track(self.evaluation_set.batches(), f"scoring {model.name}"):
                probs[numbers] = model.detector.score_tiles(tiles)
            self._probs[key] = probs
        return self._probs[key]

    def held_out(self, models: Sequence[LoadedModel]) -> Bools:
        """Tiles (N,) of photos that were not used to train or select any of the models."""
        used = frozenset[str]().union(*(model.trained_on for model in models))
        held_out: Bools = ~np.isin(self.evaluation_set.column("photo_sha256"), list(used))
        return held_out

    def with_champion(self, champion: LoadedModel | None) -> tuple[Scores, Gain | None, dict[str, Any]]:
        """Score the challenger, and compare it with the champion if there is one; the last item is the record.

        Tiles of photos that were used to train or select one of the two are left out for both.
        """
        models = [self.challenger, *([champion] if champion else [])]
        held_out_N = self.held_out(models)
        truth = self.evaluation_set.truth.where(held_out_N)
        probs = [self.probs(model)[held_out_N] for model in models]
        first_tiles = next(iter(self.evaluation_set.batches()))[1][:TIMED_TILES]
        ms_per_tile, time_ratio = measure_latency([model.detector for model in models], first_tiles)
        timed = zip(probs, ms_per_tile, strict=True)
        scores = [score(truth, probs_N, self._policy, ms) for probs_N, ms in timed]
        gain = compare(truth, probs[1], probs[0], self._policy, time_ratio) if champion else None
        records = [_record(*scored) for scored in zip(models, scores, strict=True)]
        return (
            scores[0],
            gain,
            {
                "evaluation_set": {
                    "sha256": self.evaluation_set.digest,
                    "num_tiles": int(held_out_N.sum()),
                    "num_photos": scores[0].num_photos,
                    "num_tiles_left_out": int((~held_out_N).sum()),
                },
                "challenger": records[0],
                "champion": records[1] if champion else None,
                "gain": without_nan(gain._asdict() | {"photos": gain.photos._asdict()}) if gain else None,
                "policy": asdict(self._policy),
            },
        )


def _record(model: LoadedModel, scores: Scores) -> dict[str, Any]:
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


def measure_latency(detectors: Sequence[OnnxDetector], tiles: Tiles) -> tuple[list[float], float]:
    """Milliseconds a tile of each detector, timed in turns on one thread; and the ratio of the first to the last.

    The ratio is the median over turns, so that a busy machine does not decide.
    """
    times = np.array([[_ms_per_tile(detector, tiles) for detector in detectors] for _ in range(TIMED_ROUNDS)])
    times = times[WARM_UP_ROUNDS:]
    return np.median(times, axis=0).round(4).tolist(), float(np.median(times[:, 0] / times[:, -1]))


def _ms_per_tile(detector: OnnxDetector, tiles: Tiles) -> float:
    started = time.perf_counter()
    detector.score_tiles(tiles)
    return 1000 * (time.perf_counter() - started) / len(tiles)
