"""Read which image belongs to which class, from folders or from split lists.

[train|val|test/]CLASS/NAME.jpg             the innermost folder is the class; `images/` below it is skipped
images/NAME.jpg and train.csv, val.csv, test.csv    columns filename,label, as mini-ImageNet is handed around

Splits found there are merged: mini-ImageNet's are disjoint in classes, made for few-shot learning.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field

from damcrack.data.layouts import SetAside
from damcrack.data.names import escaped, is_hidden, is_image_name, why_unsafe
from damcrack.data.snapshot import FixedSource
from damcrack.files import InputError

SPLIT_FILES = ("train.csv", "val.csv", "test.csv")
_NOT_CLASSES = {"train", "val", "test", "images"}


@dataclass
class ClassLayout:
    """Image names per class, sorted; what was set aside; the number of other files."""

    names_of: dict[str, list[str]] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)
    num_ignored: int = 0


def read_classes(source: FixedSource) -> ClassLayout:
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
    return layout


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
        for filename, label in _read_list(source, split_file):
            labels.setdefault(f"images/{filename}", set()).add(label)
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


def _read_list(source: FixedSource, name: str) -> list[tuple[str, str]]:
    try:
        rows = csv.DictReader(io.StringIO(source.read(name).decode("utf-8-sig")))
        return [(row["filename"], escaped(row["label"])) for row in rows]
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source.uri}: {name} has no columns filename,label ({error}); fix it") from error


def _keep_first_copies(source: FixedSource, class_of: dict[str, str], layout: ClassLayout) -> None:
    first: dict[str, str] = {}
    for name, label in sorted(class_of.items()):
        original = first.setdefault(source.sha256_of[name], name)
        if original == name:
            layout.names_of.setdefault(label, []).append(name)
        else:
            layout.set_aside.append(SetAside(source.name, name, f"the same bytes as {original}"))
