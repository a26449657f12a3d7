"""The bare concrete: brightness of a formed surface, before anything happened to it."""

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

BLOTCHES = ((180, 0.04), (45, 0.03), (12, 0.02), (5, 0.025), (2.2, 0.04))  # period in px, and strength


def smooth_noise(rng: np.random.Generator, size_hw: tuple[int, int], period_yx: tuple[float, float]) -> Field:
    """Noise of about unit deviation that changes over `period_yx` pixels: float32 HxW."""
    height, width = size_hw
    coarse_hw = (int(height / period_yx[0]) + 3, int(width / period_yx[1]) + 3)
    coarse = rng.standard_normal(coarse_hw, dtype=np.float32)
    # Cut a window rather than stretch the whole grid, so that the period is the same at every photo size.
    scale = np.array([[1 / period_yx[1], 0, 0.5], [0, 1 / period_yx[0], 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    field = cv2.warpAffine(coarse, scale, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(field * np.float32(1.4), np.float32)


def concrete_surface(rng: np.random.Generator, size_hw: tuple[int, int]) -> Field:
    """Relative brightness around 1: clouds, mottles, stones, sand grain, pores and scaled patches."""
    light = np.ones(size_hw, np.float32)
    rough = np.float32(np.exp(rng.uniform(np.log(0.3), np.log(1.6))))
    for period_px, strength in ((max(size_hw) / 3, 0.05), *BLOTCHES):
        stretch = rng.uniform(0.7, 1.8)  # run-off and vibration smear a wall more downwards than sideways
        noise = smooth_noise(rng, size_hw, (period_px * stretch, period_px))
        light += noise * np.float32(strength * rng.uniform(0.4, 1.3)) * rough
    light += rng.standard_normal(size_hw, dtype=np.float32) * (np.float32(0.05) * rough)
    if rng.random() < 0.5:
        light += _relief(rng, size_hw)
    light *= _worn_patches(rng, size_hw)
    _sink_pores(rng, light)
    return light


def board_marks(rng: np.random.Generator, size_hw: tuple[int, int]) -> Field:
    """Relative brightness left by form boards: each its own tone and wood grain; seams dark or bright."""
    height, width = size_hw
    board_px = rng.uniform(70, 230)
    reach_px = int(np.hypot(height, width)) + 8
    profile = _board_profile(rng, reach_px, board_px)
    grain = smooth_noise(rng, (height, width), (rng.uniform(150, 500), rng.uniform(2.5, 7)))
    tilt = np.radians(rng.normal(0, 1.0))
    x_px = np.arange(width, dtype=np.float32) * np.float32(np.cos(tilt))
    y_px = np.arange(height, dtype=np.float32) * np.float32(abs(np.sin(tilt)))
    marks = profile[(x_px[None, :] + y_px[:, None]).astype(np.int32)]
    marks += grain * np.float32(rng.uniform(0.008, 0.028))
    return marks


def _board_profile(rng: np.random.Generator, reach_px: int, board_px: float) -> Field:
    num_boards = int(reach_px / board_px) + 2
    edges_px = np.cumsum(board_px * rng.uniform(0.9, 1.1, num_boards))
    tones = rng.normal(1.0, rng.uniform(0.015, 0.06), num_boards + 1)
    at_px = np.arange(reach_px)
    profile = tones[np.searchsorted(edges_px, at_px)]
    seam_px, depth = rng.uniform(0.8, 2.2), rng.uniform(-0.35, 0.2)
    for edge_px in edges_px[edges_px < reach_px]:
        strength = depth * rng.uniform(0.3, 1.2)
        profile += strength * np.exp(-(((at_px - edge_px) / seam_px) ** 2))
        profile -= 0.4 * strength * np.exp(-(((at_px - edge_px - 2.5 * seam_px) / seam_px) ** 2))
    return profile.astype(np.float32)


def _relief(rng: np.random.Generator, size_hw: tuple[int, int]) -> Field:
    """Grit of a rough wall: bumps lit from one side, finer or coarser, and stronger in some places."""
    period_px = rng.uniform(1.2, 4)
    bumps = smooth_noise(rng, size_hw, (period_px, period_px * rng.uniform(0.8, 1.5)))
    bumps -= np.roll(bumps, (int(rng.integers(1, 3)), int(rng.integers(-2, 3))), (0, 1))
    here = smooth_noise(rng, size_hw, (150, 150)) * np.float32(rng.uniform(0, 0.5)) + 1
    here *= np.float32(rng.uniform(0.01, 0.08))
    return bumps * here


def _worn_patches(rng: np.random.Generator, size_hw: tuple[int, int]) -> Field:
    """Flat darker or lighter flecks with crisp, ragged edges, where the cement skin has gone."""
    small_hw = (size_hw[0] // 2 + 1, size_hw[1] // 2 + 1)
    period_px = rng.uniform(4, 16)
    noise = smooth_noise(rng, small_hw, (period_px * rng.uniform(1, 2), period_px))
    noise += np.float32(0.8) * smooth_noise(rng, small_hw, (90, 90))
    noise += np.float32(0.35) * smooth_noise(rng, small_hw, (2, 2))
    threshold = np.float32(rng.uniform(2.0, 3.3))
    flecks = np.clip((noise - threshold) * np.float32(4), 0, 1) * np.float32(rng.uniform(-0.22, 0.1))
    return np.asarray(1 + cv2.resize(flecks, size_hw[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _sink_pores(rng: np.random.Generator, light: Field) -> None:
    """Bug holes: small dark hollows with a lit lower rim, in clusters; drawn onto `light`."""
    height, width = light.shape
    shade, rim = np.zeros(light.shape, np.uint8), np.zeros(light.shape, np.uint8)
    num_pores = rng.poisson(height * width * 10 ** rng.uniform(-4.6, -3.5))
    radii_px = np.clip(np.exp(rng.normal(0.55, 0.55, num_pores)), 0.8, 9.0)
    centres_xy = rng.uniform(0, 1, (num_pores, 2)) * (width, height)
    squash = rng.uniform(0.6, 1.0, num_pores)
    depths = rng.uniform(60, 230, num_pores)
    for (x, y), radius_px, ratio, depth in zip(centres_xy, radii_px, squash, depths, strict=True):
        _ellipse(rim, (x, y + 0.5 * radius_px), (radius_px, radius_px * ratio), 70)
        _ellipse(shade, (x, y), (radius_px, radius_px * ratio), float(depth))
    cv2.subtract(rim, shade, dst=rim)
    darker = cv2.GaussianBlur(shade, (0, 0), 0.7).astype(np.float32)
    darker -= rim
    darker *= np.float32(-0.8 / 255)
    darker += 1
    light *= darker


def _ellipse(
    canvas: NDArray[np.uint8], centre_xy: tuple[float, float], axes_px: tuple[float, float], value: float
) -> None:
    centre = (round(centre_xy[0] * 16), round(centre_xy[1] * 16))
    axes = (round(axes_px[0] * 16), round(axes_px[1] * 16))
    cv2.ellipse(canvas, centre, axes, 0, 0, 360, value, -1, cv2.LINE_AA, 4)
