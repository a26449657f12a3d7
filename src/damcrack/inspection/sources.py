"""Photos to inspect: files, folders, patterns, s3:// objects and prefixes, and frames of videos, one after the other.

Every file that was given, or lies below a given folder, is listed: to be looked at, or set aside with a reason.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.data.names import (
    OTHER_IMAGE_SUFFIXES,
    PHOTO_SUFFIXES,
    RAW_SUFFIXES,
    VIDEO_SUFFIXES,
    content_kind,
    escaped,
)
from damcrack.data.photo import encode_jpeg, num_photos, within_memory
from damcrack.data.tiff import RAW_ADVICE, STARTS
from damcrack.files import InputError, PhotoError, sha256_bytes, sha256_file
from damcrack.inspection.places import Listed, OpenBucket, Unusable, file, objects, walk

# Never inspected, whatever they hold: what cameras and GDAL write beside a photo or video.
SIDECAR_SUFFIXES = (".thm", ".lrv", ".lrf", ".ovr", ".msk")
FRAME_QUALITY = 95
LARGE_BYTES = 256 * 2**20
# A video that ends so much earlier than its header says was cut short.
MISSING_SHARE = 0.05

# FFmpeg's own lines name no video; it reads this when the first one is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1 on) of `of` of a survey that several machines inspect.

    A file's name alone says which part it is in, so that new files move no other. A part is like a call that was
    killed: its photos are stored, and the call without a part, over all of them, writes tables and page.
    """

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> "Part":
        """Read NUMBER/OF.

        Raises:
            InputError: it is something else.
        """
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text, re.ASCII)
        part = cls(*map(int, found.groups())) if found else cls(1, 0)
        if part.number > part.of:
            raise InputError(f"--part {text}: expected NUMBER/OF, from 1/4 to 4/4 for four parts")
        return part

    def holds(self, name: str) -> bool:
        """Whether a listed file of that name belongs to it."""
        return int(sha256_bytes(name.encode())[:12], 16) % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class Photo:
    """Encoded bytes of one photo or frame, and their hash."""

    name: str
    encoded: bytes
    sha256: str


def list_photos(given: Sequence[str], open_bucket: OpenBucket) -> tuple[list[Listed], list[Unusable]]:
    """All photos and videos of the given files, folders, patterns and s3:// addresses, and what is set aside.

    A file is called by its name, a file in a folder by its path below it. With several places, their names come
    first, and as much of the paths as tells them apart. Bytes that are not UTF-8 are escaped.

    Raises:
        InputError: a place is not there, or none holds a photo.
    """
    places = list(dict.fromkeys(place for text in given for place in _expanded(text)))
    named = list[Listed | Unusable]()
    for place, label in zip(places, _labels(places), strict=True):
        for one in _files(place, open_bucket):
            below = f"{label}/{one.name}" if len(places) > 1 and one.name else one.name
            named.append(replace(one, name=below or label))
    judged = list(_sorted_out(_unique(named)))
    listed = sorted((one for one in judged if isinstance(one, Listed)), key=lambda one: _order(one.name))
    set_aside = sorted((one for one in judged if isinstance(one, Unusable)), key=lambda one: one.name)
    if not listed:
        first = next((one for one in judged if isinstance(one, Unusable)), None)
        why = f"; the first of {len(set_aside)} other files: {first.name}: {first.reason}" if first else ""
        places_text = escaped(", ".join(given))
        raise InputError(
            f"no photo in {places_text}; expected files that end in {', '.join(PHOTO_SUFFIXES)}{why}"
        )
    return listed, set_aside


def title_of(given: Sequence[str]) -> str:
    """What a survey is called: its folder or file, or how many places there are."""
    if len(given) > 1:
        return f"{len(given)} places"
    text = given[0]
    return escaped(PurePosixPath(text).name if "://" in text else Path(text).resolve().name or text)


def summarised(set_aside: Iterable[Unusable]) -> list[Unusable]:
    """What is set aside, with one line for all files of a suffix that nobody would expect to be inspected."""
    others, shown = dict[str, list[Unusable]](), list[Unusable]()
    for one in set_aside:
        if one.no_photo and not one.name.endswith("/"):
            others.setdefault(PurePosixPath(one.name).suffix.lower(), []).append(one)
        else:
            shown.append(one)
    for suffix, alike in others.items():
        first, more = alike[0], len(alike) - 1
        name = f"{first.name} and {more} more{' *' + suffix if suffix else ''}" if more else first.name
        shown.append(replace(first, name=name))
    return shown


