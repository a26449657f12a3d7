"""Take the pretraining images in: a class-balanced image set, split per class.

OUT/images.csv, OUT/shards/    image set of square RGB JPEGs
OUT/quarantine.csv             what was set aside, and why

The source has one of two layouts. Splits found there are merged: mini-ImageNet's are disjoint in classes, made for
few-shot learning.

[train|val|test/]CLASS/NAME.jpg             the innermost folder is the class; `images/` below it is skipped
images/NAME.jpg and train.csv, val.csv, test.csv    columns filename,label, as mini-ImageNet is handed around
"""

import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from damcrack.data.config import SOURCE_NAME, MiniimagenetConfig
from damcrack.data.imageset import ImageSetWriter
from damcrack.data.layouts import SetAside, read_pairs, write_quarantine
from damcrack.data.names import escaped, is_hidden, is_image_name, why_unsafe
from damcrack.data.photo import Pixels, centre_square, decode_photo, encode_jpeg, within_memory
from damcrack.data.snapshot import FixedSource, OpenSource, open_fixed
from damcrack.files import InputError, PhotoError, in_order, new_directory, sha256_file
from damcrack.run import Run

SPLIT_FILES = ("train.csv", "val.csv", "test.csv")
_NOT_CLASSES = {"train", "val", "test", "images"}
MAX_PIXELS = 100_000_000

ReadImage = Callable[[str, str], Pixels]
"""Class and name -> uint8 RGB; raises PhotoError."""


@dataclass
class ClassLayout:
    """Image names per class, sorted; what was set aside; the number of other files."""

    names_of: dict[str, list[str]] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)
    num_ignored: int = 0


class Chosen(NamedTuple):
    """One image of the set: where its JPEG lies in the spool."""

    name: str
    start: int
    size_bytes: int


def miniimagenet(
    snapshot: Path, out: Path, config: MiniimagenetConfig, open_source: OpenSource, run: Run
) -> dict[str, object]:
    """Fill `out` (see above) with equally many images of each class.

    Every class gives as many as the scarcest has, at most `max_per_class`, drawn by `split_seed`;
    `max_classes` keeps the first in alphabetical order. A bad image is set aside and another of its class
    takes its place.

    Raises:
        InputError: the source does not hold what the snapshot says, or there are fewer than 2 classes or
            fewer than 2 usable images in a class.
        OSError: the disk is full.
    """
    fixed = open_fixed(snapshot, config.sources, open_source, "miniimagenet")
    layout, read = _outside(fixed[SOURCE_NAME]) if fixed else _sample(config)
    labels = sorted(layout.names_of)[: config.max_classes]
    if len(labels) < 2:
        raise InputError(
            f"{config.source}: {len(labels)} classes, expected at least 2; "
            "[train|val|test/]CLASS/NAME.jpg, or images/ with train.csv, val.csv, test.csv (filename,label)"
        )
    with new_directory(out, "miniimagenet") as folder:
        with tempfile.TemporaryFile(dir=folder) as spool:
            drawn = {label: _drawn(layout.names_of[label], label, config.split_seed) for label in labels}
            good, bad = _fill(drawn, read, config, spool, run)
            per_class = _per_class(good, layout.names_of)
            num_val = min(max(1, round(per_class * config.val_fraction)), per_class - 1)
            _write_set(folder, {label: good[label][:per_class] for label in labels}, num_val, config, spool)
        set_aside = [*layout.set_aside, *bad]
        write_quarantine(folder, set_aside)
        digest = sha256_file(folder / "images.csv")
    run.dataset("miniimagenet", digest, config.source, "training")
    return {
        "classes": len(labels),
        "images per class": f"{per_class} ({per_class - num_val} train, {num_val} val)",
        "images": per_class * len(labels),
        "set aside": f"{len(set_aside)}, reasons in {out / 'quarantine.csv'}" if set_aside else 0,
        "other files, left alone": layout.num_ignored,
    }


def _outside(source: FixedSource) -> tuple[ClassLayout, ReadImage]:
    """Read either layout from the snapshot's names; of images with the same bytes the first is kept.

    Raises:
        InputError: a split list without its columns.
    """
    lists = [name for name in SPLIT_FILES if name in source.sha256_of]
    images = [name for name in sorted(source.sha256_of) if is_image_name(name) and not is_hidden(name)]
    layout = ClassLayout(num_ignored=len(source.sha256_of) - len(images) - len(lists))
    if lists:
        class_of = _classes_by_list(source, lists, layout)
        layout.num_ignored += len(set(images) - class_of.keys() - {file.name for file in layout.set_aside})
    else:
        class_of = _classes_by_folder(source, images, layout)
    _keep_first_copies(source, class_of, layout)
    return layout, lambda _, name: decode_photo(source.read(name), MAX_PIXELS)


