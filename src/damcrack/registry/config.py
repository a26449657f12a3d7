"""What can be set of a registration: section `register` of params.yaml, each value with its range and default."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(ge=0, le=1)]
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Policy:
    """Bounds that a model must meet before it becomes champion; None switches a bound off.

    Floors, which every champion must pass: `min_photos` in the evaluation set, `min_accuracy`, `min_wide_recall`
    on tiles whose crack is at least `wide_crack_px` wide at its widest place, in pixels of the photo, and `max_ece`.

    To take a champion's place: at least `min_gain` of accuracy over tiles and over photos, an interval of
    `confidence` over photos above zero, McNemar's p at most 1 - `confidence`, and a recall on wide cracks that
    falls by at most `max_wide_recall_loss`.
    """

    min_photos: Annotated[int, Field(ge=2)] = 20
    min_accuracy: Share = 0.6
    min_gain: Share = 0.005
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    wide_crack_px: Annotated[float, Field(gt=0)] = 8.0
    min_wide_recall: Share | None = None
    max_wide_recall_loss: Share = 0.02
    max_ece: Share = 0.2


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegisterConfig(Policy):
    """Section `register`: name in the registry, evaluation set, and the policy.

    `evaluation_set` is a folder or s3:// prefix that `damcrack freeze` wrote, null the test tiles of the graph;
    `evaluation_sha256` the digest that it must have: a set from outside of the graph needs it.
    """

    model_name: Annotated[str, Field(pattern=r"""^[^/:.%"']+$""")] = "dam-crack-detector"
    evaluation_set: str | None = None
    evaluation_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
