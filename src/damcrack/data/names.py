"""Judge file names before they become paths on this machine or on another one."""

import unicodedata
from pathlib import PurePosixPath

from damcrack.data.photo import PHOTO_SUFFIXES

# Read too, only to be set aside with a reason: somebody meant these to be photos.
OTHER_IMAGE_SUFFIXES = (".bmp", ".gif", ".heic", ".heif", ".jp2", ".webp")
LONGEST_PART_BYTES = 200  # file systems allow 255; some is left for suffixes of our own


def is_image_name(name: str) -> bool:
    """Tell whether the suffix is one of an image, readable or not."""
    return name.lower().endswith(PHOTO_SUFFIXES + OTHER_IMAGE_SUFFIXES)


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
    """Paths given away so far, compared as strict file systems do: without case, in one Unicode form."""

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}

    def clash(self, path: str) -> str | None:
        """Claim a path; return the earlier path that it would overwrite or has as a folder, else None."""
        own = _folded(path)
        above = [str(parent) for parent in PurePosixPath(own).parents if str(parent) != "."]
        taken = [self._owner[key] for key in (f"file {own}", f"folder {own}") if key in self._owner]
        taken += [self._owner[f"file {parent}"] for parent in above if f"file {parent}" in self._owner]
        if taken:
            return taken[0]
        self._owner[f"file {own}"] = path
        for parent in above:
            self._owner.setdefault(f"folder {parent}", path)
        return None


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
