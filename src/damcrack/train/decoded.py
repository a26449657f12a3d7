"""Image sets decoded once into a memory-mapped array, so that an epoch reads pixels and nothing else."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from damcrack.data.imageset import SPLITS, UNLABELLED, ImageSet, decode_image
from damcrack.data.targets import WITHOUT_MASK, decode_targets
from damcrack.files import InputError, in_order, one_at_a_time, replacing

Decode = Callable[[int, tuple[int, bytes]], tuple[int, npt.NDArray[np.uint8]]]
"""Side of the images, row and encoded bytes -> row and pixels, or their codes."""


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
    name, shape = f"{images.digest[:32]}-{image_px}", (len(images), image_px, image_px)
    array = _mapped(cache / f"{name}.npy", (*shape, 3), _small_image, images.encoded, images.labels)
    targets = None
    if with_targets:
        path = cache / f"{name}-targets.npy"
        targets = _mapped(path, shape, _small_codes, images.masks, images.labels)
    splits = (*SPLITS, UNLABELLED)
    rows_of = {split: np.array(images.where(split), dtype=np.int64) for split in splits}
    labels = np.array(images.labels, dtype=np.int64)
    return DecodedSet(array, labels, rows_of, images.classes, images.digest, targets)


def _mapped(
    path: Path,
    shape: tuple[int, ...],
    decode: Decode,
    stored: Callable[[], Iterator[tuple[int, bytes]]],
    labels: list[int],
) -> npt.NDArray[np.uint8]:
    """The array at `path`; if there is none yet, it is decoded, and what is not stored is filled by its label."""
    with one_at_a_time(path):
        try:
            np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):  # none yet, or damaged
            with replacing(path) as temporary:
                array = _new_array(temporary, shape)
                for label, code in WITHOUT_MASK.items():
                    array[np.array(labels) == label] = code
                for row, values in in_order(partial(decode, shape[1]), stored()):
                    array[row] = values
                array.flush()
        os.utime(path)  # used now: the scratch folder keeps what was used last
    # Copy-on-write: torch wants writable memory, the file stays as it is.
    mapped: npt.NDArray[np.uint8] = np.load(path, mmap_mode="c")
    return mapped


def _new_array(path: Path, shape: tuple[int, ...]) -> "np.memmap[tuple[int, ...], np.dtype[np.uint8]]":
    """A mapped array (N, ...) of bytes; a disk without room for it says so here, and does not end the process later."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def shrink(images_BCHW: Tensor, image_px: int) -> Tensor:
    """Average whole blocks of pixels and round to whole grey values; float in 0..255 comes back.

    Raises:
        InputError: the side is not a multiple of `image_px`.
    """
    side_px = int(images_BCHW.shape[-1])
    if side_px % image_px:
        divisors = [px for px in range(32, side_px + 1) if side_px % px == 0]
        raise InputError(f"image_px: {image_px}; images of {side_px} px can be reduced to {divisors}")
    factor = side_px // image_px
    return images_BCHW.float() if factor == 1 else torch.round(F.avg_pool2d(images_BCHW.float(), factor))


def _small_image(image_px: int, stored: tuple[int, bytes]) -> tuple[int, npt.NDArray[np.uint8]]:
    row, encoded = stored
    small_CHW = shrink(torch.from_numpy(decode_image(row, encoded)).permute(2, 0, 1), image_px)
    return row, small_CHW.permute(1, 2, 0).to(torch.uint8).numpy()


def _small_codes(image_px: int, stored: tuple[int, bytes]) -> tuple[int, npt.NDArray[np.uint8]]:
    """Codes at the images' size; where several pixels become one, the highest code counts: a crack is not lost."""
    row, encoded = stored
    codes = decode_targets(encoded)
    if codes is None:
        raise InputError(f"mask of row {row} cannot be decoded; make the set again")
    factor = len(codes) // image_px
    return row, codes.reshape(image_px, factor, image_px, factor).max(axis=(1, 3))
