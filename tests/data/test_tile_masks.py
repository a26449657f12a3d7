"""What the pixels of tiles teach: cut from the photos' masks, known to be clean, or unlabelled."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from damcrack.data.imageset import ImageSet
from damcrack.data.targets import CLEAN, CRACK, SOMEWHERE, UNKNOWN, decode_targets, targets_of
from damcrack.files import InputError, sha256_bytes
from photo_folders import PhotosDirectory, concrete, half_cracked, run_tile


def slanted(height: int = 96, width: int = 128) -> np.ndarray:
    """A mask with a crack of 9 px that crosses tiles, and a thread of 2 px."""
    mask = np.zeros((height, width), np.uint8)
    cv2.line(mask, (3, 0), (60, height), 255, 9)
    cv2.line(mask, (90, 0), (95, height // 2), 255, 2)
    return mask


@pytest.fixture
def photos(tmp_path: Path) -> PhotosDirectory:
    """Eight labelled photos of 3 x 4 tiles."""
    directory = PhotosDirectory(tmp_path / "photos")
    rng = np.random.default_rng(0)
    for number in range(8):
        directory.add(f"{number:02d}", concrete(rng), np.roll(slanted(), 9 * number, axis=1))
    return directory


def codes_of(images: ImageSet) -> dict[int, np.ndarray]:
    """Codes of the tiles that carry some, by row."""
    found = {number: decode_targets(encoded) for number, encoded in images.masks()}
    assert all(codes is not None for codes in found.values())
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("quality", [None, "exact", "fat", "boxes"])
def test_masks_of_tiles_are_cut_from_the_photo_s(
    photos: PhotosDirectory, tmp_path: Path, quality: str | None
) -> None:
    """At the tile's own box, in the code of the source's quality; exact where nothing is said."""
    masks = {} if quality is None else {"wall": quality}
    images = run_tile(photos, tmp_path / "tiles", masks=masks)
    found, uncoded = codes_of(images), np.zeros((32, 32), np.uint8)
    whole = {
        row["photo"]: targets_of(cv2.imread(str(photos.root / str(row["mask"])), 0), quality or "exact")  # type: ignore[arg-type]
        for row in photos.rows
    }
    for number, row in enumerate(images.rows):
        x0, y0, x1, y1 = (int(row[name]) for name in ("x0_px", "y0_px", "x1_px", "y1_px"))
        expected = whole[row["photo"]][y0:y1, x0:x1]
        assert np.array_equal(found.get(number, uncoded), expected)
    assert {len(np.unique(codes)) for codes in found.values()} != {1}


def test_each_source_has_its_own_quality(photos: PhotosDirectory, tmp_path: Path) -> None:
    """Fat masks of one source leave the exact ones of another as they are."""
    rng = np.random.default_rng(5)
    for number in range(4):
        photos.add(f"{number}", concrete(rng), slanted(), source="dam")
    images = run_tile(photos, tmp_path / "tiles", masks={"dam": "fat"})
    codes: dict[str, set[int]] = {"wall": set(), "dam": set()}
    for number, found in codes_of(images).items():
        codes[images.rows[number]["source"]] |= set(np.unique(found).tolist())
    assert codes == {"wall": {CLEAN, CRACK}, "dam": {CLEAN, UNKNOWN, SOMEWHERE, CRACK}}


def test_crack_tiles_carry_a_mask_and_clean_ones_none(photos: PhotosDirectory, tmp_path: Path) -> None:
    """Of exact masks: the label of a clean tile says all; the index has each mask's hash."""
    images = run_tile(photos, tmp_path / "tiles", test_fraction=0.25)
    masks = dict(images.masks())
    assert sorted(masks) == [number for number, label in enumerate(images.labels) if label == 1]
    assert {images.rows[number]["split"] for number in masks} == {"train", "val", "test"}
    assert all(images.rows[number]["mask_sha256"] == sha256_bytes(mask) for number, mask in masks.items())


def test_photos_of_a_clean_source_are_clean_without_a_mask(photos: PhotosDirectory, tmp_path: Path) -> None:
    """Its photos without a mask give no-crack tiles without codes; those with one are as ever."""
    rng = np.random.default_rng(3)
    for number in range(3):
        photos.add(f"clean{number}", concrete(rng), None)
    images = run_tile(photos, tmp_path / "tiles", clean_sources=("wall",))
    clean = [number for number, row in enumerate(images.rows) if "clean" in row["photo"]]
    assert clean
    assert {images.labels[number] for number in clean} == {0}
    assert not set(clean) & set(codes_of(images))


