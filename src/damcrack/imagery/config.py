"""The values of taking new imagery in."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageryConfig:
    """The file imagery.yaml.

    `incoming` and `store` are folders or s3://bucket/prefix. `source` is how the `photos` section of params.yaml
    calls what was taken in. A claim older than its lease counts as abandoned: its owner was killed.
    """

    incoming: str
    store: str
    source: str = "incoming"
    min_side_px: int = 224
    max_megapixels: float = 400
    train_after_labels: int = 50
    photo_lease_minutes: float = 10
    inspection_lease_minutes: float = 60
    training_lease_hours: float = 48

    def __post_init__(self) -> None:
        incoming, store = (f"{uri.rstrip('/')}/" for uri in (self.incoming, self.store))
        if incoming.startswith(store) or store.startswith(incoming):
            raise ValueError(
                f"store: {self.store!r} and incoming {self.incoming!r} lie in each other; "
                "allowed: two places beside each other"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.source):
            raise ValueError(f"source: {self.source!r}; allowed: up to 64 letters, digits, . _ -")
        for name in ("min_side_px", "train_after_labels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: 1 and more")
        for name in (
            "max_megapixels",
            "photo_lease_minutes",
            "inspection_lease_minutes",
            "training_lease_hours",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: above 0")

    @property
    def max_pixels(self) -> int:
        """Most pixels a photo may have."""
        return int(self.max_megapixels * 1e6)
