"""What changed between two registered photos of a wall: new, grown and vanished cracks.

A crack counts as changed only where the other photo shows nothing like it, not even a faint line, could show it, and
its network was not in doubt: so brightness, blur, viewpoint and distance alone change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.measure import SAMPLE_PX
from damcrack.inspection.align import Homography, moved, scale_at

Mask = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Status = Literal["new", "grown", "unchanged", "vanished", "unclear", "rejected"]

# What counts as a change, in pixels of the newer photo.
NEAR_PX, LONGER_PX, WIDER_PX = 5.0, 12.0, 1.5
MATCHED_SHARE = 0.3  # of a crack that has no more than that in the other photo, all is new or vanished
KNOWN_SHARE = 0.5  # of a crack that must lie where the other photo can tell
BORDER_PX = 8
# In a photo with so much larger pixels, a crack narrower than two of them may not show.
COARSER, RESOLVED_PX = 0.8, 2.0
LARGEST_STEP_PX = 2 * SAMPLE_PX  # samples of one branch are nearer to each other, across corners too


@dataclass(frozen=True)
class Side:
    """One photo of a pair: `samples` of each crack (S, 3) as x, y, width; `possible` (H, W) lines; `doubt` (H, W).

    `doubt` is True where the network was unsure, so that missing lines mean nothing.
    """

    lengths_px: Sequence[float]
    samples: Sequence[Floats]
    possible: Mask
    doubt: Bools

    @cached_property
    def far_px(self) -> npt.NDArray[np.float32]:
        """Distance of each pixel to the nearest possible line, (H, W)."""
        return np.asarray(
            cv2.distanceTransform(1 - np.minimum(self.possible, 1), cv2.DIST_L2, cv2.DIST_MASK_5), np.float32
        )


@dataclass(frozen=True)
class Change:
    """`crack` is its number in the new photo, or in the old one where it vanished; lengths and widths in new pixels."""

    status: Status
    crack: int
    length_px: float
    length_change_px: float
    width_px: float
    width_change_px: float | None


def changes(old: Side, new: Side, old_to_new: Homography, error_px: float) -> list[Change]:
    """All cracks of the new photo with what became of them, then those of the old one that vanished."""
    near_px = NEAR_PX + error_px
    old_in_new = [_moved_samples(old_to_new, samples) for samples in old.samples]
    known = np.concatenate([*old_in_new, np.empty((0, 3))])
    back = np.asarray(np.linalg.inv(old_to_new), np.float64)
    found = [
        _of_new(number, length, samples, known, _seen(samples, old, back, near_px), near_px)
        for number, (length, samples) in enumerate(zip(new.lengths_px, new.samples, strict=True))
    ]
    for number, (length, samples) in enumerate(zip(old.lengths_px, old_in_new, strict=True)):
        stretch = float(scale_at(old_to_new, old.samples[number][:, :2]).mean())
        seen = _seen(old.samples[number], new, old_to_new, near_px / stretch)
        if seen.can_tell and seen.matched <= MATCHED_SHARE:
            lost_px, width = length * stretch, float(np.median(samples[:, 2]))
            found.append(Change("vanished", number, lost_px, -lost_px, width, None))
    return found


def _moved_samples(homography: Homography, samples: Floats) -> Floats:
    width = samples[:, 2] * scale_at(homography, samples[:, :2])
    return np.column_stack([moved(homography, samples[:, :2]), width])


@dataclass(frozen=True)
class _Seen:
    """Of each sample (S,): whether the other photo can tell, and whether it has a line there."""

    visible: Bools
    there: Bools

    @property
    def can_tell(self) -> bool:
        """Whether enough of the crack is visible."""
        return bool(self.visible.mean() >= KNOWN_SHARE)

    @property
    def matched(self) -> float:
        """Share of what is visible that has a line."""
        return float((self.visible & self.there).sum() / self.visible.sum())


def _seen(samples: Floats, other: Side, to_other: Homography, near_px: float) -> _Seen:
    """What the other photo shows of a crack; samples and `near_px` are in pixels of its own."""
    height, width = other.possible.shape
    places = moved(to_other, samples[:, :2])
    x, y = np.rint(places).astype(np.int64).T
    inside = (x >= BORDER_PX) & (y >= BORDER_PX) & (x < width - BORDER_PX) & (y < height - BORDER_PX)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    scale = scale_at(to_other, samples[:, :2])
    there = other.far_px[y, x] <= near_px * float(np.mean(scale))
    resolved = (scale >= COARSER) | (samples[:, 2] * scale >= RESOLVED_PX)
    return _Seen(inside & (there | (resolved & ~other.doubt[y, x])), there)


def _of_new(
    number: int, length: float, samples: Floats, known: Floats, seen: _Seen, near_px: float
) -> Change:
    width = float(np.median(samples[:, 2]))
    if not seen.can_tell:
        return Change("unclear", number, length, 0.0, width, None)
    if seen.matched <= MATCHED_SHARE:
        return Change("new", number, length, length, width, None)
    grown_px = min(length, _length_of_runs(samples, seen.visible & ~seen.there, known, near_px))
    wider_px = _wider(samples[seen.there], known, near_px)
    changed = grown_px >= LONGER_PX or (wider_px is not None and wider_px >= WIDER_PX)
    return Change("grown" if changed else "unchanged", number, length, grown_px, width, wider_px)


def _length_of_runs(samples: Floats, fresh: Bools, known: Floats, near_px: float) -> float:
    """Length of runs of fresh samples; to each is added its distance from the known line, which it grew from.

    Where the next branch begins elsewhere, a run ends: what lies between them is no crack.
    Faint lines reach past the end of a crack by some of its width, so a run begins later than the growth does.
    """
    total = 0.0
    steps_px = np.hypot(*np.diff(samples[:, :2], axis=0).T)
    ends = (np.diff(fresh.astype(np.int8)) != 0) | (steps_px > LARGEST_STEP_PX)
    for run, of in zip(*(np.split(one, np.flatnonzero(ends) + 1) for one in (samples, fresh)), strict=True):
        run_px = float(np.hypot(*np.diff(run[:, :2], axis=0).T).sum())
        if of[0] and run_px + near_px >= LONGER_PX:
            total += run_px + _gap(run, known, near_px)
    return total


def _gap(run: Floats, known: Floats, near_px: float) -> float:
    """From the ends of a run to the known line, as far as faint lines may hide it: `near_px` and two widths."""
    most = near_px + 2 * float(np.median(run[:, 2]))
    if not len(known):
        return near_px
    ends = run[[0, -1], None, :2]
    nearest = float(np.linalg.norm(ends - known[None, :, :2], axis=2).min())
    return nearest if near_px <= nearest <= most else near_px


def _wider(samples: Floats, known: Floats, near_px: float) -> float | None:
    """Median difference of widths over the places that both photos show; None if there are too few."""
    if len(samples) < 5 or not len(known):
        return None
    differences = []
    for part in np.array_split(samples, -(-len(samples) // 256)):
        distance = np.linalg.norm(part[:, None, :2] - known[None, :, :2], axis=2)
        nearest = distance.argmin(axis=1)
        close = distance[np.arange(len(part)), nearest] <= 2 * near_px
        differences.append((part[:, 2] - known[nearest, 2])[close])
    every = np.concatenate(differences)
    return float(np.median(every)) if len(every) >= 5 else None
