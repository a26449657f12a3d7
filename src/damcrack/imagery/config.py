"""What can be set of new imagery: the file imagery.yaml, each value with its range and default."""

import os
import re
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Count = Annotated[int, Field(ge=1, strict=True)]  # true is no number


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ImageryConfig:
    """The file imagery.yaml.

    `incoming` and `store` are folders or s3://bucket/prefix. `source` is the name of what was taken in, in the section
    `photos` of params.yaml. Photos with a side below `min_side_px` go to quarantine. `train_after_labels` photos with a
    new label start a training, and so do `train_after_photos` new photos, labelled or not: a teacher can teach on them
    where the graph has `tile.unlabelled_tiles` and an experiment with an `unlabelled_share`; null: they do not.
    """

    incoming: str
    store: str
    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "incoming"
    min_side_px: Count = 224
    max_megapixels: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 100.0
    train_after_labels: Count = 50
    train_after_photos: Count | None = None

    def __post_init__(self) -> None:
        incoming, store = _place("incoming", self.incoming), _place("store", self.store)
        if incoming.startswith(store) or store.startswith(incoming):
            raise ValueError(
                f"store: {self.store!r} and incoming {self.incoming!r} lie in each other; "
                "expected two places next to each other"
            )

    @property
    def max_pixels(self) -> int:
        """Most pixels a photo may have."""
        return int(self.max_megapixels * 1e6)


def _place(name: str, uri: str) -> str:
    """An address in one form, to compare; of a folder the absolute path, links followed."""
    if not uri.strip() or "\0" in uri or re.match(r"s3:(?!//[^/])", uri, re.IGNORECASE):
        raise ValueError(f"{name}: got {uri!r}; expected a folder or s3://bucket/prefix")
    return f"{uri if '://' in uri else os.path.realpath(uri)}".rstrip("/") + "/"
