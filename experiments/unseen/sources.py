"""Photos and ready tiles of real sources, as DATA/MANIFEST.csv lists them (path, label, mask, group).

DATA/SOURCE/images/*      photos; the column `mask` names the crack mask of each
DATA/SOURCE/Positive/*    ready tiles with a crack
DATA/SOURCE/Negative/*    ready tiles without
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from damcrack.data.photo import decode_mask, decode_photo
from damcrack.files import InputError, PhotoError, read_csv

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 100_000_000
WALLS = "wall-negatives"  # clean walls that look like trouble: joints, board marks, stains, cables
ASPHALT = ("asphalt-misc", "cfd", "crack500", "uav-crackx")  # which no detector here was made for
NOT_FOR_THIS = ("natural",)  # natural images, for pre-training
LABEL_OF_FOLDER = {"images": None, "Positive": 1, "Negative": 0}

# Pixels are compared where the mask's edge follows the crack, with more tolerance where it is slightly too wide.
# crack500 and phinet have masks several times as wide as their cracks: their pixels are never compared.
TOLERANCE_PX = {
    "deepcrack": 2,
    "cfd": 2,
    "masonry240": 2,
    "toshi-specimen": 2,
    "recife-crackconcrete": 2,
    "recife-cracktile": 2,
    "uav-embankment": 2,
    "hires": 2,
    "uav75": 2,
    "rissbilder": 4,
    "bridgedeck": 4,
}
UNMARKED_CRACKS = ("phinet", "bridgedeck")  # a block without a marked crack may hold one: never called clean


@dataclass(frozen=True)
class Photo:
    """A photo with its mask, or a ready tile: `mask` is None and `label` says whether it has a crack (1) or not (0)."""

    source: str
    file: Path
    mask: Path | None
    label: int | None
    group: str


def read_photos(
    data: Path, sources: Sequence[str] = (), max_per_source: int | None = None, not_among: int = 0
) -> list[Photo]:
    """Photos of the sources (default: all), sorted by source and file, at most `max_per_source` of each, spread evenly.

    Of ready tiles the limits hold for each class. Those that `max_per_source=not_among` would take are left out:
    what is chosen on the others is not chosen on what a table with that limit reports.

    Raises:
        InputError: no manifest, an unknown source, or a photo without a mask.
    """
    manifest = data / "MANIFEST.csv"
    if not manifest.is_file():
        raise InputError(f"no {manifest}; --data has to be a folder of sources with a MANIFEST.csv")
    lists: dict[tuple[str, str], list[Photo]] = {}
    for row in sorted(read_csv(manifest), key=lambda row: row["path"]):
        source, folder, *_ = Path(row["path"]).parts
        if folder in LABEL_OF_FOLDER and source not in NOT_FOR_THIS and (not sources or source in sources):
            lists.setdefault((source, folder), []).append(_photo(data, row))
    missing = set(sources) - {source for source, _ in lists}
    if missing:
        raise InputError(
            f"{manifest} has no photos of {', '.join(sorted(missing))}; the names are its folders"
        )
    found = list[Photo]()
    for photos in lists.values():
        reported = set(_spread(photos, not_among)) if not_among else set[Photo]()
        found += _spread([photo for photo in photos if photo not in reported], max_per_source)
    return found


def _photo(data: Path, row: dict[str, str]) -> Photo:
    source, folder, *_ = Path(row["path"]).parts
    label = LABEL_OF_FOLDER[folder]
    if label is None and not row["mask"]:
        raise InputError(
            f"{data / row['path']}: the manifest names no mask, expected one for each photo in {source}/images; "
            "give it a black mask if it shows no crack"
        )
    mask = data / row["mask"] if label is None else None
    return Photo(source, data / row["path"], mask, label, row["group"] or row["path"])


def _spread(photos: list[Photo], limit: int | None) -> list[Photo]:
    if limit is None or len(photos) <= limit:
        return photos
    return [photos[place] for place in np.linspace(0, len(photos) - 1, limit).round().astype(int)]


def read_pixels(photo: Photo) -> tuple[Pixels, Pixels | None]:
    """RGB (H, W, 3) and the mask (H, W) of 0/1; None of a ready tile.

    Raises:
        InputError: a file is missing or damaged, or the mask has another size.
    """
    rgb = _decoded(photo.file, decode_photo)
    if photo.mask is None:
        return rgb, None
    mask = (_decoded(photo.mask, decode_mask) > 0).astype(np.uint8)
    if mask.shape != rgb.shape[:2]:
        raise InputError(
            f"{photo.mask}: {mask.shape[1]} x {mask.shape[0]} px, expected {rgb.shape[1]} x {rgb.shape[0]} px "
            f"as {photo.file.name} has; make the mask from this photo"
        )
    return rgb, mask


def _decoded(file: Path, decode: Callable[[bytes, int], Pixels]) -> Pixels:
    try:
        return decode(file.read_bytes(), MAX_PIXELS)
    except (OSError, PhotoError) as error:
        raise InputError(f"{file}: {error}; copy the source again") from error
