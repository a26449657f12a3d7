"""Is it a photo that can be used, or a mask that fits its photo: what is stored of it, and what the ledger says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from damcrack.data.photo import decode_mask, decode_photo
from damcrack.files import InputError, PhotoError, sha256_bytes
from damcrack.imagery.config import ImageryConfig
from damcrack.imagery.ledger import Item, json_bytes

_SUFFIX_OF = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"II": ".tif", b"MM": ".tif"}


@dataclass(frozen=True)
class Judgement:
    """An item, and the objects that have to be in the store before it is entered."""

    item: Item
    objects: dict[str, bytes]


def judge_photo(name: str, content: bytes, config: ImageryConfig) -> Judgement:
    """Accept a photo that decodes and is large enough; otherwise quarantine says why."""
    digest = sha256_bytes(content)
    try:
        height, width, _ = decode_photo(content, config.max_pixels).shape
        if min(height, width) < config.min_side_px:
            raise PhotoError(
                f"{width} x {height} pixels, expected at least {config.min_side_px} on each side; "
                "leave it out or lower min_side_px"
            )
    except PhotoError as error:
        return set_aside(Item(name, digest, "quarantined", str(error), size_bytes=len(content)), content)
    file = f"accepted/photos/{digest}{_SUFFIX_OF[content[:2]]}"
    return Judgement(Item(name, digest, "accepted", "", file, len(content), height, width), {file: content})


def judge_label(
    name: str, content: bytes, photo: Item, read: Callable[[str], bytes], config: ImageryConfig
) -> Judgement:
    """Accept a mask of its photo's size; both are put side by side as the stage `photos` wants them.

    Raises:
        InputError: the photo is not in the store any more.
    """
    digest, size = sha256_bytes(content), len(content)
    try:
        _check_mask(photo, content, config)
    except PhotoError as error:
        item = Item(name, photo.sha256, "quarantined", str(error), mask_sha256=digest, mask_size_bytes=size)
        return set_aside(item, content)
    folder = f"accepted/labelled/{digest}"
    file = f"{folder}/{PurePosixPath(photo.file).name}"
    mask_file = f"{folder}/masks/{photo.sha256}{_SUFFIX_OF[content[:2]]}"
    item = Item(
        name,
        photo.sha256,
        "accepted",
        file=file,
        size_bytes=photo.size_bytes,
        height_px=photo.height_px,
        width_px=photo.width_px,
        mask_sha256=digest,
        mask_file=mask_file,
        mask_size_bytes=size,
    )
    return Judgement(item, {file: _photo_bytes(photo, read), mask_file: content})


def judge_unread(name: str, content: bytes, photo_sha256: str, num_killed: int) -> Judgement:
    """Quarantine what killed the runs that read it."""
    reason = (
        f"{num_killed} runs were killed while they read it, expected a file that fits in memory; "
        "look at it by hand, or lower max_megapixels"
    )
    digest, size = sha256_bytes(content), len(content)
    item = (
        Item(name, photo_sha256, "quarantined", reason, mask_sha256=digest, mask_size_bytes=size)
        if photo_sha256
        else Item(name, digest, "quarantined", reason, size_bytes=size)
    )
    return set_aside(item, content)


def set_aside(item: Item, content: bytes) -> Judgement:
    """Keep the bytes and the reason."""
    reason = json_bytes({"name": item.name, "reason": item.reason})
    place = f"quarantine/{item.id}"
    return Judgement(item, {f"{place}/file": content, f"{place}/reason.json": reason})


def _check_mask(photo: Item, content: bytes, config: ImageryConfig) -> None:
    if photo.verdict == "quarantined":
        raise PhotoError(f"its photo {photo.name} was set aside ({photo.reason}); mend the photo first")
    height, width = decode_mask(content, config.max_pixels).shape
    if (height, width) != (photo.height_px, photo.width_px):
        raise PhotoError(
            f"{width} x {height} pixels, expected {photo.width_px} x {photo.height_px} as the upright photo; "
            "export the mask in the photo's size"
        )


def _photo_bytes(photo: Item, read: Callable[[str], bytes]) -> bytes:
    try:
        content = read(photo.file)
    except FileNotFoundError:
        content = b""
    if sha256_bytes(content) != photo.sha256:
        raise InputError(f"{photo.file} has vanished from the store or changed; restore its version")
    return content
