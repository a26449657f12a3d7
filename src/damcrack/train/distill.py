"""Stage `distill`: the student learns the many-class set from labels and the teacher (paper, Algorithm 1)."""

from pathlib import Path

from damcrack.run import Run
from damcrack.train.config import DistillConfig
from damcrack.train.fitting import Task, describe, fit, load_teacher, open_images
from damcrack.train.networks import build_network
from damcrack.train.objectives import Distillation


def distill(
    images: Path, teacher: Path, out: Path, item: str, config: DistillConfig, run: Run
) -> dict[str, object]:
    """Train a student from random weights under the teacher; write a model folder."""
    data = open_images(images, None, "miniimagenet", run)
    lecturer, lecturer_info = load_teacher(teacher, data, config)
    network = build_network(config.network, len(data.classes), config.seed)
    objective = Distillation(lecturer, config)
    info = describe(item, data, config, teacher_sha256=lecturer_info.weights_sha256)
    return fit(Task(network, objective, info), data, config, out, run)
