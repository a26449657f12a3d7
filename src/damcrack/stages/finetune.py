"""Stage `finetune`: a network learns crack tiles, from scratch or by transfer (paper, section 2.3)."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from damcrack.engine.decoded import DecodedSet
from damcrack.engine.networks import Trainable, build_network, replace_head, set_trainable
from damcrack.engine.objectives import Distillation, Objective, Supervised
from damcrack.engine.weights import load_model
from damcrack.errors import InputError
from damcrack.stages.fitting import Lineage, Task, TaughtConfig, describe, fit, load_teacher, open_images
from damcrack.stages.run import Run


@dataclass(frozen=True)
class FinetuneConfig(TaughtConfig):
    """Section `finetune` of params.yaml: `common` with one experiment of a group.

    `init` names the weights to start from and `teacher` the fine-tuned teacher of a crack-stage distillation;
    null is none. `labelled_tiles` takes so many tiles only, half of them cracks, a fifth for validation: how
    much is learned from few labels; epochs are then added until there are `least_steps`. The fields of the
    distillation loss act only with a teacher.
    """

    init: str | None
    teacher: str | None
    image_px: int
    trainable: Trainable
    labelled_tiles: int | None
    least_steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labelled_tiles is not None and self.labelled_tiles < 10:
            raise ValueError(f"labelled_tiles: {self.labelled_tiles}; expected 10 or more, or null for all")
        if self.least_steps < 0:
            raise ValueError(f"least_steps: {self.least_steps}; expected 0 or more")


def finetune(
    tiles: Path,
    out: Path,
    item: str,
    config: FinetuneConfig,
    run: Run,
    init: Path | None = None,
    teacher: Path | None = None,
) -> dict[str, object]:
    """Train a crack classifier on tiles; write a model folder.

    Raises:
        InputError: `init` or `teacher` is given without being named in the config, or the other way round.
    """
    _check_given("init", config.init, init)
    _check_given("teacher", config.teacher, teacher)
    data = open_images(tiles, config.image_px, "tiles", run)
    if config.labelled_tiles is not None:
        data = few_labels(data, config.labelled_tiles, config.seed)
    config = with_enough_epochs(config, len(data.rows_of["train"]))
    network, init_sha256 = _start(config, init, data)
    objective, teacher_sha256 = _objective(config, teacher, data)
    set_trainable(network, config.trainable)
    info = describe(item, config.network, data, config, Lineage(init_sha256, teacher_sha256))
    return fit(Task(network, objective, info), data, config, out, run)


def few_labels(images: DecodedSet, num: int, seed: int) -> DecodedSet:
    """Keep `num` training and validation tiles, 8:2, as many of each class; a larger `num` keeps them all and more.

    Raises:
        InputError: there are not so many.
    """
    wanted = {"val": num // 10, "train": num // 2 - num // 10}
    rows_of = dict(images.rows_of)
    for split, per_class in wanted.items():
        rows = images.rows_of[split]
        there = np.bincount(images.labels_N[rows], minlength=2).min()
        if there < per_class:
            raise InputError(
                f"finetune.labelled_tiles: {num} needs {per_class} {split} tiles of each class, there are {there}; "
                "lower it or raise tile.tiles_per_class"
            )
        order = np.random.default_rng(seed).permutation(len(rows))
        first = [order[images.labels_N[rows[order]] == label][:per_class] for label in (0, 1)]
        rows_of[split] = rows[np.sort(np.concatenate(first))]
    return replace(images, rows_of=rows_of)


def with_enough_epochs(config: FinetuneConfig, num_train: int) -> FinetuneConfig:
    """The config with at least as many epochs as `least_steps` optimiser steps take."""
    steps_per_epoch = -(-num_train // config.batch_size)
    return replace(config, epochs=max(config.epochs, -(-config.least_steps // steps_per_epoch)))


def _check_given(name: str, named: str | None, path: Path | None) -> None:
    if (named is None) != (path is None):
        raise InputError(f"--{name} is {path}, but {name} in params.yaml is {named}; give both or neither")


def _start(config: FinetuneConfig, init: Path | None, data: DecodedSet) -> tuple[nn.Module, str | None]:
    if init is None:
        return build_network(config.network, len(data.classes), config.seed), None
    network, info = load_model(init)
    if info.network != config.network:
        raise InputError(f"{init} is a {info.network}, the experiment asks for a {config.network}")
    replace_head(network, len(data.classes), config.seed)
    return network, info.weights_sha256


def _objective(
    config: FinetuneConfig, teacher: Path | None, data: DecodedSet
) -> tuple[Objective, str | None]:
    if teacher is None:
        return Supervised(), None
    lecturer, info = load_teacher(teacher, data, config)
    objective = Distillation(lecturer, config.teaching, config.epochs)
    return objective, info.weights_sha256
