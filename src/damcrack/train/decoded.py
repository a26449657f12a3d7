"""Image sets decoded once into a memory-mapped array, so that an epoch reads pixels and nothing else."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from damcrack.data.imageset import SPLITS, UNLABELLED, ImageSet
from damcrack.data.targets import WITHOUT_MASK, decode_targets
from damcrack.files import InputError, in_order, one_at_a_time, replacing
from damcrack.train.classifier import shrink

CHUNK = 64


@dataclass(frozen=True)
class DecodedSet:
    """All images of a set: `images_NHWC` uint8 RGB (memory-mapped), labels, and rows of each split.

    `targets_NHW` are the codes of their pixels (damcrack.data.targets), if they were asked for.
    """

    images_NHWC: npt.NDArray[np.uint8]
    labels_N: npt.NDArray[np.int64]
    rows_of: dict[str, npt.NDArray[np.int64]]
    classes: tuple[str, ...]
    digest: str
    targets_NHW: npt.NDArray[np.uint8] | None = None

    @property
    def image_px(self) -> int:
        """Side of the square images."""
        return int(self.images_NHWC.shape[1])

    def channel_statistics(self, split: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel over a split, of values in 0..1."""
        counts_CV = np.zeros((3, 256))  # of each value in each channel
        for rows in np.array_split(self.rows_of[split], max(1, len(self.rows_of[split]) // 256)):
            pixels = self.images_NHWC[rows].reshape(-1, self.image_px, 3)
            counts_CV += [cv2.calcHist([pixels], [c], None, [256], [0, 256]).ravel() for c in range(3)]
        values_V, count = np.arange(256.0), counts_CV[0].sum()
        mean = counts_CV @ values_V / count
        deviation = np.sqrt(counts_CV @ values_V**2 / count - mean**2)
        return tuple(float(v) for v in mean / 255), tuple(float(v) for v in np.maximum(deviation, 1) / 255)


def decode_set(root: Path, image_px: int | None, cache: Path, with_targets: bool = False) -> DecodedSet:
    """Decode the set at `root` to `image_px` squares, or map the array that an earlier call left in `cache`.

    `image_px` None keeps the size in which the set is stored. Of several processes one decodes, the others wait.
    `with_targets` decodes what their pixels teach too.

    Raises:
        InputError: the set is empty, or an image in it cannot be decoded.
    """
    images = ImageSet.open(root)
    if not images.rows:
        raise InputError(f"{root} holds no images; see quarantine.csv of the stage before it")
    image_px = image_px or images.image_hw[0]
    name = f"{images.digest[:32]}-{image_px}"
    array = _mapped(cache / f"{name}.npy", images, image_px, _fill_images)
    targets = (
        _mapped(cache / f"{name}-targets.npy", images, image_px, _fill_targets) if with_targets else None
    )
    splits = (*SPLITS, UNLABELLED)
    rows_of = {split: np.array(images.where(split), dtype=np.int64) for split in splits}
    labels = np.array(images.labels, dtype=np.int64)
    return DecodedSet(array, labels, rows_of, images.classes, images.digest, targets)


Fill = Callable[[Path, ImageSet, int], None]


def _mapped(path: Path, images: ImageSet, image_px: int, fill: Fill) -> npt.NDArray[np.uint8]:
    with one_at_a_time(path):
        if not _is_readable(path):
            with replacing(path) as temporary:
                fill(temporary, images, image_px)
        os.utime(path)  # used now: the scratch folder keeps what was used last
    # Copy-on-write: torch wants writable memory, the file stays as it is.
    array: npt.NDArray[np.uint8] = np.load(path, mmap_mode="c")
    return array


def _is_readable(path: Path) -> bool:
    """Whether there is an array; a damaged one is none."""
    try:
        np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


def _fill_images(path: Path, images: ImageSet, image_px: int) -> None:
    shape = (len(images), image_px, image_px, 3)
    array = _new_array(path, shape)
    decode = partial(_decode_chunk, image_px=image_px)
    for rows, pixels_BHWC in in_order(decode, _chunks(images.encoded())):
        array[rows] = pixels_BHWC
    array.flush()


def _new_array(path: Path, shape: tuple[int, ...]) -> "np.memmap[tuple[int, ...], np.dtype[np.uint8]]":
    """A mapped array (N, ...) of bytes; a disk without room for it says so here, and does not end the process later."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _fill_targets(path: Path, images: ImageSet, image_px: int) -> None:
    shape = (len(images), image_px, image_px)
    array = _new_array(path, shape)
    for code in WITHOUT_MASK:
        array[np.array(images.labels) == code] = WITHOUT_MASK[code]
    decode = partial(_decode_targets_chunk, image_px=image_px)
    for rows, targets_BHW in in_order(decode, _chunks(images.masks())):
        array[rows] = targets_BHW
    array.flush()


def _decode_targets_chunk(
    chunk: list[tuple[int, bytes]], image_px: int
) -> tuple[list[int], npt.NDArray[np.uint8]]:
    """Codes at the images' size; where several pixels become one, the highest code counts: a crack is not lost."""
    codes_BHW = np.stack([_decode_codes(row, encoded) for row, encoded in chunk])
    factor = codes_BHW.shape[-1] // image_px
    blocks = codes_BHW.reshape(len(chunk), image_px, factor, image_px, factor)
    return [row for row, _ in chunk], blocks.max(axis=(2, 4))


def _decode_codes(row: int, encoded: bytes) -> npt.NDArray[np.uint8]:
    codes = decode_targets(encoded)
    if codes is None:
        raise InputError(f"mask of row {row} cannot be decoded; make the set again")
    return codes


def _chunks(encoded: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    while chunk := list(islice(encoded, CHUNK)):
        yield chunk


def _decode_chunk(chunk: list[tuple[int, bytes]], image_px: int) -> tuple[list[int], npt.NDArray[np.uint8]]:
    pixels_BHWC = np.stack([decode_image(row, encoded) for row, encoded in chunk])
    small = shrink(torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2), image_px)
    return [row for row, _ in chunk], small.permute(0, 2, 3, 1).to(torch.uint8).numpy()


def decode_image(row: int, encoded: bytes) -> npt.NDArray[np.uint8]:
    """RGB pixels (H, W, 3) of the image of this row.

    Raises:
        InputError: it cannot be decoded.
    """
    pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise InputError(f"image of row {row} cannot be decoded; make the set again")
    return pixels.astype(np.uint8, copy=False)
