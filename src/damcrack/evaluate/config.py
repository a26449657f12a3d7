"""What can be set of an evaluation: section `evaluate` of params.yaml, each value with its range and default."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EvaluateConfig:
    """Section `evaluate`; `worst_tiles` and `worst_photos` are how many wrong answers the page shows."""

    worst_tiles: Annotated[int, Field(ge=0)] = 24
    worst_photos: Annotated[int, Field(ge=0)] = 20
