"""Stage `pretrain`: a network learns the many-class set from labels alone (paper, section 3.1)."""

from dataclasses import dataclass
from pathlib import Path

from damcrack.run import Run
from damcrack.train.fitting import Lineage, Task, describe, fit, open_images
from damcrack.train.networks import build_network
from damcrack.train.objectives import Supervised
from damcrack.train.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Section `pretrain` of params.yaml: `common` with one of `items`."""

    network: str
    temperature: float  # of the softmax; above 1 for a teacher that is trained as softly as it teaches

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature: {self.temperature}; expected more than 0")


def pretrain(images: Path, out: Path, item: str, config: PretrainConfig, run: Run) -> dict[str, object]:
    """Train a network from random weights on an image set; write a model folder."""
    data = open_images(images, None, "miniimagenet", run)
    network = build_network(config.network, len(data.classes), config.seed)
    info = describe(item, config.network, data, config, Lineage())
    return fit(Task(network, Supervised(config.temperature), info), data, config, out, run)
