"""The photos that benchmarks.tile tiles: as the photos stage writes them, 4032x3024."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.data.mask import encode_mask
from damcrack.data.photo import decode_mask, decode_photo
from damcrack.files import in_order, read_csv, sha256_bytes, write_bytes, write_csv
from damcrack.sample.concrete import encode_photo, render_photo

SIZE_HW = (3024, 4032)
MAX_PIXELS = 2**31 - 1
COLUMNS = ("photo", "source", "group", "file", "mask", "height_px", "width_px", "sha256")
RENDERED = 60  # the others are these, shifted: as new to the near-duplicate search, and ten times faster made


def render(folder: Path, seed: int, index: int) -> dict[str, Any]:
    """Write one photo and its mask, unless an earlier run did; those from RENDERED on are shifted copies."""
    photo, mask = _files(folder, index)
    if not (photo.exists() and mask.exists()):
        if index < RENDERED:
            drawn = render_photo(seed, index, SIZE_HW)
            pixels, encoded = drawn.mask, encode_photo(drawn.rgb, index)
        else:
            originals = _files(folder, index % RENDERED)
            shift = (index // RENDERED * 101, index // RENDERED * 67)
            rgb = np.roll(decode_photo(originals[0].read_bytes(), MAX_PIXELS), shift, (0, 1))
            pixels = np.roll(decode_mask(originals[1].read_bytes(), MAX_PIXELS), shift, (0, 1))
            encoded = encode_photo(rgb, index)
        write_bytes(mask, encode_mask(pixels))
        write_bytes(photo, encoded)
    name = f"sample/{photo.name}"
    places = {"file": photo.relative_to(folder), "mask": mask.relative_to(folder)}
    row: dict[str, Any] = {"photo": name, "source": "sample", "group": name, **places}
    size = {"height_px": SIZE_HW[0], "width_px": SIZE_HW[1]}
    return {**row, **size, "sha256": sha256_bytes(photo.read_bytes())}


def _files(folder: Path, index: int) -> tuple[Path, Path]:
    return folder / f"photos/sample/{index:05d}.jpg", folder / f"masks/sample/{index:05d}.png"


def render_all(folder: Path, num_photos: int, seed: int) -> None:
    """Make what is missing of the first `num_photos`."""
    for name in ("photos/sample", "masks/sample"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for chunk in (range(min(RENDERED, num_photos)), range(RENDERED, num_photos)):
        for row in in_order(partial(render, folder, seed), chunk):
            rows.append(row)
            print(f"\rphoto {len(rows)} of {num_photos}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    write_csv(folder / "photos.csv", COLUMNS, rows)


def first_photos(folder: Path, num_photos: int) -> Path:
    """Show the first photos of `folder` as what the photos stage writes, without copying them."""
    shown = folder.with_name(f"{folder.name}-{num_photos}")
    shown.mkdir(exist_ok=True)
    for name in ("photos", "masks"):
        if not (shown / name).exists():
            (shown / name).symlink_to((folder / name).resolve())
    write_csv(shown / "photos.csv", COLUMNS, read_csv(folder / "photos.csv")[:num_photos])
    return shown
