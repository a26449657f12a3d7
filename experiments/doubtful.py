"""How many photos the check of quality (damcrack.cracks.quality) doubts: real ones, and what they become when spoilt.

    python -m experiments.doubtful --data DIR --others FOLDER

DIR holds the real sources (experiments/unseen/sources.py). The limits were chosen on at most 40 photos of each; the
rest says how often concrete is doubted by mistake. FOLDER holds photos of anything but concrete.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.quality import doubt
from damcrack.data.photo import decode_photo
from experiments.commands import command, with_data
from experiments.unseen.sources import MAX_PIXELS, read_photos, read_pixels

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
    parser = command("doubtful", __doc__)
    parser.add_argument("--others", type=Path, help="folder of photos that show no concrete")
    args = with_data(parser)
    chosen_on, everything = read_photos(args.data, (), 40), read_photos(args.data)
    rest = sorted(set(everything) - set(chosen_on), key=lambda photo: photo.file)
    for name, photos in (("chosen on", chosen_on), ("others of the same sources", rest)):
        reasons = [doubt(read_pixels(photo)[0]) for photo in photos]
        print(f"{name}: {words_of(reasons)}")
    if args.others:
        others = (decode_photo(file.read_bytes(), MAX_PIXELS) for file in sorted(args.others.iterdir()))
        print(f"no concrete: {words_of(list(map(doubt, others)))}")
    spoilt = [read_pixels(photo)[0] for photo in read_photos(args.data, SPOILT, 15)]
    for name, spoil in WAYS.items():
        print(f"{name}: {words_of([doubt(spoil(rgb)) for rgb in spoilt])}")


def words_of(reasons: Sequence[str]) -> str:
    """How many of so many photos are doubted, and why."""
    counts = Counter(reason.split(":")[0] for reason in reasons if reason)
    return f"{counts.total()} of {len(reasons)} are doubted {dict(counts) or ''}"


if __name__ == "__main__":
    main()
