"""Stage `finetune`: a network learns crack tiles, from scratch or by transfer (paper, section 2.3)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from damcrack.data.imageset import UNLABELLED, ImageSet
from damcrack.files import InputError
from damcrack.run import Run
from damcrack.train.config import FinetuneConfig
from damcrack.train.decoded import DecodedSet
from damcrack.train.fitting import Task, check_classes, describe, fit, load_teacher, open_images
from damcrack.train.imagenet import imagenet_network
from damcrack.train.networks import build_network, set_trainable, with_fresh_heads
from damcrack.train.objectives import Distillation, Objective, Supervised
from damcrack.train.weights import load_model


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
    data = open_images(tiles, config.image_px, "tiles", run, with_targets=config.pixel_channels is not None)
    _check_scale(config, tiles)
    if config.num_unlabelled and not len(data.rows_of[UNLABELLED]):
        raise InputError(
            f"{item}: unlabelled_share is {config.unlabelled_share}, but {tiles} holds no tiles without a label; "
            "give photos without masks and set tile.unlabelled_tiles"
        )
    if config.labelled_tiles is not None:
        data = few_labels(data, config.labelled_tiles, config.seed)
    config = with_enough_epochs(config, len(data.rows_of["train"]))
    network, init_sha256 = _start(config, init, data)
    objective, teacher_sha256 = _objective(config, teacher, data)
    set_trainable(network, config.trainable)
    info = describe(item, data, config, init_sha256, teacher_sha256)
    # What is left of a batch are labelled images.
    labelled = replace(config, batch_size=config.batch_size - config.num_unlabelled, unlabelled_share=0.0)
    return fit(Task(network, objective, info, config.num_unlabelled), data, labelled, out, run)


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
    """The config with at least as many epochs as `min_steps` optimiser steps take."""
    steps_per_epoch = -(-num_train // (config.batch_size - config.num_unlabelled))
    return replace(config, epochs=max(config.epochs, -(-config.min_steps // steps_per_epoch)))


def _check_given(name: str, named: str | None, path: Path | None) -> None:
    if (named is None) != (path is None):
        raise InputError(f"--{name} is {path}, but {name} in params.yaml is {named}; give both or neither")


def _check_scale(config: FinetuneConfig, tiles: Path) -> None:
    """A network with a pixel head inspects photos at their own size, so it must learn from tiles at theirs."""
    side_px = ImageSet.open(tiles).image_hw[0]
    if config.pixel_channels is not None and config.image_px != side_px:
        raise InputError(
            f"image_px: {config.image_px}; a network with a pixel head sees the tiles as they are, expected {side_px}"
        )


def _start(config: FinetuneConfig, init: Path | None, data: DecodedSet) -> tuple[nn.Module, str | None]:
    num_classes, channels = len(data.classes), config.pixel_channels
    if init is None and config.encoder_weights is not None:
        return imagenet_network(config.network, num_classes, config.seed, channels, config.encoder_weights)
    if init is None:
        return build_network(config.network, num_classes, config.seed, channels), None
    network, info = load_model(init)
    if info.network != config.network:
        raise InputError(f"{init} is a {info.network}, the experiment asks for a {config.network}")
    if info.pixel_channels is not None:
        if info.pixel_channels != channels:
            raise InputError(
                f"{init} has pixel_channels {info.pixel_channels}, the experiment asks for {channels}"
            )
        check_classes(init, info, data)
        return network, info.weights_sha256
    return with_fresh_heads(network, num_classes, config.seed, channels), info.weights_sha256


def _objective(
    config: FinetuneConfig, teacher: Path | None, data: DecodedSet
) -> tuple[Objective, str | None]:
    if teacher is None:
        return Supervised(), None
    lecturer, info = load_teacher(teacher, data, config)
    return Distillation(lecturer, config), info.weights_sha256
