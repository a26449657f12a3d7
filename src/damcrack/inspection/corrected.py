"""Annotations that a person corrected in CVAT or another tool (COCO), as masks for the next training.

OUT/images/NAME       the photos that the file lists
OUT/masks/STEM.png    their crack pixels; all black where the person left no crack
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from damcrack.cracks.findings import Pixels
from damcrack.data.names import Claims, why_unsafe
from damcrack.data.photo import encode_mask, photo_size_hw
from damcrack.files import InputError, PhotoError, new_directory, write_bytes
from damcrack.inspection.places import OpenBucket
from damcrack.inspection.sources import Photo, list_photos, opened
from damcrack.inspection.spreadsheet import match_name, names_by_key
from damcrack.run import Run

CRACK = ("crack", "cracks")
LARGEST_PX = 10**6
MISSING = "the video has no frame at this time, to a millisecond"


@dataclass(frozen=True)
class Corrected:
    """A photo as the file lists it, and the shapes of its cracks."""

    written: str
    height: int
    width: int
    shapes: Sequence[Mapping[str, Any]]


def take_annotations(
    path: Path, places: Sequence[str], out: Path, open_source: OpenBucket, run: Run
) -> dict[str, object]:
    """Make a source of photos with masks from a COCO file and the photos that it is about.

    Raises:
        InputError: no such file, no category `crack` in it, a photo of it is not in `places`, or none can be used.
    """
    listed, _ = list_photos(places, open_source)
    corrected = _by_photo(path, [one.name for one in listed])
    wanted = [one for one in listed if one.name in corrected or one.is_video]
    num_masks, num_cracked, left_out, claims = 0, 0, dict.fromkeys(corrected, MISSING), Claims()
    with new_directory(out, "corrected-annotations") as folder:
        for photo in run.track(opened(wanted, 1.0, frames=corrected.keys()), "masks", len(wanted)):
            if photo.name not in corrected:
                continue
            try:
                mask = _mask(photo, corrected[photo.name], claims)
            except PhotoError as error:
                left_out[photo.name] = str(error)
                continue
            _write(folder, photo, mask)
            del left_out[photo.name]
            num_masks, num_cracked = num_masks + 1, num_cracked + bool(mask.any())
        for name, reason in left_out.items():
            run.say(f"left out: {name}: {reason}")
        if not num_masks:
            raise InputError(f"{path}: none of its {len(corrected)} photos can be used, see the lines above")
    return {
        "taken": f"{num_cracked} photos with cracks, {num_masks - num_cracked} without",
        **({"left out": len(left_out)} if left_out else {}),
        "train on them": f"add `corrected: {out}` to photos.sources in params.yaml, then `damcrack snapshot photos`",
    }


def _by_photo(path: Path, names: Sequence[str]) -> dict[str, Corrected]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        categories = {one["id"]: one["name"].strip() for one in content["categories"]}
        images = {
            one["id"]: (one["file_name"].strip(), int(one["height"]), int(one["width"]))
            for one in content["images"]
        }
        annotations = [(one, one["image_id"], one["category_id"]) for one in content["annotations"]]
        unknown = [one for one, image, kind in annotations if image not in images or kind not in categories]
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError
    ) as error:  # fmt: skip
        raise InputError(
            f"{path}: no COCO file ({type(error).__name__}: {error}); expected images, categories, annotations: "
            "export it as COCO 1.0"
        ) from error
    if unknown:
        raise InputError(
            f"{path}: annotation {unknown[0].get('id')} has image_id {unknown[0]['image_id']!r} and category_id "
            f"{unknown[0]['category_id']!r}, which it does not list both; export it again"
        )
    if len(images) < len(content["images"]):
        raise InputError(f"{path}: several images have the same id; export it again")
    cracks = {identity for identity, name in categories.items() if name.casefold() in CRACK}
    if not cracks or not images:
        found = ", ".join(categories.values()) or "none"
        problem = f"no category is called crack (found: {found})" if not cracks else "it lists no image"
        raise InputError(f"{path}: {problem}; annotate cracks as `crack` and export again")
    shapes: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for one, image, kind in annotations:
        if kind in cracks:
            shapes[image].append(one)
    return _named(path, names, {image: Corrected(*about, shapes[image]) for image, about in images.items()})


def _named(path: Path, names: Sequence[str], listed: Mapping[Any, Corrected]) -> dict[str, Corrected]:
    """The same by the photos' own names."""
    known, found = names_by_key(names), dict[str, Corrected]()
    for one in listed.values():
        name = match_name(one.written, known, str(path))
        if name in found:
            raise InputError(f"{path} lists {name} twice; put its annotations on one image")
        found[name] = one
    return found


def _mask(photo: Any, corrected: Corrected, claims: Claims) -> Pixels:
    """Crack pixels (H, W) of one photo, 0/1.

    Raises:
        PhotoError: the photo cannot be read, has another size or the stem of another one, or a shape is no area.
    """
    from pycocotools import mask as coco

    if not isinstance(photo, Photo):
        raise PhotoError(photo.reason)
    if (why := why_unsafe(photo.name)) is not None:
        raise PhotoError(why)
    if (other := claims.clash(str(PurePosixPath(photo.name).with_suffix("")))) is not None:
        raise PhotoError(f"its mask could not stand beside that of {other} on every disk; rename one of them")
    size = photo_size_hw(photo.encoded)
    if size != (corrected.height, corrected.width):
        raise PhotoError(
            f"it has {size[1]} x {size[0]} pixels, the annotations are of {corrected.width} x {corrected.height}; "
            "annotate the photo itself"
        )
    drawn = np.zeros(size, np.uint8)
    for shape in corrected.shapes:
        parts = _parts(shape.get("segmentation"), size)
        if parts is None:
            raise PhotoError(
                f"annotation {shape.get('id')} is neither a polygon nor a mask of the photo's size; draw one of them"
            )
        drawn |= coco.decode(coco.merge(coco.frPyObjects(parts, *size)))
    return drawn


def _parts(outline: Any, size_hw: tuple[int, int]) -> list[Any] | None:
    """The parts of a shape as pycocotools draws them, which trusts what it gets; None if it is no area."""
    if isinstance(outline, dict):
        counts: Any = outline.get("counts")
        size = list(size_hw)
        counts = _run_lengths(counts) if isinstance(counts, str) else counts
        are_runs = isinstance(counts, list) and all(isinstance(one, int) and one >= 0 for one in counts)
        whole = are_runs and sum(counts) == size_hw[0] * size_hw[1] and outline.get("size") == size
        return [{"size": size, "counts": counts}] if whole else None
    if not isinstance(outline, list) or not outline:
        return None
    are_polygons = all(
        isinstance(part, list)
        and len(part) >= 6
        and len(part) % 2 == 0
        and all(isinstance(one, (int, float)) and abs(one) <= LARGEST_PX for one in part)
        for part in outline
    )
    return outline if are_polygons else None


def _run_lengths(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: 5 bits a letter, each number from the third on minus the last but one."""
    counts, value, shift = list[int](), 0, 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _write(folder: Path, photo: Any, mask: Pixels) -> None:
    places = folder / "images" / photo.name, folder / "masks" / PurePosixPath(photo.name).with_suffix(".png")
    for place, content in zip(places, (photo.encoded, encode_mask(mask)), strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, content)
