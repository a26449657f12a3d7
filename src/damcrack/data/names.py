"""Judge file names before they become paths on this machine or on another one."""

import unicodedata
from pathlib import PurePosixPath
from typing import Any, Literal

PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".bmp",
    ".jp2", ".j2k", ".jpf", ".jpx", ".heic", ".heif", ".avif",
)  # fmt: skip
PHOTO_STARTS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8", b"\xff\x4f\xff\x51",
    b"\0\0\0\x0cjP  ",
)  # fmt: skip
BMP_HEADER_SIZES = (b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
RAW_SUFFIXES = (
    ".dng", ".arw", ".sr2", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".x3f",
    ".3fr", ".iiq", ".raw", ".rwl", ".gpr",
)  # fmt: skip
# Read too, only to be set aside with a reason: somebody meant these to be photos.
OTHER_IMAGE_SUFFIXES = (".gif", ".jxl", ".psd", *RAW_SUFFIXES)
VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".avi", ".mkv", ".m4v", ".webm", ".mts", ".m2ts", ".ts", ".mpg", ".mpeg", ".wmv", ".3gp", ".flv",
    ".mxf", ".ogv", ".vob",
)  # fmt: skip
LONGEST_PART_BYTES = 200  # file systems allow 255; some is left for suffixes of our own
# Cells that begin so are run as formulas (OWASP, CSV injection); the last four are the wide forms of Japanese.
FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def is_image_name(name: str) -> bool:
    """Tell whether the suffix is one of an image, readable or not."""
    return name.lower().endswith(PHOTO_SUFFIXES + OTHER_IMAGE_SUFFIXES)


def content_kind(head: bytes) -> Literal["photo", "video", ""]:
    """Tell by the first bytes of a file what it holds, whatever its name says; empty if it is neither."""
    is_bmp = head[:2] == b"BM" and head[14:18] in BMP_HEADER_SIZES
    if head.startswith(PHOTO_STARTS) or head[8:12] == b"WEBP" or is_bmp:
        return "photo"
    if head[4:8] == b"ftyp":
        return "photo" if head[8:12] in HEIF_BRANDS or head[8:11] in (b"avi", b"crx") else "video"
    return "video" if head[:4] == b"\x1aE\xdf\xa3" or head[8:12] == b"AVI " else ""


def is_hidden(name: str) -> bool:
    """Tell whether the file or a folder above it starts with a dot."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def escaped(name: str) -> str:
    """Spell control characters and bytes that are not UTF-8 with backslashes, fit for any CSV.

    A name changed by this holds a backslash, so `why_unsafe` refuses it: nobody needs to read it back.
    """
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in ("Cc", "Cs") else letter
        for letter in name
    )


def why_unsafe(name: str) -> str | None:
    """Say why a relative name must not become a path; None if it may."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "." in parts or "" in parts:
        return "its path could lead outside the folder; rename it"
    if "\\" in name or escaped(name) != name:
        return "its name holds a backslash or a control character; rename it"
    if any(len(part.encode()) > LONGEST_PART_BYTES for part in parts):
        return f"a part of its name is longer than {LONGEST_PART_BYTES} bytes; shorten it"
    return None


class Claims:
    """Paths given away so far, compared as strict file systems do."""

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}

    def clash(self, path: str) -> str | None:
        """Claim a path; return the earlier path that it would overwrite or has as a folder, else None."""
        own = folded(path)
        above = [str(parent) for parent in PurePosixPath(own).parents if str(parent) != "."]
        taken = [self._owner[key] for key in (f"file {own}", f"folder {own}") if key in self._owner]
        taken += [self._owner[f"file {parent}"] for parent in above if f"file {parent}" in self._owner]
        if taken:
            return taken[0]
        self._owner[f"file {own}"] = path
        for parent in above:
            self._owner.setdefault(f"folder {parent}", path)
        return None


def folded(path: str) -> str:
    """The path as strict file systems compare it: without case, in one Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def escape_formula(value: Any) -> Any:
    """Put an apostrophe before a text that would be a formula, or an escaped one; numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def unescape_formula(text: str) -> str:
    """Undo `escape_formula`."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    return text.lstrip("'").startswith(FORMULA_STARTS)
