"""Champion and challenger on the same tiles: both scored from their exported files, and timed in turns."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.cracks.detector import OnnxDetector
from damcrack.files import InputError, read_csv
from damcrack.registry.config import Policy
from damcrack.registry.evaluation_set import EvaluationSet, Tiles
from damcrack.registry.policy import Bools, Floats, Gain, Scores, compare, score
from damcrack.run import Run

TRAINED_ON = "photos.csv"  # next to the model, rows of evaluation_set.PHOTO_COLUMNS
TIMED_TILES, TIMED_ROUNDS, WARM_UP_ROUNDS = 8, 15, 2


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


def compare_models(
    challenger: ScoredModel, champion: ScoredModel | None, evaluation_set: EvaluationSet, policy: Policy
) -> tuple[Scores, Gain | None, dict[str, Any]]:
    """Score the challenger, and compare it with the champion if there is one; the last item is the record.

    Tiles of photos that were used to train or select one of the two are left out for both.
    """
    models = [challenger, *([champion] if champion else [])]
    held_out_N = held_out(evaluation_set, models)
    truth = evaluation_set.truth.where(held_out_N)
    probs = [model.probs_N[held_out_N] for model in models]
    first_tiles = next(iter(evaluation_set.batches()))[1][:TIMED_TILES]
    ms_per_tile, time_ratio = measure_latency([model.detector for model in models], first_tiles)
    timed = zip(probs, ms_per_tile, strict=True)
    scores = [score(truth, probs_N, policy, ms) for probs_N, ms in timed]
    gain = compare(truth, probs[1], probs[0], policy, time_ratio) if champion else None
    record = {
        "evaluation_set": {
            "sha256": evaluation_set.digest,
            "num_tiles": int(held_out_N.sum()),
            "num_photos": scores[0].num_photos,
            "num_tiles_left_out": int((~held_out_N).sum()),
        },
        "challenger": _record(challenger, scores[0]),
        "champion": _record(champion, scores[1]) if champion else None,
        "gain": without_nan(gain._asdict() | {"photos": gain.photos._asdict()}) if gain else None,
        "policy": asdict(policy),
    }
    return scores[0], gain, record


def _record(model: ScoredModel, scores: Scores) -> dict[str, Any]:
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
