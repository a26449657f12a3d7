"""How many photos the check of quality (damcrack.cracks.quality) doubts: real ones, and what they become when spoilt.

    python -m experiments.doubtful --data DIR

DIR holds the real sources (experiments/unseen/sources.py). Its limits were chosen on these photos.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.quality import doubt
from experiments.unseen.__main__ import DATA_VARIABLE
from experiments.unseen.sources import read_photos, read_pixels

Pixels = npt.NDArray[np.uint8]
SPOILT = ("rissbilder", "uav-embankment")


def noisy(values: npt.NDArray[np.floating], deviation: float) -> Pixels:
    """With the noise of a camera."""
    noise = np.random.default_rng(0).normal(0, deviation, values.shape)
    return np.clip(values + noise, 0, 255).astype(np.uint8)


def under_water(rgb: Pixels) -> Pixels:
    """Red light is gone, what is left is mixed with the light of the water, and blurred."""
    seen = 0.35 * rgb * np.array([0.3, 0.8, 0.75]) + 0.65 * 255 * np.array([0.1, 0.35, 0.3])
    return noisy(cv2.GaussianBlur(seen, (0, 0), 2), 3)


WAYS: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": lambda rgb: rgb,
    "at night": lambda rgb: noisy(0.08 * rgb, 4),
    "under water": under_water,
    "blurred by 3 px": lambda rgb: np.asarray(cv2.GaussianBlur(rgb, (0, 0), 3), np.uint8),
    "blurred by 5 px": lambda rgb: np.asarray(cv2.GaussianBlur(rgb, (0, 0), 5), np.uint8),
    "blurred by 8 px": lambda rgb: np.asarray(cv2.GaussianBlur(rgb, (0, 0), 8), np.uint8),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.doubtful", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get(DATA_VARIABLE), help=f"default: {DATA_VARIABLE}"
    )
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit(f"no photos: give --data or set {DATA_VARIABLE} to the folder with MANIFEST.csv")
    every = [doubt(read_pixels(photo)[0]) for photo in read_photos(args.data, (), 40)]
    print(f"all sources: {sum(map(bool, every))} of {len(every)} photos and tiles are doubted")
    photos = [read_pixels(photo)[0] for photo in read_photos(args.data, SPOILT, 15)]
    for name, spoil in WAYS.items():
        print(f"{name}: {sum(bool(doubt(spoil(rgb))) for rgb in photos)} of {len(photos)}")


if __name__ == "__main__":
    main()
