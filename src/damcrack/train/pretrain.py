"""Stage `pretrain`: a network learns the many-class set from labels alone (paper, section 3.1)."""

from pathlib import Path

from damcrack.run import Run
from damcrack.train.config import PretrainConfig
from damcrack.train.fitting import Task, describe, fit, open_images
from damcrack.train.networks import build_network
from damcrack.train.objectives import Supervised


def pretrain(images: Path, out: Path, item: str, config: PretrainConfig, run: Run) -> dict[str, object]:
    """Train a network from random weights on an image set; write a model folder."""
    data = open_images(images, None, "miniimagenet", run)
    network = build_network(config.network, len(data.classes), config.seed)
    info = describe(item, data, config)
    return fit(Task(network, Supervised(config.temperature), info), data, config, out, run)
