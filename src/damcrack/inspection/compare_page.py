"""Two surveys compared, as one HTML page that needs no network: pairs of photos with their changes marked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.cracks.findings import Findings, Pixels, encode_picture, preview, read_picture
from damcrack.cracks.measure import Crack
from damcrack.files import write_bytes
from damcrack.inspection.align import Registration, moved
from damcrack.inspection.changes import Change
from damcrack.inspection.report import environment, in_words

SHOWN_PAIRS = 200
LISTED = 500
SIDE_PX, QUALITY = 900, 80
COLOURS = {
    "new": (255, 59, 47),
    "grown": (255, 160, 0),
    "vanished": (190, 90, 255),
    "unchanged": (0, 200, 230),
    "unclear": (150, 150, 150),
}


def lay_over(
    folders: Sequence[Path], sides: Sequence[Findings], registration: Registration, found: Sequence[Change]
) -> list[bytes]:
    """JPEGs of the old photo as seen from the new one's place, and of the new one, cracks coloured by what became.

    Where they could not be registered, the old photo is shown as it is.
    """
    pictures = [preview(read_picture(folder / "preview.jpg"), SIDE_PX) for folder in folders]
    scales = [picture.shape[1] / side.width_px for picture, side in zip(pictures, sides, strict=True)]
    to_new = registration.old_to_new if not registration.reason else np.eye(3)
    if not registration.reason:
        small = np.diag([scales[1], scales[1], 1.0]) @ to_new @ np.diag([1 / scales[0], 1 / scales[0], 1.0])
        height, width = pictures[1].shape[:2]
        pictures[0] = np.asarray(
            cv2.warpPerspective(pictures[0], small, (width, height), flags=cv2.INTER_LINEAR), np.uint8
        )
        scales[0] = scales[1]
    for change in (one for one in found if one.status in COLOURS):
        gone = change.status == "vanished"
        crack = sides[0 if gone else 1].cracks[change.crack]
        _draw(pictures[0 if gone else 1], crack, to_new if gone else np.eye(3), scales[1], change.status)
    return [encode_picture(picture, QUALITY) for picture in pictures]


def _draw(picture: Pixels, crack: Crack, homography: Any, scale: float, status: str) -> None:
    for line in crack.lines:
        points = moved(homography, line.astype(np.float64)) * scale
        cv2.polylines(picture, [np.rint(points).astype(np.int32)], False, COLOURS[status], 2, cv2.LINE_AA)


def write_compare_page(
    path: Path,
    title: str,
    pairs: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> None:
    """Write the page: changed pairs first, then those that could not be compared, then the unchanged.

    `pairs` have their counts and images, `rows` are the changes, and `about` the totals of compare.json.
    """
    changed = [row for row in rows if row["status"] in ("new", "grown", "vanished")]
    changed.sort(key=lambda row: (-abs(row["length_change_px"]), row["crack"]))
    template = environment().get_template("compare.html.j2")
    page = template.render(
        title=title,
        about=about,
        in_words=in_words,
        unfit=[pair for pair in pairs if pair["scale_problem"]],
        rows=changed[:LISTED],
        num_changed=len(changed),
        pairs=sorted(pairs, key=_first_changed)[:SHOWN_PAIRS],
        colours={status: "#{:02x}{:02x}{:02x}".format(*colour) for status, colour in COLOURS.items()},
    )
    write_bytes(path, page.encode())


def _first_changed(pair: Mapping[str, Any]) -> tuple[int, bool, str]:
    counts = pair["counts"]
    return -(counts["new"] + counts["grown"] + counts["vanished"]), not pair["problem"], pair["new"]
