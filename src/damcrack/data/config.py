"""What can be set of photos, the pretraining set and tiles: sections of params.yaml, with ranges and defaults."""

import re
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from damcrack.data.targets import MaskQuality

SAMPLE = "sample"  # the built-in source
SOURCE_NAME = "miniimagenet"

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PhotosConfig:
    """Section `photos`.

    `sources` by name: "sample", a folder, or s3://bucket/prefix. Photos with a side below `min_side_px` are set aside.
    Of ready-made tiles, `ready_tile_block` consecutive file numbers count as one photo.
    """

    sources: Annotated[dict[str, str], Field(min_length=1)]
    sample_photos: Count = 40
    sample_size_hw: tuple[Count, Count] = (896, 1120)
    sample_seed: Seed = 7
    min_side_px: Count = 224
    max_megapixels: Annotated[float, Field(gt=0)] = 400.0
    ready_tile_block: Count = 50

    def __post_init__(self) -> None:
        for name in self.sources:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
                raise ValueError(f"sources: name {name!r}; expected up to 64 letters, digits, . _ -")
        if list(self.sources.values()).count(SAMPLE) > 1:
            raise ValueError("sources: the sample twice; expected once, it would be the same photos")
        if min(self.sample_size_hw) < self.min_side_px:
            raise ValueError(f"sample_size_hw: {self.sample_size_hw}; expected sides of min_side_px or more")

    @property
    def max_pixels(self) -> int:
        """Most pixels a photo may have."""
        return int(self.max_megapixels * 1e6)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MiniimagenetConfig:
    """Section `miniimagenet`; `source`: "sample", a folder, or s3://bucket/prefix; null limits are none."""

    source: str
    image_px: Annotated[int, Field(ge=8)]
    sample_classes: Annotated[int, Field(ge=2)] = 16
    sample_per_class: Annotated[int, Field(ge=2)] = 80
    sample_seed: Seed = 11
    max_classes: Annotated[int, Field(ge=2)] | None = None
    max_per_class: Annotated[int, Field(ge=2)] | None = None
    val_fraction: Fraction = 0.2
    split_seed: Seed = 0

    @property
    def sources(self) -> dict[str, str]:
        """The source under its name in the snapshot."""
        return {SOURCE_NAME: self.source}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TileConfig:
    """Section `tile`.

    A tile shows a crack from a share of `crack_fraction` crack pixels and none at 0; tiles between are left out.
    `tiles_per_class` for training and validation, null: as many as the scarcer class has. `split` photo keeps whole
    photos on one side, random is the paper's way. `test_fraction` of the photos and all of `test_sources` are held
    out first; `test_tiles_per_class` are per source. Difference hashes within `duplicate_bits` are near-duplicates.

    `masks` says how good a source's masks are, see damcrack.data.targets; exact where nothing is said. Photos of
    `clean_sources` without a mask show no crack. `unlabelled_tiles` are taken from all other photos without a mask,
    for a teacher to teach on, except held-out ones: test sources, and groups of test photos.
    """

    tile_px: Annotated[int, Field(ge=32, le=4096)] = 224
    crack_fraction: Annotated[float, Field(gt=0, le=1)] = 0.002
    tiles_per_class: Count | None = None
    split: Literal["photo", "random"] = "photo"
    val_fraction: Fraction = 0.2
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    test_sources: tuple[str, ...] = ()
    test_tiles_per_class: Count | None = None
    keep_duplicates_together: bool = True
    duplicate_bits: Annotated[int, Field(ge=0, le=16)] = 8
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 95
    seed: Seed = 0
    masks: dict[str, MaskQuality] = Field(default_factory=dict)
    clean_sources: tuple[str, ...] = ()
    unlabelled_tiles: Annotated[int, Field(ge=0)] = 0
