import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damcrack.data import duplicates
from damcrack.data.duplicates import connected_components, duplicate_groups, fingerprint


def concrete(rng: np.random.Generator, size_px: int = 64) -> np.ndarray:
    """A tile of smooth random stains, different for every call."""
    noise = rng.normal(0, 1, (size_px, size_px, 3)).astype(np.float32)
    stains = cv2.GaussianBlur(noise, (0, 0), size_px / 16)
    return np.clip(130 + stains * 20 / stains.std(), 0, 255).astype(np.uint8)


def fingerprints(tiles: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and thumbnails of several tiles."""
    hashes, thumbnails = zip(*map(fingerprint, tiles), strict=True)
    return np.array(hashes), np.array(thumbnails)


def groups_by_brute_force(hashes: np.ndarray, thumbnails: np.ndarray, max_bits: int) -> list[int]:
    """All pairs one by one; the plane is fitted with lstsq, groups are merged one pair at a time."""
    y, x = np.mgrid[:16, :16]
    planes = np.stack([np.ones(256), x.ravel(), y.ravel()], axis=1)
    flat = thumbnails.reshape(len(thumbnails), -1).astype(float).T
    flat = (flat - planes @ np.linalg.lstsq(planes, flat, rcond=None)[0]).T
    lengths = np.linalg.norm(flat, axis=1)
    group = list(range(len(hashes)))
    for i in range(len(hashes)):
        for j in range(i):
            close = (int(hashes[i]) ^ int(hashes[j])).bit_count() <= max_bits and min(lengths[[i, j]]) >= 8
            if close and flat[i] @ flat[j] / lengths[i] / lengths[j] > 0.85:
                old, new = sorted([group[i], group[j]])[::-1]
                group = [new if number == old else number for number in group]
    order = {number: place for place, number in enumerate(dict.fromkeys(group))}
    return [order[number] for number in group]


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 12))
def test_groups_equal_brute_force(seed: int, max_bits: int) -> None:
    """Hashes some bits apart and thumbnails more or less alike are grouped as pair by pair."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 6, 60)
    flips = rng.random((60, 64)) < rng.choice([0, 0.05, 0.1], (60, 1))
    bits = (rng.integers(0, 2, (6, 64))[kinds] ^ flips).astype(np.uint64)
    hashes = (bits << np.arange(64, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    noise = rng.normal(0, 1, (60, 16, 16)) * rng.choice([1, 15, 40], (60, 1, 1))
    thumbnails = np.clip(rng.normal(128, 30, (4, 16, 16))[kinds % 4] + noise, 0, 255).astype(np.uint8)
    expected = groups_by_brute_force(hashes, thumbnails, max_bits)
    assert duplicate_groups(hashes, thumbnails, max_bits).tolist() == expected


def test_groups_do_not_depend_on_the_piece_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in pieces of 7 gives the groups that one piece gives."""
    rng = np.random.default_rng(1)
    tiles = [concrete(rng) for _ in range(20)]
    hashes, thumbnails = fingerprints([*tiles, *(cv2.add(tile, (5, 5, 5, 0)) for tile in tiles)])
    whole = duplicate_groups(hashes, thumbnails, 8)
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    assert np.array_equal(duplicate_groups(hashes, thumbnails, 8), whole)
    assert whole.max() == 19


def reencoded(tile: np.ndarray) -> np.ndarray:
    """The tile after JPEG at quality 60."""
    return cv2.imdecode(cv2.imencode(".jpg", tile, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)


CHANGES = {
    "as it is": lambda tile: tile,
    "JPEG at quality 60": reencoded,
    "5 grey levels brighter": lambda tile: cv2.add(tile, (5, 5, 5, 0)),
    "shifted by 1 px of 64": lambda tile: np.roll(tile, 1, axis=1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_strangers_are_not(change: str) -> None:
    """At 8 bits at least 95 of 100 copies join their original, and no two originals join."""
    rng = np.random.default_rng(0)
    tiles = [concrete(rng) for _ in range(100)]
    hashes, thumbnails = fingerprints([*tiles, *map(CHANGES[change], tiles)])
    group = duplicate_groups(hashes, thumbnails, 8)
    assert len(set(group[:100].tolist())) == 100
    assert (group[:100] == group[100:]).sum() >= 95


def test_flat_tiles_under_one_lamp_are_not_duplicates() -> None:
    """Equal hashes from the slope of the light alone do not make tiles alike."""
    slope = np.linspace(90, 160, 64)[None, :, None]
    rng = np.random.default_rng(2)
    tiles = [np.clip(slope + concrete(rng) / 16, 0, 255).astype(np.uint8) for _ in range(30)]
    hashes, thumbnails = fingerprints(tiles)
    assert len(set(hashes.tolist())) < 30
    assert duplicate_groups(hashes, thumbnails, 8).tolist() == list(range(30))


def area_average(grey: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    """Averages over equal cells in float64; a pixel on an edge counts in both cells by its share."""

    def shares(length: int, num: int) -> np.ndarray:
        edges = np.linspace(0, length, num + 1)
        pixel = np.arange(length)
        inside = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        return np.clip(inside, 0, 1) / (length / num)

    return shares(grey.shape[0], num_rows) @ grey @ shares(grey.shape[1], num_columns).T


@pytest.mark.parametrize("size_px", [32, 64, 224, 227])
def test_fingerprints_are_area_averages(size_px: int) -> None:
    """Bits compare neighbours of 8 x 9 cells, row by row from the lowest bit; the thumbnail is 16 x 16 cells."""
    tiles = [concrete(np.random.default_rng(seed), size_px) for seed in range(5)]
    for tile, code, thumbnail in zip(tiles, *fingerprints(tiles), strict=True):
        grey = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).astype(np.float64)
        steps = np.diff(area_average(grey, 8, 9), axis=1).ravel()
        bits = np.array([int(code) >> number & 1 for number in range(64)], bool)
        clear = np.abs(steps) > 1e-3
        assert np.array_equal(bits[clear], steps[clear] > 0)
        assert np.abs(thumbnail - area_average(grey, 16, 16)).max() <= 0.501


def test_memory_does_not_grow_with_look_alikes() -> None:
    """Thousands of hashes all within 8 bits make millions of pairs, which are never held at once."""
    random = np.random.default_rng(0)
    hashes = np.zeros(4000, np.uint64)
    for _ in range(4):
        hashes ^= np.uint64(1) << random.integers(0, 64, len(hashes)).astype(np.uint64)
    thumbnails = random.integers(0, 256, (4000, 16, 16), np.uint8)
    tracemalloc.start()
    try:
        groups = duplicate_groups(hashes, thumbnails, 8)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert groups.max() == 3999
    assert peak_bytes < 50_000_000


def test_featureless_tiles_match_nothing() -> None:
    """Blank tiles with one faint speck, which would tie unrelated photos together, stay apart."""
    blank = np.full((64, 64, 3), 250, np.uint8)
    blank[:4, :8] = 253
    hashes, thumbnails = fingerprints([blank] * 3)
    assert duplicate_groups(hashes, thumbnails, 8).tolist() == [0, 1, 2]


def test_no_tiles_have_no_groups() -> None:
    """The empty input is no error."""
    groups = duplicate_groups(np.empty(0, np.uint64), np.empty((0, 16, 16), np.uint8), 4)
    assert groups.tolist() == []


def test_components_follow_chains() -> None:
    """1-4, 4-2 and 3-0 make three components of six nodes, numbered by their smallest node."""
    assert connected_components(6, np.array([4, 2, 0]), np.array([1, 4, 3])).tolist() == [0, 1, 1, 0, 1, 2]
