"""What a surface is made of: formed concrete, masonry and tiles, or a deck. Cracks run through all of them alike."""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from damcrack.sample.marks import joints, press_tie_holes
from damcrack.sample.strokes import Bytes, Floats, coverage, painted
from damcrack.sample.surface import Field, board_marks, smooth_noise
from damcrack.sample.wall import Wall, blurred, cut, lay

BRICK = (1.55, 0.62, 0.38)  # linear reflectance (red, green, blue) beside that of concrete


@dataclass(frozen=True)
class Ground:
    """Points (N, 2) that run-off comes from, and paths (K, 2) along which the surface comes apart at its joints."""

    run_off_xy: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    seams: tuple[Floats, ...] = ()


def lay_ground(rng: np.random.Generator, wall: Wall) -> Ground:
    """Make the bare wall one of the grounds, before anything is known of cracks: none tells whether there are any."""
    chances = np.array([chance for _, chance in GROUNDS])
    return GROUNDS[int(rng.choice(len(GROUNDS), p=chances / chances.sum()))][0](rng, wall)


def formed(rng: np.random.Generator, wall: Wall) -> Ground:
    """Concrete from a form: boards, tie-rod holes, joints of panels."""
    size_hw = wall.size_hw
    if rng.random() < 0.45:
        np.multiply(wall.light, board_marks(rng, size_hw), out=wall.light)
    holes_xy = press_tie_holes(rng, wall.light) if rng.random() < 0.5 else np.zeros((0, 2))
    gaps = joints(rng, size_hw) if rng.random() < 0.8 else []
    shades = [np.full(len(gap.width_px), rng.uniform(0.35, 0.9)) for gap in gaps]
    cut(wall.light, coverage(gaps, size_hw), painted(gaps, shades, size_hw))
    along = [gap.points_xy[rng.integers(0, len(gap.points_xy), 6)] for gap in gaps]
    return Ground(np.concatenate([holes_xy, *along]))


def masonry(rng: np.random.Generator, wall: Wall) -> Ground:
    """Bricks, blocks or tiles, each of its own tone, in running or stacked bond, seen straight or aslant."""
    height, width = wall.size_hw
    bond = _bond(rng, (height, width))
    tones, burnt = np.full((height, width), 128, np.uint8), np.full((height, width), 128, np.uint8)
    mortar = np.full((height, width), 255, np.uint8)
    spread = rng.uniform(0, 18)
    for corners in np.round(bond.bricks(rng) * 16).astype(np.int32):
        cv2.fillConvexPoly(tones, corners, float(rng.normal(128, spread)), cv2.LINE_8, 4)
        cv2.fillConvexPoly(burnt, corners, float(rng.normal(128, spread)), cv2.LINE_8, 4)
        cv2.fillConvexPoly(mortar, corners, 0.0, cv2.LINE_AA, 4)
    np.multiply(wall.light, tones.astype(np.float32) / 128, out=wall.light)
    if rng.random() < 0.6:
        strength = burnt.astype(np.float32)[..., None] * np.float32(rng.uniform(0.1, 1.1) / 128)
        wall.tint[:] *= np.array(BRICK, np.float32) ** strength
    tone = rng.uniform(0.15, 0.75) if rng.random() < 0.5 else rng.uniform(0.8, 1.8)
    _fill_joints(rng, wall, blurred(mortar, rng.uniform(0.4, 1.4)), tone)
    return Ground(seams=tuple(bond.seam(rng) for _ in range(6)))


def deck(rng: np.random.Generator, wall: Wall) -> Ground:
    """The gritty surface of a deck or of washed concrete, half of the time with grooves."""
    size_px = float(np.exp(rng.uniform(np.log(1.2), np.log(5))))
    stones = np.zeros(wall.size_hw, np.float32)
    for period_px, share in ((size_px, 0.7), (0.6 * size_px, 0.5), (2.2 * size_px, 0.4)):
        stones += smooth_noise(
            rng, wall.size_hw, (period_px, period_px * rng.uniform(0.8, 1.3))
        ) * np.float32(share)
    np.clip(stones, -1.2, 2.5, out=stones)
    patchy = 1 + smooth_noise(rng, wall.size_hw, (120, 120)) * np.float32(rng.uniform(0, 0.3))
    contrast = np.float32(np.exp(rng.uniform(np.log(0.06), np.log(0.35))))
    np.multiply(wall.light, np.exp(stones * patchy * contrast), out=wall.light)
    if rng.random() < 0.5:
        np.multiply(wall.light, 1 - _grooves(rng, wall.size_hw), out=wall.light)
    return Ground()


Lay = Callable[[np.random.Generator, Wall], Ground]
GROUNDS: tuple[tuple[Lay, float], ...] = ((formed, 0.7), (masonry, 0.16), (deck, 0.14))