def _classes_by_folder(source: FixedSource, images: Iterable[str], layout: ClassLayout) -> dict[str, str]:
    class_of = {}
    for name in images:
        folders = [part for part in name.split("/")[:-1] if part.casefold() not in _NOT_CLASSES]
        why = why_unsafe(name) or (None if folders else "it lies in no class folder; move it into one")
        if why is None:
            class_of[name] = folders[-1]
        else:
            layout.set_aside.append(SetAside(source.name, name, why))
    return class_of


def _classes_by_list(source: FixedSource, lists: Iterable[str], layout: ClassLayout) -> dict[str, str]:
    labels: dict[str, set[str]] = {}
    for split_file in lists:
        listed = read_pairs(source.read(split_file), ("filename", "label"), f"{source.uri}: {split_file}")
        for filename, label in listed:
            labels.setdefault(f"images/{filename}", set()).add(escaped(label))
    class_of = {}
    for name, found in sorted(labels.items()):
        why = why_unsafe(name)
        if why is None and name not in source.sha256_of:
            why = "listed, but there is no such file; copy it or fix the list"
        elif why is None and len(found) > 1:
            why = f"listed under {' and '.join(sorted(found))}, expected one class; fix the lists"
        if why is None:
            class_of[name] = found.pop()
        else:
            layout.set_aside.append(SetAside(source.name, escaped(name), why))
    return class_of


def _keep_first_copies(source: FixedSource, class_of: dict[str, str], layout: ClassLayout) -> None:
    first: dict[str, str] = {}
    for name, label in sorted(class_of.items()):
        original = first.setdefault(source.sha256_of[name], name)
        if original == name:
            layout.names_of.setdefault(label, []).append(name)
        else:
            layout.set_aside.append(SetAside(source.name, name, f"the same bytes as {original}"))


def _sample(config: MiniimagenetConfig) -> tuple[ClassLayout, ReadImage]:
    from damcrack.sample.natural import class_names, render_natural

    number_of = {label: number for number, label in enumerate(class_names(config.sample_classes))}
    names = [f"{index:05d}" for index in range(config.sample_per_class)]

    def read(label: str, name: str) -> Pixels:
        image: Pixels = render_natural(config.sample_seed, number_of[label], int(name), config.image_px)
        return image

    return ClassLayout({label: list(names) for label in number_of}), read


def _drawn(names: Sequence[str], label: str, seed: int) -> list[str]:
    """Shuffle by seed and class name, so that other classes do not change the draw."""
    return random.Random(f"{seed} {label}").sample(names, len(names))


def _fill(
    drawn: Mapping[str, Sequence[str]],
    read: ReadImage,
    config: MiniimagenetConfig,
    spool: IO[bytes],
    run: Run,
) -> tuple[dict[str, list[Chosen]], list[SetAside]]:
    """Encode as many of each class as the scarcest has; where one is bad, go on in its class's order."""
    wanted = min(len(names[: config.max_per_class]) for names in drawn.values())
    good: dict[str, list[Chosen]] = {label: [] for label in drawn}
    bad: list[SetAside] = []
    queues = {label: iter(names) for label, names in drawn.items()}
    while batch := [
        (label, name) for label, queue in queues.items() for name in islice(queue, wanted - len(good[label]))
    ]:
        squares = in_order(lambda item: _square(*item, read, config.image_px), batch)
        for (label, name), result in zip(batch, run.track(squares, "images", len(batch)), strict=True):
            if isinstance(result, SetAside):
                bad.append(result)
            else:
                good[label].append(Chosen(name, spool.tell(), len(result)))
                spool.write(result)
    return good, bad


def _square(label: str, name: str, read: ReadImage, image_px: int) -> bytes | SetAside:
    try:
        with within_memory():
            return encode_jpeg(centre_square(read(label, name), image_px))
    except PhotoError as error:
        return SetAside(SOURCE_NAME, name, str(error))


def _per_class(good: Mapping[str, Sequence[Chosen]], names_of: Mapping[str, Sequence[str]]) -> int:
    scarcest = min(good, key=lambda label: (len(good[label]), len(names_of[label])))
    if len(good[scarcest]) < 2:
        raise InputError(
            f"class {scarcest} has {len(good[scarcest])} usable images, expected at least 2 "
            "(every class gives as many as the scarcest); add images or remove the class"
        )
    return len(good[scarcest])


def _write_set(
    folder: Path,
    chosen_of: Mapping[str, Sequence[Chosen]],
    num_val: int,
    config: MiniimagenetConfig,
    spool: IO[bytes],
) -> None:
    """Write class by class, by name; the first `num_val` of each class's draw are for validation."""
    writer = ImageSetWriter(folder)
    for number, (label, chosen) in enumerate(chosen_of.items()):
        val = {image.name for image in chosen[:num_val]}
        for position, image in enumerate(sorted(chosen, key=lambda image: image.name)):
            spool.seek(image.start)
            key, encoded = f"{number:04d}-{position:05d}.jpg", spool.read(image.size_bytes)
            split = "val" if image.name in val else "train"
            names = {"class": label, "source_name": image.name}
            writer.add(key, encoded, label=number, split=split, **names)
    writer.finish("images.csv", list(chosen_of), (config.image_px, config.image_px))