def _expanded(text: str) -> list[str]:
    if "://" in text or os.path.lexists(text):
        return [text]
    found = sorted(glob.glob(text, recursive=True))  # noqa: PTH207  # the pattern may be absolute
    if not found:
        raise InputError(f"{escaped(text)}: no such file, folder or pattern with files; fix the path")
    return found


def _labels(places: Sequence[str]) -> list[str]:
    """The last part of each path, and more parts where those are the same."""
    parts = [_parts(place) for place in places]
    depths = [1] * len(places)
    while True:
        labels = ["/".join(part[-depth:]) for part, depth in zip(parts, depths, strict=True)]
        counts = Counter(labels)
        longer = [n for n, label in enumerate(labels) if counts[label] > 1 and depths[n] < len(parts[n])]
        if not longer:
            return labels
        for number in longer:
            depths[number] += 1


def _parts(place: str) -> tuple[str, ...]:
    if "://" in place:
        return tuple(part for part in place.partition("://")[2].split("/") if part)
    path = PurePath(os.path.abspath(place))  # noqa: PTH100  # a link keeps its own name
    return tuple(part for part in path.parts if part != path.anchor) or (place,)


def _files(place: str, open_bucket: OpenBucket) -> Iterator[Listed | Unusable]:
    if "://" in place:
        yield from objects(place, open_bucket)
    elif Path(place).is_dir():
        yield from walk(Path(place))
    else:
        try:
            yield file(Path(place), "", Path(place).stat())
        except OSError as error:
            yield Unusable("", f"cannot be read ({error.strerror}); fix its permissions or links")


def _unique(named: Iterable[Listed | Unusable]) -> Iterator[Listed | Unusable]:
    """The same with every name escaped, and no name twice."""
    taken = set[str]()
    for one in sorted(named, key=lambda one: (escaped(one.name) != one.name, _order(one.name))):
        name, number = escaped(one.name), 2
        path = PurePosixPath(name)
        while name in taken:
            name, number = str(path.with_name(f"{path.stem}~{number}{path.suffix}")), number + 1
        taken.add(name)
        yield replace(one, name=name)


def _order(name: str) -> tuple[tuple[int, bool, str, str], ...]:
    """Files of a folder before its folders, a copy called `photo (1).jpg` after `photo.jpg`, odd names last."""
    path = PurePosixPath(name)
    odd = path.suffix.lower() not in PHOTO_SUFFIXES or escaped(name) != name or "\\" in name
    return *((1, False, part, "") for part in path.parts[:-1]), (0, odd, path.stem, path.name)


def _sorted_out(named: Iterable[Listed | Unusable]) -> Iterator[Listed | Unusable]:
    first: dict[object, str] = {}
    for one in sorted(named, key=lambda one: isinstance(one, Listed) and one.is_link):
        if isinstance(one, Unusable):
            yield one
        elif one.same is not None and first.setdefault(one.same, one.name) != one.name:
            yield Unusable(one.name, f"the same file as {first[one.same]}, which stands for both")
        else:
            yield _judged(one)


def _judged(one: Listed) -> Listed | Unusable:
    """A photo or video by its content, or by its suffix where that says more."""
    name, last = one.name, PurePosixPath(one.name).name
    suffix = PurePosixPath(last).suffix.lower()
    if last.startswith(".") or last.casefold() in ("thumbs.db", "desktop.ini"):
        return Unusable(name, "a hidden file or one of the system, no photo", no_photo=True)
    if suffix in SIDECAR_SUFFIXES:
        return Unusable(name, "a small copy or a mask of another file, no photo", no_photo=True)
    known = (*PHOTO_SUFFIXES, *VIDEO_SUFFIXES, *OTHER_IMAGE_SUFFIXES)
    try:
        is_large = one.size_bytes > LARGE_BYTES
        head = one.first_bytes() if one.is_local or is_large or suffix not in known else b""
    except (OSError, InputError) as error:
        return Unusable(name, _unread(error))
    if suffix in RAW_SUFFIXES and (head.startswith(STARTS) or not content_kind(head)):
        return Unusable(name, RAW_ADVICE)
    kind = content_kind(head) or ("video" if suffix in VIDEO_SUFFIXES else "photo" if suffix in known else "")
    if is_large and kind == "photo" and not content_kind(head):  # not read into memory to be refused
        return Unusable(
            name, f"{one.size_bytes / 1e9:.1f} GB that do not begin as an image does; copy it again"
        )
    if not kind:
        return Unusable(name, f"no photo or video ({suffix or 'no suffix'})", no_photo=True)
    return replace(one, is_video=kind == "video")


