"""What is known of one inspected photo, in its folder of a survey: OUT/photos/NAME-HASH/findings.json."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from damcrack.cracks.measure import Crack
from damcrack.files import InputError, sha256_bytes, write_bytes

Pixels = npt.NDArray[np.uint8]
Verdict = Literal["crack", "unsure", "no crack"]
FILE = "findings.json"
SUMMARY = "survey.json"  # of a survey: there once it is finished


class Block(NamedTuple):
    """A square of a photo in pixels, and the calibrated probability that it holds a crack."""

    x0: int
    y0: int
    x1: int
    y1: int
    crack_prob: float

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """The square alone."""
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True)
class Findings:
    """One inspected photo: its blocks, its cracks (most evidence first), and what was known when it was inspected.

    `key` names everything that the findings depend on; `doubt` says why a photo cannot be judged (see
    cracks.quality); `lon_lat` is where the camera was, in degrees (WGS 84).
    """

    photo: str
    sha256: str
    key: str
    gsd_mm_per_px: float | None
    lon_lat: tuple[float, float] | None
    block_px: int
    threshold: float
    uncertain: tuple[float, float]
    height_px: int
    width_px: int
    verdict: Verdict
    doubt: str
    blocks: list[Block]
    cracks: list[Crack]

    @property
    def max_crack_prob(self) -> float:
        """Probability of the most confident block."""
        return max(block.crack_prob for block in self.blocks)

    def write(self, folder: Path) -> None:
        """Write `folder`/findings.json."""
        values = {**vars(self), "cracks": [_as_json(crack) for crack in self.cracks]}
        write_bytes(
            folder / FILE, (json.dumps(values, separators=(",", ":"), allow_nan=False) + "\n").encode()
        )

    @classmethod
    def read(cls, folder: Path) -> "Findings":
        """Read `folder`/findings.json."""
        values: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(
            **values
            | {
                "lon_lat": _pair(values["lon_lat"]),
                "uncertain": _pair(values["uncertain"]),
                "blocks": [Block(*block) for block in values["blocks"]],
                "cracks": [_from_json(crack, number) for number, crack in enumerate(values["cracks"], 1)],
            }
        )

    @classmethod
    def read_if_usable(cls, folder: Path) -> "Findings | None":
        """What an earlier call found; None if it did not get so far, or another version wrote it."""
        try:
            return cls.read(folder)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _pair(values: Any) -> Any:
    return None if values is None else tuple(values)


def _as_json(crack: Crack) -> dict[str, Any]:
    return {
        "length_px": round(crack.length_px, 1),
        "width_px": round(crack.width_px, 2),
        "width_max_px": round(crack.width_max_px, 2),
        "area_px": crack.area_px,
        "num_branches": crack.num_branches,
        "box_xyxy": crack.box_xyxy,
        "lines": [line.tolist() for line in crack.lines],
        "crack_prob": round(crack.crack_prob, 4),
        "confidence": round(crack.confidence, 4),
        "samples": [[int(x), int(y), round(width, 2)] for x, y, width in crack.samples.tolist()],
    }


def _from_json(values: dict[str, Any], number: int) -> Crack:
    return Crack(
        **values
        | {
            "box_xyxy": tuple(values["box_xyxy"]),
            "lines": tuple(np.array(line, np.int64) for line in values["lines"]),
            "samples": np.array(values["samples"], np.float64).reshape(-1, 3),
            "number": number,
        }
    )


def crack_name(photo: str, number: int) -> str:
    """A crack is called by its photo and its number in it, from 1 on, the one with most evidence first."""
    return f"{photo}#{number}"


def folder_name(photo: str, digest: str) -> str:
    """A folder name on every disk, unique by the photo's name and content: no path in a name is trusted."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in Path(photo).stem)[:60]
    unique = sha256_bytes(repr((photo, digest)).encode())
    return f"{stem}-{unique[:12]}"


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


def encode_picture(rgb: Pixels, quality: int) -> bytes:
    """JPEG of a picture to be looked at, in a third of OpenCV's time; no network sees it."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB", "420"))


def read_picture(path: Path, flags: int = cv2.IMREAD_COLOR_RGB) -> Pixels:
    """A picture that the survey wrote: (H, W, 3), or (H, W) with `flags` for grey.

    OpenCV alone opens no path with letters that the code page of Windows lacks.

    Raises:
        InputError: it is gone or damaged.
    """
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise InputError(f"{path} cannot be read; remove its folder and run `damcrack inspect` again")
    return np.asarray(image, np.uint8)
