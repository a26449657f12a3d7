"""Folders of photos that were looked at: their names, what is known of them, pictures made small."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.files import sha256_bytes

Pixels = npt.NDArray[np.uint8]


def folder_name(name: str, digest: str) -> str:
    """A folder name on every disk, unique by the photo's name and content: no path in a name is trusted."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in Path(name).stem)[:60]
    unique = sha256_bytes(repr((name, digest)).encode())
    return f"{stem}-{unique[:12]}"


def known_findings(kept: Path) -> dict[str, Any] | None:
    """What an earlier call found; None if it did not get so far."""
    try:
        known: dict[str, Any] = json.loads((kept / "findings.json").read_text())
    except (OSError, ValueError):
        return None
    return known


def read_findings(kept: Path) -> dict[str, Any]:
    """What is known of a photo that was looked at."""
    findings: dict[str, Any] = json.loads((kept / "findings.json").read_text())
    return findings


def forget_others(root: Path, kept: Iterable[Path]) -> None:
    """Remove the folders of photos that are not in the survey any more."""
    wanted = {path.name for path in kept}
    for path in (root / "photos").glob("*"):
        if path.name not in wanted:
            shutil.rmtree(path, ignore_errors=True)


def preview(rgb: Pixels, side_px: int) -> Pixels:
    """The photo with its longer side at most `side_px`."""
    height, width = rgb.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return rgb
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    if scale <= 0.5 and height % 2 == width % 2 == 0:  # whole pixels are averaged ten times as fast as parts
        rgb = np.asarray(cv2.resize(rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
