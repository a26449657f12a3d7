"""Champion and challenger on the same tiles: both scored anew from their files, and timed side by side."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.files import InputError, read_csv
from damcrack.inspection.detector import OnnxDetector
from damcrack.registry.frozen import FrozenSet
from damcrack.registry.policy import (
    Bools,
    Evidence,
    Floats,
    Latency,
    Marks,
    Policy,
    compare,
    mark,
)
from damcrack.run import Run

TRAINED_ON = "photos.csv"  # beside the model, rows of frozen.PHOTO_COLUMNS
TIMED_TILES, TIMED_ROUNDS, WARM_UP_ROUNDS = 8, 15, 2


@dataclass(frozen=True)
class Contestant:
    """A model's files: `name` in words; `trained_on` the sha256 of every photo that trained or chose it."""

    name: str
    detector: OnnxDetector
    trained_on: frozenset[str]

    @classmethod
    def load(cls, name: str, folder: Path, frozen: FrozenSet, photos: Path | None = None) -> "Contestant":
        """Load an export whose files are what its model.json says, and that takes the set's tiles.

        `photos` lists what it was trained on, by default the list in its folder.

        Raises:
            InputError: it cannot be loaded, was changed, or takes other tiles.
        """
        try:
            detector = OnnxDetector.load(folder)
        except InputError as error:
            raise InputError(f"{name} cannot be loaded: {error}") from error
        _check_contract(name, detector, frozen)
        photos = photos or folder / TRAINED_ON
        rows = read_csv(photos) if photos.is_file() else []
        return cls(name, detector, frozenset(row["sha256"] for row in rows))

    @property
    def weights_sha256(self) -> str:
        """The weights that the export was made from."""
        return str(self.detector.contract["weights_sha256"])


def _check_contract(name: str, detector: OnnxDetector, frozen: FrozenSet) -> None:
    classes = tuple(detector.contract["classes"])
    if detector.tile_px != frozen.tile_px or classes != frozen.images.classes:
        raise InputError(
            f"{name} is judged on tiles of {detector.tile_px} px with classes {', '.join(classes)}, the evaluation set "
            f"{frozen.digest[:12]} holds tiles of {frozen.tile_px} px with {', '.join(frozen.images.classes)}: "
            "nothing can be compared; give another evaluation set, or register this kind of model under another name"
        )


class Contest:
    """One challenger on one evaluation set, against whoever is champion; each model is scored once."""

    def __init__(self, challenger: Contestant, frozen: FrozenSet, policy: Policy, run: Run) -> None:
        self.challenger = challenger
        self.frozen = frozen
        self._policy = policy
        self._run = run
        self._probs: dict[str, Floats] = {}

    def scores(self, contestant: Contestant) -> Floats:
        """Crack probability of every tile of the set (N,)."""
        key = contestant.detector.sha256
        if key not in self._probs:
            probs = np.full(len(self.frozen.images), np.nan)
            batches = self._run.track(self.frozen.batches(), f"scoring {contestant.name}")
            for numbers, tiles in batches:
                probs[numbers] = contestant.detector.score_tiles(tiles)
            self._probs[key] = probs
        return self._probs[key]

    def against(self, champion: Contestant | None) -> tuple[Evidence, dict[str, Any]]:
        """Weigh the challenger against a champion, or alone; return the evidence and the record of it.

        Tiles of photos that trained or chose one of the two are left out for both.
        """
        both = [self.challenger, *([champion] if champion else [])]
        unseen_N = self.unseen(both)
        truth = self.frozen.truth.where(unseen_N)
        scored = [self.scores(contestant)[unseen_N] for contestant in both]
        marks = [mark(truth, probs, self._policy) for probs in scored]
        latencies = measure_latency([contestant.detector for contestant in both], self._first_tiles())
        gain = compare(truth, scored[1], scored[0], self._policy) if champion else None
        evidence = Evidence(
            num_photos=len(np.unique(truth.photo_N)),
            challenger=marks[0],
            latency=latencies[0],
            champion=marks[1] if champion else None,
            gain=gain,
        )
        return evidence, self._record(evidence, champion, int(np.count_nonzero(~unseen_N)), latencies)

    def unseen(self, contestants: Sequence[Contestant]) -> Bools:
        """Tiles (N,) of photos that trained or chose none of them."""
        seen = frozenset[str]().union(*(contestant.trained_on for contestant in contestants))
        unseen: Bools = ~np.isin(self.frozen.column("photo_sha256"), list(seen))
        return unseen

    def _first_tiles(self) -> Any:
        return next(iter(self.frozen.batches()))[1][:TIMED_TILES]

    def _record(
        self, evidence: Evidence, champion: Contestant | None, num_seen: int, latencies: Sequence[Latency]
    ) -> dict[str, Any]:
        frozen = self.frozen
        return {
            "evaluation_set": {
                "sha256": frozen.digest,
                "num_tiles": len(frozen.images) - num_seen,
                "num_photos": evidence.num_photos,
                "num_tiles_left_out": num_seen,  # their photos trained one of the two
            },
            "challenger": _told(self.challenger, evidence.challenger, latencies[0]),
            "champion": _told(champion, evidence.champion, latencies[1])
            if champion and evidence.champion
            else None,
            "gain": _plain(evidence.gain._asdict() | {"photos": evidence.gain.photos._asdict()})
            if evidence.gain
            else None,
            "policy": asdict(self._policy),
        }


def _told(contestant: Contestant, marks: Marks, latency: Latency) -> dict[str, Any]:
    return {
        "name": contestant.detector.contract["name"],
        "weights_sha256": contestant.weights_sha256,
        "onnx_sha256": contestant.detector.sha256,
        "photos_known": bool(contestant.trained_on),
        **_plain(marks._asdict()),
        "ms_per_tile": round(latency.ms, 4),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None for NaN, which JSON does not have."""
    return {
        name: _plain(value)
        if isinstance(value, Mapping)
        else None
        if isinstance(value, float) and np.isnan(value)
        else value
        for name, value in values.items()
    }


def measure_latency(detectors: Sequence[OnnxDetector], tiles: Any) -> list[Latency]:
    """Time detectors on the same tiles in turns, on one thread; the first one's ratio is to the second.

    Turns and medians keep a busy machine from deciding: the ratio is the median of the ratios of turns that
    follow each other.
    """
    times = np.array([[_ms(detector, tiles) for detector in detectors] for _ in range(TIMED_ROUNDS)])
    times = times[WARM_UP_ROUNDS:]
    ratio = float(np.median(times[:, 0] / times[:, 1])) if len(detectors) > 1 else None
    medians = np.median(times, axis=0).tolist()
    return [Latency(medians[0], ratio), *(Latency(ms, None) for ms in medians[1:])]


def _ms(detector: OnnxDetector, tiles: Any) -> float:
    started = time.perf_counter()
    detector.score_tiles(tiles)
    return 1000 * (time.perf_counter() - started) / len(tiles)
