"""What can be set of an inspection: section `inspect` of params.yaml, each value with its range and default."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from damcrack.cracks.config import Segmentation

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InspectConfig:
    """Section `inspect`; the defaults are those of the command without a params file.

    `scales` are the sizes at which the network sees a photo, as shares of its own: at half size it finds cracks
    that are twice as wide, at double size fainter ones, which is worth its time up to `double_megapixels` only.
    Windows in which the smaller sizes show no crack probability of `refine_from` are not looked at in larger ones;
    0 looks everywhere. A block is cracked from `threshold` on, and lines are traced where
    they touch one; blocks within `uncertain` are in doubt. A photo is called "unsure" and "crack" from these
    `confident` on: at 0.9, one of ten clean photos that are hard to judge is called so, whatever its size.
    `overlap` is the share of a block's side that neighbouring blocks have in common. Pieces within `join_px` are
    one crack. `gsd_mm_per_px` is the ground sampling distance; with `distance_m` the focal length comes from EXIF.
    `page_mb` bounds the full detail in the report. Photos above `max_megapixels` are set aside: at 100 an
    inspection stays below 1 GiB of memory. `crack_fraction` is the share of crack pixels that makes a block cracked
    where masks tell, in the case study alone.
    """

    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=2)], ...], Field(min_length=1)] = (2.0, 1.0, 0.5)
    double_megapixels: Annotated[float, Field(ge=0)] = 2.5
    refine_from: Annotated[float, Field(ge=0, lt=1)] = 0.01
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    uncertain: tuple[Probability, Probability] = (0.3, 0.7)
    confident: tuple[Probability, Probability] = (0.9, 0.95)
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    join_px: Annotated[int, Field(ge=1, le=199)] = 15
    segmentation: Segmentation = Field(default_factory=Segmentation)
    gsd_mm_per_px: Positive | None = None
    distance_m: Positive | None = None
    video_every_s: Positive = 1.0
    max_megapixels: Annotated[int, Field(gt=0)] = 100
    page_mb: Annotated[float, Field(ge=0)] = 100.0
    crack_fraction: Annotated[float, Field(gt=0, le=1)] = 0.01

    def __post_init__(self) -> None:
        low, high = self.uncertain
        if not low <= self.threshold <= high:
            raise ValueError(f"uncertain: {self.uncertain}; expected from below the threshold to above it")
        if self.confident[0] > self.confident[1]:
            raise ValueError(
                f"confident: {self.confident}; expected the share for unsure, then that for crack"
            )
        if not all((1 / scale).is_integer() for scale in set(self.scales) - {2.0}):
            raise ValueError(
                f"scales: {self.scales}; expected 2.0, 1.0, 0.5 and so on: 2, or 1 divided by whole numbers"
            )
        if 2.0 in self.scales and 1.0 not in self.scales:
            raise ValueError(f"scales: {self.scales}; expected 1.0 beside 2.0, they are averaged")
