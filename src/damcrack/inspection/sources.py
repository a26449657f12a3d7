"""Photos to inspect: files, folders, patterns, s3:// prefixes, and frames of videos, one after the other."""

import glob
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.data.names import is_hidden
from damcrack.data.photo import PHOTO_SUFFIXES, encode_jpeg
from damcrack.data.snapshot import Source
from damcrack.files import InputError, PhotoError

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".m4v", ".webm")
FRAME_QUALITY = 95
# A video that ends so much earlier than its header says was cut short.
MISSING_SHARE = 0.05

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Listed:
    """A file to look at: `name` is how the report calls it, `read` gives its bytes."""

    name: str
    read: Callable[[], bytes]

    @property
    def is_video(self) -> bool:
        """Tell by its name whether it holds frames."""
        return self.name.casefold().endswith(VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Photo:
    """Encoded bytes of one photo or frame."""

    name: str
    encoded: bytes


@dataclass(frozen=True)
class Unusable:
    """A file, or part of a video, that cannot be looked at, and why."""

    name: str
    reason: str


def list_photos(given: Sequence[str], open_source: Callable[[str], Source]) -> list[Listed]:
    """All photos and videos of the given files, folders, patterns and s3:// prefixes, by name.

    A file is called by its name, a file in a folder by its path below it; with several folders, their names come
    first.

    Raises:
        InputError: something is not there, holds no photo, or two files would have one name.
    """
    places = [place for text in given for place in _expanded(text)]
    several = len(places) > 1
    listed: dict[str, Listed] = {}
    for place in places:
        for one in _listed(place, several, open_source):
            if one.name in listed:
                raise InputError(
                    f"two files are called {one.name}; inspect their folders one after the other"
                )
            listed[one.name] = one
    if not listed:
        wanted = ", ".join((*PHOTO_SUFFIXES, *VIDEO_SUFFIXES))
        raise InputError(f"no photo in {', '.join(given)}; expected files that end in {wanted}")
    return [listed[name] for name in sorted(listed)]


def _expanded(text: str) -> list[str]:
    if text.startswith("s3://") or Path(text).exists():
        return [text]
    found = sorted(glob.glob(text, recursive=True))  # noqa: PTH207  # the pattern may be absolute
    if not found:
        raise InputError(f"{text}: no such file, folder or pattern with files; fix the path")
    return found


def _listed(place: str, several: bool, open_source: Callable[[str], Source]) -> Iterator[Listed]:
    if Path(place).is_file():
        yield Listed(Path(place).name, Path(place).read_bytes)
        return
    source = open_source(place)
    prefix = f"{PurePosixPath(place.rstrip('/')).name}/" if several else ""
    for name in source.names():
        if is_wanted(name):
            yield Listed(prefix + name, lambda source=source, name=name: source.read(name))  # type: ignore[misc]


def is_wanted(name: str) -> bool:
    """Photos and videos, but not masks and hidden files."""
    folders = {part.casefold() for part in name.split("/")[:-1]}
    masks = any(folder == "masks" or folder.startswith("masks-") for folder in folders)
    return name.casefold().endswith((*PHOTO_SUFFIXES, *VIDEO_SUFFIXES)) and not (masks or is_hidden(name))


def opened(listed: Sequence[Listed], frame_every_s: float) -> Iterator[Photo | Unusable]:
    """Read file after file; a video gives a frame every N seconds, and what was wrong with it."""
    for one in listed:
        try:
            encoded = one.read()
        except OSError as error:
            yield Unusable(one.name, f"cannot be read ({error.strerror or error}); copy it again")
            continue
        if one.is_video:
            yield from _frames(one.name, encoded, frame_every_s)
        else:
            yield Photo(one.name, encoded)


def _frames(name: str, encoded: bytes, every_s: float) -> Iterator[Photo | Unusable]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video{PurePosixPath(name).suffix}"
        path.write_bytes(encoded)
        video = cv2.VideoCapture(str(path))
        try:
            yield from _read_frames(name, video, every_s)
        except PhotoError as error:
            yield Unusable(name, str(error))
        finally:
            video.release()


def _read_frames(name: str, video: cv2.VideoCapture, every_s: float) -> Iterator[Photo | Unusable]:
    rate, promised = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if not (video.isOpened() and 0 < rate < 10_000):
        raise PhotoError("no video that can be decoded, or one cut short before its index; copy it again")
    step, number = max(1, round(every_s * rate)), 0
    while video.grab():
        if number % step == 0:
            done, frame = video.retrieve()
            if not done:
                break
            rgb: Pixels = np.asarray(frame[..., ::-1], np.uint8)
            yield Photo(f"{name}@{number / rate:07.1f}s.jpg", encode_jpeg(rgb, FRAME_QUALITY))
        number += 1
    if number < promised * (1 - MISSING_SHARE) or number == 0:
        reason = f"cut short: {number / rate:.1f} of {promised / rate:.1f} s could be read; copy it again"
        yield Unusable(name, reason)