def test_a_source_of_clean_photos_alone_joins_the_training(photos: PhotosDirectory, tmp_path: Path) -> None:
    """It has no crack tiles to be balanced with, and takes a share of the no-crack tiles; the classes stay even."""
    rng = np.random.default_rng(3)
    for number in range(4):
        photos.add(f"{number}", concrete(rng), None, source="tunnel")
    images = run_tile(photos, tmp_path / "tiles", clean_sources=("tunnel",))
    counts = Counter((row["source"], row["label"]) for row in images.rows)
    assert counts["tunnel", "1"] == 0
    assert counts["tunnel", "0"] > 5
    assert counts["wall", "0"] + counts["tunnel", "0"] == counts["wall", "1"]


def add_unlabelled(photos: PhotosDirectory) -> None:
    """Four photos of which nothing is known, one of them smaller than a tile, and a clean one."""
    rng = np.random.default_rng(7)
    for number in range(3):
        photos.add(f"{number}", concrete(rng), None, source="field")
    photos.add("tiny", concrete(rng, 20, 90), None, source="field")
    photos.add("clean", concrete(rng), None, source="paint")


@pytest.mark.parametrize(("asked", "there"), [(9, 9), (1000, 36)])
def test_unlabelled_tiles_come_evenly_from_photos_without_a_mask(
    photos: PhotosDirectory, tmp_path: Path, asked: int, there: int
) -> None:
    """As many as asked or as there are; label -1, a split of their own, no codes, no masked, clean or tiny photo."""
    add_unlabelled(photos)
    images = run_tile(photos, tmp_path / "tiles", unlabelled_tiles=asked, clean_sources=("paint",))
    rows = [images.rows[number] for number in images.where("unlabelled")]
    assert Counter(row["photo"] for row in rows) == {f"field/{n}.png": there // 3 for n in range(3)}
    assert {(row["label"], row["mask_sha256"], row["duplicate_group"]) for row in rows} == {("-1", "", "-1")}
    assert len({row["key"] for row in images.rows}) == len(images)
    assert len(list(images.encoded())) == len(images)
    assert -1 not in [label for label, row in zip(images.labels, images.rows, strict=True) if row not in rows]


def test_unlabelled_tiles_change_no_labelled_one(photos: PhotosDirectory, tmp_path: Path) -> None:
    """They are added at the end: all rows before are the same to the byte."""
    add_unlabelled(photos)
    plain, more = (run_tile(photos, tmp_path / str(num), unlabelled_tiles=num) for num in (0, 5))
    assert more.rows[: len(plain)] == plain.rows
    assert len(more) == len(plain) + 5


def test_what_is_tested_is_not_taught_without_labels(photos: PhotosDirectory, tmp_path: Path) -> None:
    """Photos of test sources and of groups with a test photo give no unlabelled tile."""
    rng = np.random.default_rng(8)
    for number in range(3):
        photos.add(f"{number}", concrete(rng), half_cracked(), source="field", group="pier")
    photos.add("beside", concrete(rng), None, source="field", group="pier")
    for number in range(8):
        photos.add(f"more{number}", concrete(rng), None, group=f"{number:02d}")
    images = run_tile(
        photos, tmp_path / "tiles", unlabelled_tiles=1000, test_sources=("field",), test_fraction=0.25
    )
    groups = [
        {images.rows[number]["group"] for number in images.where(name)} for name in ("test", "unlabelled")
    ]
    assert {"field/pier", "wall/00"} <= groups[0] | groups[1]
    assert "field/pier" in groups[0]
    assert groups[0].isdisjoint(groups[1])
    assert len(groups[0] | groups[1]) == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"masks": {"wal": "fat"}},
        {"clean_sources": ("wal",)},
        {"clean_sources": ("wall", "wal")},
        {"test_sources": ("wal",)},
    ],
)
def test_unknown_sources_are_refused_by_name(
    photos: PhotosDirectory, tmp_path: Path, changes: dict[str, object]
) -> None:
    """A mistyped source is named beside those there are, and nothing is written."""
    with pytest.raises(InputError, match=rf"tile.{next(iter(changes))}: .*\['wal'\].*\['wall'\]"):
        run_tile(photos, tmp_path / "tiles", **changes)
    assert not (tmp_path / "tiles").exists()
