"""Read the layout of a source from its file names: photos and their masks, ready tiles, and the rest.

masks/STEM.png          mask of the photo of that stem (or masks/STEM.jpg.png, of STEM.jpg); `images/` in a photo's
                        path is not compared, so A/images/STEM.jpg, A/STEM.jpg and images/A/STEM.jpg all fit
                        A/masks/STEM.png; so does A/photos/STEM.jpg, where there is no other
masks-ANYTHING/         left alone (masks of something else)
Positive/, Negative/    ready tiles with and without a crack; what has a mask is a photo there too
groups.csv              columns file,group: photos of one scene share a group
any other image         a photo
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from damcrack.data.names import Claims, escape_formula, folded, is_hidden, is_image_name, why_unsafe
from damcrack.data.snapshot import FixedSource
from damcrack.files import InputError, sha256_bytes, write_csv

GROUPS_FILE = "groups.csv"
_EMPTY = sha256_bytes(b"")
TILE_LABELS = {"negative": 0, "positive": 1}


@dataclass(frozen=True)
class SetAside:
    """A file that is not taken in, and why."""

    source: str
    name: str
    reason: str


def write_quarantine(folder: Path, set_aside: Iterable[SetAside]) -> None:
    """Write quarantine.csv, sorted; people open it in a spreadsheet."""
    rows = [asdict(file) for file in sorted(set_aside, key=lambda file: (file.source, file.name))]
    escaped_rows = ({name: escape_formula(text) for name, text in row.items()} for row in rows)
    write_csv(folder / "quarantine.csv", ("source", "name", "reason"), escaped_rows)


@dataclass(frozen=True)
class PhotoFile:
    """A photo; `mask` is the name of its mask or None; photos of one `group` stay on one side of a split."""

    source: str
    name: str
    mask: str | None
    group: str


@dataclass(frozen=True)
class TileFile:
    """A ready tile; label 1 is crack."""

    source: str
    name: str
    label: int
    group: str


@dataclass
class Layout:
    """What the names of one source mean."""

    photos: list[PhotoFile] = field(default_factory=list)
    tiles: list[TileFile] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    num_ignored: int = 0


def read_layouts(fixed: Mapping[str, FixedSource], ready_tile_block: int) -> Layout:
    """Read the layouts of all sources into one, with copies of photos and contradicting tiles set aside."""
    whole = Layout()
    for name, source in fixed.items():
        groups = [file for file in source.sha256_of if folded(file) == GROUPS_FILE]
        if len(groups) > 1:
            raise InputError(
                f"{name}: {' and '.join(groups)} both name scenes; put their rows into one of them"
            )
        scenes = read_scenes(name, source.read(groups[0])) if groups else {}
        part = read_layout(name, source.sha256_of, scenes, ready_tile_block)
        whole.photos += part.photos
        whole.tiles += part.tiles
        whole.set_aside += part.set_aside
        whole.num_ignored += part.num_ignored
    whole.photos, copies = _without_copies(whole.photos, fixed)
    whole.tiles, contradicting = _without_contradictions(whole.tiles, fixed)
    whole.set_aside += copies + contradicting
    return whole


def read_layout(
    source: str, names: Iterable[str], scenes: Mapping[str, str], ready_tile_block: int
) -> Layout:
    """Sort the names of one source; `scenes` maps folded file names to the scene that `groups.csv` gives them."""
    layout, photos = Layout(), list[str]()
    images, masks = _images_and_masks(source, names, layout)
    for name in images:
        if TILE_LABELS.keys().isdisjoint(_folders(name)) or stem_without(name, "images") in masks:
            photos.append(name)
        else:
            layout.tiles.append(_tile(source, name, scenes, ready_tile_block))
    _pair(source, photos, masks, scenes, layout)
    layout.set_aside += _unknown_scenes(source, scenes, layout)
    return layout


def _images_and_masks(
    source: str, names: Iterable[str], layout: Layout
) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the images that may become paths, and the masks by stem (see `_by_stem`); the rest enters `layout`."""
    claims, images, masks, unmasked = Claims(), list[str](), list[str](), list[str]()
    for name in sorted(names):
        if folded(name) == GROUPS_FILE:
            continue
        if not is_image_name(name) or left_alone(name, _folders(name)):
            layout.num_ignored += 1
        elif (why := why_unsafe(name)) is not None:
            layout.set_aside.append(SetAside(source, name, why))
        elif "masks" in _folders(name):
            masks.append(name)
        else:
            unmasked.append(name)
            if (other := claims.clash(name)) is None:
                images.append(name)
            else:
                why = f"its path cannot stand beside {other} on every disk; rename one of them"
                layout.set_aside.append(SetAside(source, name, why))
    return images, _by_stem(masks, unmasked)


def _folders(name: str) -> list[str]:
    return [part.casefold() for part in name.split("/")[:-1]]


def read_scenes(source: str, content: bytes) -> dict[str, str]:
    """Read `groups.csv`: file name relative to the source, folded -> scene.

    Raises:
        InputError: not such a CSV, or one file in two groups.
    """
    listed = read_pairs(content, ("file", "group"), f"{source}: {GROUPS_FILE}")
    scenes = {folded(file): group for file, group in listed}
    twice = [file for file, group in listed if scenes[folded(file)] != group]
    if twice:
        raise InputError(f"{source}: {GROUPS_FILE} puts {twice[0]} in two groups, expected one; fix it")
    return scenes


