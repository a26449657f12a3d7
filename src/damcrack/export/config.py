"""What can be set of an export: section `export` of params.yaml, each value with its range and default."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

PARITY_BATCHES = (1, 2, 7)
MULTIPLE_OF_PX = 32


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class ExportConfig:
    """Section `export`.

    `experiment` is the fine-tuned model to export; it needs a pixel head. `max_abs_difference` is between the
    probabilities of onnxruntime and of torch. `calibration_tiles` of the validation split give the temperature that
    calibrates a tile's probability. `block_px` is the side of the blocks that an inspection judges, null: the tiles'.
    """

    experiment: str
    opset: Annotated[int, Field(ge=18, le=23)] = 18
    parity_tiles: Annotated[int, Field(ge=max(PARITY_BATCHES))] = 32
    max_abs_difference: Annotated[float, Field(gt=0)] = 0.001
    calibration_tiles: Annotated[int, Field(ge=1)] = 256
    block_px: Annotated[int, Field(ge=MULTIPLE_OF_PX)] | None = None