@dataclass(frozen=True)
class _Bond:
    """A pattern of bricks of one size, `shift` of a brick apart from course to course, and how it is seen."""

    brick_xy: Floats  # width and height with a joint
    joint_px: float
    shift: float
    low_xy: Floats  # of the first brick, from the middle of the picture
    num_xy: tuple[int, int]
    middle_xy: Floats
    turn: Floats  # (2, 2)
    slant: Floats  # 1 per pixel: what is to that side is farther away

    def bricks(self, rng: np.random.Generator) -> Floats:
        """Corners (N, 4, 2) of the bricks without their joints."""
        columns, rows = np.meshgrid(np.arange(self.num_xy[0]), np.arange(self.num_xy[1]))
        low_xy = (
            np.stack([columns - self.shift * (rows % 2), rows], axis=-1).reshape(-1, 1, 2) * self.brick_xy
        )
        inner = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (self.brick_xy - self.joint_px)
        corners_xy = self.low_xy + low_xy + inner
        return self._seen(corners_xy + rng.normal(0, 0.4 + 0.03 * self.joint_px, corners_xy.shape))

    def seam(self, rng: np.random.Generator) -> Floats:
        """A path (K, 2) along joints, stepping from course to course or staying on one; seldom through a brick."""
        column, row = (rng.uniform(0.25, 0.75, 2) * self.num_xy).astype(int).tolist()  # in the picture
        at, side = [np.array([column - self.shift * (row % 2), float(row)])], int(rng.choice([-1, 1]))
        for _ in range(int(rng.integers(2, 9))):
            if rng.random() < 0.7:
                at.append(at[-1] + (0, 1))
            if rng.random() < 0.85:
                at.append(at[-1] + (side * (self.shift if rng.random() < 0.7 and self.shift else 1), 0))
        return self._seen(self.low_xy + np.array(at) * self.brick_xy - rng.uniform(0, 1, 2) * self.joint_px)

    def _seen(self, points_xy: Floats) -> Floats:
        turned = points_xy @ self.turn
        return np.asarray(turned / np.clip(1 + turned @ self.slant, 0.2, None)[..., None] + self.middle_xy)


def _bond(rng: np.random.Generator, size_hw: tuple[int, int]) -> _Bond:
    """Bricks 28 to 320 px high in running or stacked bond; some walls and floors are seen from the side."""
    course_px = float(np.exp(rng.uniform(np.log(28), np.log(320))))
    brick_xy = np.array([course_px * rng.uniform(1.0, 3.4), course_px])
    joint_px = float(np.clip(course_px * np.exp(rng.uniform(np.log(0.012), np.log(0.16))), 1, 30))
    reach_px = 0.75 * float(np.hypot(*size_hw))
    angle = rng.normal(0, 0.03) if rng.random() < 0.75 else rng.uniform(-np.pi, np.pi)
    width, height = (int(2 * reach_px / side) + 2 for side in brick_xy)
    return _Bond(
        brick_xy,
        joint_px,
        0.5 if rng.random() < 0.65 else 0.0,
        -reach_px - rng.uniform(0, 1, 2) * brick_xy,
        (width, height),
        np.array(size_hw[::-1]) / 2,
        np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]),
        rng.uniform(-0.45, 0.45, 2) / reach_px if rng.random() < 0.3 else np.zeros(2),
    )


def _fill_joints(rng: np.random.Generator, wall: Wall, mortar: Bytes, tone: float) -> None:
    """Lay mortar of one tone, flush or sunk with a shaded upper and a lit lower edge."""
    lay(wall, (mortar * rng.uniform(0.6, 1)).astype(np.uint8), (tone, tone, tone * rng.uniform(0.85, 1)))
    if rng.random() < 0.6:
        share = mortar.astype(np.float32) * np.float32(1 / 255)
        step = share - np.roll(share, int(rng.integers(2, 5)), axis=0)
        wall.light[:] *= np.clip(1 - step * np.float32(rng.uniform(0.1, 0.6)), 0.1, 2)


def _grooves(rng: np.random.Generator, size_hw: tuple[int, int]) -> Field:
    """Share of light (H, W) that parallel, uneven, partly worn grooves take."""
    spacing_px = float(np.exp(rng.uniform(np.log(7), np.log(45))))
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    rows, columns = (np.arange(side, dtype=np.float32) for side in size_hw)
    across = rows[:, None] * np.float32(np.cos(angle)) + columns[None, :] * np.float32(np.sin(angle))
    across += smooth_noise(rng, size_hw, (150, 150)) * np.float32(rng.uniform(0, 2))
    across *= np.float32(1 / spacing_px)
    number = np.round(across).astype(np.int32)
    across -= number
    number -= number.min()
    aside = rng.normal(0, rng.uniform(0, 0.12), number.max() + 1).astype(np.float32)
    depth = rng.uniform(0.3, 1, number.max() + 1).astype(np.float32) * np.float32(rng.uniform(0.1, 0.6))
    across -= aside[number]
    across *= np.float32(spacing_px / rng.uniform(0.7, max(1.0, 0.14 * spacing_px)))
    worn = np.clip(smooth_noise(rng, size_hw, (60, 60)) + np.float32(rng.uniform(0, 2)), 0, 1)
    return np.asarray(np.exp(-np.square(across)) * depth[number] * worn, np.float32)
