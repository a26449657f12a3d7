"""What can be set of tracing: `segmentation` of section `inspect`, each value with its range and default."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")

POSSIBLE = 0.75  # share of `grow` from which a pixel may be part of a crack


@dataclass(frozen=True, config=STRICT)
class Segmentation:
    """Which pixels are a crack.

    A crack holds a pixel whose probability is at least `seed`, and reaches over neighbours of at least `grow`; it must
    be `min_length_px` long. Gaps up to `bridge_px` are closed.
    """

    seed: Annotated[float, Field(gt=0, le=1)] = 0.5
    grow: Annotated[float, Field(gt=0, le=1)] = 0.35
    min_length_px: Annotated[float, Field(ge=0)] = 40.0
    bridge_px: Annotated[int, Field(ge=1, le=99)] = 5

    def __post_init__(self) -> None:
        if self.grow > self.seed:
            raise ValueError(f"grow: {self.grow}; expected at most seed ({self.seed})")

    @property
    def min_prob(self) -> float:
        """Below it a pixel counts for nothing."""
        return POSSIBLE * self.grow