def read_pairs(content: bytes, columns: tuple[str, str], where: str) -> list[tuple[str, str]]:
    """Two columns of a CSV.

    Raises:
        InputError: it is no CSV with these columns, or a row lacks one of the two; `where` says which.
    """
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
        pairs = [(row[columns[0]], row[columns[1]]) for row in rows]
        if lacking := next((pair for pair in pairs if not all(pair)), None):
            raise InputError(
                f"{where} has a row with {' and '.join(filter(None, lacking)) or 'nothing'} alone, "
                f"expected {','.join(columns)}; complete or remove it"
            )
        return pairs
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where} has no columns {','.join(columns)} ({error}); fix it") from error


def left_alone(name: str, folders: Sequence[str]) -> bool:
    """Tell whether nobody reads the file: it is hidden, or a mask of something else; `folders` are lower-case."""
    return is_hidden(name) or any(folder.startswith("masks-") for folder in folders)


def _tile(source: str, name: str, scenes: Mapping[str, str], block: int) -> TileFile:
    path = PurePosixPath(name)
    label_name = next(part for part in reversed(path.parts[:-1]) if part.casefold() in TILE_LABELS)
    # The first number: METU's 10003_1.jpg is a crop of photo number 10003's neighbourhood.
    number = re.search(r"\d+", path.stem)
    group = f"{label_name}-{int(number[0]) // block}" if number else name
    return TileFile(
        source, name, TILE_LABELS[label_name.casefold()], f"{source}/{scenes.get(folded(name), group)}"
    )


def stem_without(name: str, folder: str) -> str:
    """Drop the suffix and the innermost folder of that name."""
    path = PurePosixPath(name).with_suffix("")
    parts = list(path.parts)
    for number in reversed(range(len(parts) - 1)):
        if parts[number].casefold() == folder:
            del parts[number]
            break
    return "/".join(parts)


def _by_stem(masks: Iterable[str], photos: Iterable[str]) -> dict[str, list[str]]:
    """Masks by the stem of their photo, as it is spelt there.

    Where no photo is spelt alike, case and Unicode form do not count, STEM.jpg.png is a mask of STEM.jpg, and
    masks/STEM.png one of photos/STEM.jpg.
    """
    stems, meant = set[str](), dict[str, str]()
    for name in photos:
        stem = stem_without(name, "images")
        stems.add(stem)
        for spelt in (stem, stem + PurePosixPath(name).suffix, stem_without(name, "photos")):
            meant.setdefault(folded(spelt), stem)
    found: dict[str, list[str]] = {}
    for name in masks:
        stem = stem_without(name, "masks")
        found.setdefault(stem if stem in stems else meant.get(folded(stem), stem), []).append(name)
    return found


def _pair(
    source: str,
    photos: Sequence[str],
    masks: Mapping[str, list[str]],
    scenes: Mapping[str, str],
    layout: Layout,
) -> None:
    owner: dict[str, str] = {}
    mask_claims = Claims()
    for name in photos:
        stem = stem_without(name, "images")
        found = masks.get(stem, [])
        first = owner.setdefault(stem, name)
        why = None
        if len(found) > 1:
            why = f"it has {len(found)} masks ({', '.join(found)}), expected one; remove the others"
        elif found and first != name:
            why = f"mask {found[0]} could be of {first} too; rename one photo and give each its mask"
        elif found and (other := mask_claims.clash(str(PurePosixPath(name).with_suffix("")))) is not None:
            why = f"its mask could not stand beside that of {other} on every disk; rename one of them"
        if why is None:
            group = f"{source}/{scenes.get(folded(name), name)}"
            layout.photos.append(PhotoFile(source, name, found[0] if found else None, group))
        else:
            layout.set_aside.append(SetAside(source, name, why))
    for stem in sorted(masks.keys() - owner.keys()):
        layout.set_aside += [
            SetAside(source, name, f"a mask, but no photo is called {stem}; name it as its photo")
            for name in masks[stem]
        ]


def _unknown_scenes(source: str, scenes: Mapping[str, str], layout: Layout) -> list[SetAside]:
    names = [photo.name for photo in layout.photos] + [tile.name for tile in layout.tiles]
    known = {folded(name) for name in names + [file.name for file in layout.set_aside]}
    return [
        SetAside(source, GROUPS_FILE, f"names {file!r}, which is not a photo of this source; fix the name")
        for file in sorted(scenes.keys() - known)
    ]


def _without_copies(
    files: Sequence[PhotoFile], fixed: Mapping[str, FixedSource]
) -> tuple[list[PhotoFile], list[SetAside]]:
    first: dict[str, PhotoFile] = {}
    kept, copies = [], []
    for file in sorted(files, key=lambda file: (file.mask is None, file.source, file.name)):
        sha256 = fixed[file.source].sha256_of[file.name]
        original = first.setdefault(sha256, file)
        if original is file or sha256 == _EMPTY:  # empty files get their own reason when they are read
            kept.append(file)
        else:
            reason = f"the same bytes as {original.source}/{original.name}"
            copies.append(SetAside(file.source, file.name, reason))
    return sorted(kept, key=lambda file: (file.source, file.name)), copies


def _without_contradictions(
    files: Sequence[TileFile], fixed: Mapping[str, FixedSource]
) -> tuple[list[TileFile], list[SetAside]]:
    labels: dict[str, set[int]] = {}
    for file in files:
        labels.setdefault(fixed[file.source].sha256_of[file.name], set()).add(file.label)
    kept, contradicting = [], []
    for file in files:
        sha256 = fixed[file.source].sha256_of[file.name]
        if len(labels[sha256]) == 1 or sha256 == _EMPTY:
            kept.append(file)
        else:
            reason = "the same bytes stand among the positive and the negative tiles"
            contradicting.append(SetAside(file.source, file.name, reason))
    return kept, contradicting
