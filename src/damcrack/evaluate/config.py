"""What can be set of an evaluation: section `evaluate` of params.yaml, each value with its range and default."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EvaluateConfig:
    """Section `evaluate`; `worst_tiles` and `worst_photos` are how many wrong answers the page shows."""

    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 10
    worst_tiles: Annotated[int, Field(ge=0)] = 24
    worst_photos: Annotated[int, Field(ge=0)] = 20
