"""Near-duplicate tiles: a difference hash proposes pairs, the correlation of their thumbnails confirms them.

A hash alone is not enough: on flat concrete its bits follow noise or the lamp, so unlike tiles collide.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.float32]
Thumbnails = npt.NDArray[np.uint8]
Groups = npt.NDArray[np.int64]
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

THUMBNAIL_PX = 16
# On 4,000 METU tiles, re-encoded, brightened or shifted by 2 px copies correlate above 0.85 in 99.5 %;
# no two unlike tiles within 12 bits do.
MIN_CORRELATION = 0.85
# Thumbnails that vary less than this (grey levels, root mean square) show nothing to recognise.
MIN_CONTRAST = 0.5
MAX_PAIRS = 100_000  # a piece that stays in the processor's cache takes half the time of a million
BLOCK = 128  # all pairs of a block are held at once; of copies, only those with the first block are looked at


def row_averages(tile_rgb: npt.NDArray[np.uint8]) -> Rows:
    """Averages (16, W) over the rows of a tile (H, W, 3) in grey: what its fingerprint is made from.

    In float32, because rounding to whole grey levels makes the bits of flat tiles arbitrary.
    """
    grey = cv2.cvtColor(tile_rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    size_wh = (grey.shape[1], THUMBNAIL_PX)
    return np.asarray(cv2.resize(grey, size_wh, interpolation=cv2.INTER_AREA), np.float32)


def fingerprints(rows: Sequence[Rows]) -> tuple[Hashes, Thumbnails]:
    """64-bit difference hashes (N,) and grey thumbnails (N, 16, 16) of tiles of one size, from their row averages.

    One bit per pair of neighbours in a 9 x 8 grey area average (Krawetz 2013). Averages of averages are the averages,
    and those of all tiles stacked are made at once: both together take a third of the time.
    """
    num, stacked = len(rows), np.concatenate(rows)
    cells = cv2.resize(stacked, (9, 8 * num), interpolation=cv2.INTER_AREA).reshape(num, 8, 9)
    bits = (cells[:, :, 1:] > cells[:, :, :-1]).reshape(num, 64)
    thumbnails = cv2.resize(stacked, (THUMBNAIL_PX, len(stacked)), interpolation=cv2.INTER_AREA)
    hashes = np.packbits(bits, axis=1, bitorder="little").view("<u8")[:, 0]
    return hashes, np.rint(thumbnails).astype(np.uint8).reshape(num, THUMBNAIL_PX, THUMBNAIL_PX)


def duplicate_groups(hashes: Hashes, thumbnails: Thumbnails, max_bits: int) -> Groups:
    """Number (N,) each tile's group of near-duplicates, from 0 in order of first appearance.

    Groups are the connected components of all pairs whose hashes (N,) differ in at most `max_bits` and whose
    thumbnails (N, 16, 16), less a plane fit, correlate above 0.85. Featureless tiles match nothing.
    Finds every such pair (multi-index hashing: of max_bits + 1 bands of the hash, close hashes share one);
    time grows with the number of look-alikes, memory does not.
    """
    roots = np.arange(len(hashes))
    for members in _alike_by_hash(hashes, max_bits):
        roots = _join_alike(roots, members, hashes, thumbnails, max_bits)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def connected_components(num: int, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> Groups:
    """Number (num,) the connected component of each node, given edges left[i] - right[i], from 0."""
    roots = _joined(np.arange(num), left, right)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _joined(roots: Groups, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> Groups:
    """Merge components along edges; each node points at the smallest node of its component."""
    roots = roots.copy()
    while True:
        ends = roots[left], roots[right]
        apart = ends[0] != ends[1]
        if not apart.any():
            return roots
        left, right = left[apart], right[apart]
        low, high = np.minimum(*ends)[apart], np.maximum(*ends)[apart]
        np.minimum.at(roots, high, low)
        while not np.array_equal(shorter := roots[roots], roots):
            roots = shorter


def _alike_by_hash(hashes: Hashes, max_bits: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the members of each component of at least two tiles whose hashes chain within `max_bits`."""
    distinct, which = np.unique(hashes, return_inverse=True)
    roots = np.arange(len(distinct))
    for left, right in _close_pairs(distinct, max_bits):
        roots = _joined(roots, left, right)
    component = roots[which]
    order = np.argsort(component, kind="stable")
    edges = np.flatnonzero(np.diff(component[order])) + 1
    yield from (members for members in np.split(order, edges) if len(members) > 1)


def _close_pairs(distinct: Hashes, max_bits: int) -> Iterator[Pairs]:
    """Yield every pair of different hashes within `max_bits`, in pieces, some pairs more than once."""
    cuts = np.linspace(0, 64, max_bits + 2).astype(int)
    for low, high in pairwise(cuts.tolist()):
        if high - low == 64:
            continue
        band = (distinct >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        for first, second in _pairs_in_runs(band[order]):
            left, right = order[first], order[second]
            close = np.bitwise_count(distinct[left] ^ distinct[right]) <= max_bits
            yield left[close], right[close]


def _pairs_in_runs(keys: Hashes) -> Iterator[Pairs]:
    """Yield all pairs of positions with equal sorted keys, about MAX_PAIRS at a time."""
    positions = np.arange(len(keys))
    partners = np.searchsorted(keys, keys, side="right") - positions - 1
    total = np.cumsum(partners)
    start = 0
    while start < len(keys):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + MAX_PAIRS, side="right")))
        counts = partners[start:stop]
        first = np.repeat(positions[start:stop], counts)
        nth = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield first, first + 1 + nth
        start = stop


def _patterns(thumbnails: Thumbnails) -> npt.NDArray[np.float32]:
    """Unit vectors (N, 256) of thumbnails without brightness and slope of light, zero where featureless."""
    values = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    ramp = np.linspace(-1, 1, THUMBNAIL_PX)
    planes = np.stack([np.ones(THUMBNAIL_PX**2), np.tile(ramp, THUMBNAIL_PX), np.repeat(ramp, THUMBNAIL_PX)])
    planes = (planes / np.linalg.norm(planes, axis=1, keepdims=True)).astype(np.float32)
    values -= (values @ planes.T) @ planes
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length < MIN_CONTRAST * THUMBNAIL_PX, 0, values / np.maximum(length, 1e-6)).astype(
        np.float32
    )


def _are_one(one: Groups, other: Groups) -> bool:
    return len(one) > 1 and bool((one == one[0]).all() and (other == one[0]).all())


def _join_alike(
    roots: Groups, members: Groups, hashes: Hashes, thumbnails: Thumbnails, max_bits: int
) -> Groups:
    """Merge the members that agree in hash and pattern, a block of pairs (one matrix product) at a time."""
    patterns = _patterns(thumbnails[members])
    seen = patterns.any(axis=1)
    members, patterns = members[seen], patterns[seen]
    for top in range(0, len(members), BLOCK):
        rows = slice(top, top + BLOCK)
        for start in range(top, len(members), BLOCK):
            columns = slice(start, start + BLOCK)
            if _are_one(roots[members[rows]], roots[members[columns]]):
                continue  # thousands of copies of one wall are joined after the first blocks
            left, right = np.nonzero(patterns[rows] @ patterns[columns].T > MIN_CORRELATION)
            left, right = members[rows][left], members[columns][right]
            apart = roots[left] != roots[right]
            left, right = left[apart], right[apart]
            close = np.bitwise_count(hashes[left] ^ hashes[right]) <= max_bits
            roots = _joined(roots, left[close], right[close])
    return roots