def _unread(error: OSError | InputError) -> str:
    if isinstance(error, InputError):
        return f"cannot be read ({error})"
    if isinstance(error, FileNotFoundError):
        return "gone or replaced since it was listed; run again, or copy it again"
    return f"cannot be read ({error.strerror or error}); fix its permissions or copy it again"


def opened(
    listed: Iterable[Listed],
    frame_every_s: float,
    max_bytes: int | None = None,
    frames: Collection[str] | None = None,
) -> Iterator[Photo | Unusable]:
    """Read file after file; a video gives a frame every N seconds or those called `frames`, and what was wrong with it.

    Of files with the same bytes the first is inspected. A photo of more than `max_bytes` is not read.
    """
    first: dict[str, str] = {}
    for one in listed:
        try:
            if one.is_video:
                with one.on_disk() as path:
                    twin = first.setdefault(sha256_file(path), one.name)
                    if twin == one.name:
                        yield from _frames(one.name, path, frame_every_s, frames)
                    else:
                        yield _same_content(one.name, twin)
                continue
            if max_bytes is not None and one.size_bytes > max_bytes:
                size = f"a file of {one.size_bytes / 1e9:.1f} GB, expected at most {max_bytes / 1e9:.1f}"
                yield Unusable(one.name, f"{size}; scale it down or raise max_megapixels")
                continue
            with within_memory():
                encoded = one.read()
        except (OSError, InputError) as error:
            yield Unusable(one.name, _unread(error))
            continue
        digest = sha256_bytes(encoded)
        if encoded and first.setdefault(digest, one.name) != one.name:
            yield _same_content(one.name, first[digest])
        else:
            yield Photo(one.name, encoded, digest)
            yield from _other_photos(one.name, encoded)


def _same_content(name: str, twin: str) -> Unusable:
    return Unusable(name, f"same content as {twin}, which stands for both")


def _other_photos(name: str, encoded: bytes) -> Iterator[Unusable]:
    try:
        last = num_photos(encoded)
    except PhotoError:
        return
    if last > 1:
        reason = "only the first full-size photo of a file is inspected; export one file per photo"
        yield Unusable(f"{name} (photos 2 to {last})", reason, no_photo=True)


def _frames(
    name: str, path: Path, every_s: float, wanted: Collection[str] | None
) -> Iterator[Photo | Unusable]:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # OpenCV's lines name no video either
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        yield from _read_frames(name, video, every_s, wanted)
    finally:
        video.release()


def _read_frames(
    name: str, video: cv2.VideoCapture, every_s: float, wanted: Collection[str] | None
) -> Iterator[Photo | Unusable]:
    rate, promised = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if not (video.isOpened() and 0 < rate < 10_000):
        yield Unusable(name, "no video that can be decoded, or one cut short before its index; copy it again")
        return
    number, due_s, time_s, longest_s = 0, 0.0, 0.0, 0.0
    while video.grab():
        before_s, time_s = time_s, video.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if number and time_s <= before_s:  # no time stamps
            time_s = max(before_s, number / rate)
        longest_s = max(longest_s, time_s - before_s)
        frame_name = f"{name}@{_time_text(time_s)}s.jpg"
        if frame_name in wanted if wanted is not None else time_s >= due_s - 0.5e-3:
            done, frame = video.retrieve()
            if not done:
                break
            encoded = encode_jpeg(np.asarray(frame[..., ::-1], np.uint8), FRAME_QUALITY)
            yield Photo(frame_name, encoded, sha256_bytes(encoded))
            due_s = every_s * (int((time_s + 0.5e-3) / every_s) + 1)
        number += 1
    ended_s, promised_s = time_s + longest_s, promised / rate
    if number == 0 or (
        number < promised * (1 - MISSING_SHARE) and ended_s < promised_s * (1 - MISSING_SHARE)
    ):
        yield Unusable(name, f"cut short: {time_s:.1f} of {promised_s:.1f} s could be read; copy it again")


def _time_text(time_s: float) -> str:
    """Sorted by time as text, too; milliseconds where tenths do not say it all, so that no two frames share a name."""
    milliseconds = round(1000 * time_s)
    return f"{milliseconds / 1000:07.1f}" if milliseconds % 100 == 0 else f"{milliseconds / 1000:09.3f}"
