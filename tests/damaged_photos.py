"""Photos with random damage, inspected as one survey: none crashes it, all are accounted for, memory stays bounded.

    python tests/damaged_photos.py NUM SEED

Damage: flipped, replaced, zeroed, dropped and doubled bytes, cuts, headers that promise other sizes; in JPEG, PNG,
TIFF, WebP, BMP, JPEG 2000 and AVIF of a drawn wall.
"""

import io
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from damcrack.files import read_csv
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.run import Run
from damcrack.sample.concrete import render_photo
from damcrack.storage.source import open_source
from walls import write_darkness_detector

KINDS: dict[str, list[dict[str, object]]] = {
    "JPEG": [{"quality": 90}, {"quality": 80, "progressive": True}, {"restart_marker_rows": 1}],
    "PNG": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "jpeg"}],
    "WEBP": [{"quality": 80}, {"lossless": True}],
    "BMP": [{}],
    "JPEG2000": [{}],
    "AVIF": [{"speed": 10}],
}


def originals() -> list[bytes]:
    """One wall in every format, with EXIF where there is room for it."""
    wall = Image.fromarray(render_photo(1, 0, (300, 400)).rgb)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 35
    files = []
    for kind, ways in KINDS.items():
        for options in ways:
            for image in (
                wall,
                wall.convert("L"),
                wall.convert("RGBA") if kind not in ("JPEG", "BMP") else wall,
            ):
                file = io.BytesIO()
                own = {} if kind in ("BMP", "JPEG2000") else {"exif": exif}
                try:
                    image.save(file, kind, **options, **own)
                except (OSError, ValueError):  # not in every mode
                    continue
                files.append(file.getvalue())
    return files


def damaged(original: bytes, rng: random.Random) -> bytes:
    """The file with one to four kinds of damage."""
    content = bytearray(original)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(content), rng.choice((64, 600, len(content)))))
        size = min(rng.choice((1, 4, 64, 2000, len(content) // 3)), len(content) - at - 1)
        what = rng.choice(("flip", "random", "zero", "drop", "double", "cut", "large"))
        if what == "flip":
            content[at] ^= 1 << rng.randrange(8)
        elif what == "random":
            content[at : at + size] = rng.randbytes(size)
        elif what == "zero":
            content[at : at + size] = bytes(size)
        elif what == "drop":
            del content[at : at + size]
        elif what == "double":
            content[at:at] = content[at : at + size]
        elif what == "cut":
            del content[max(at, 16) :]
        elif at + 4 <= len(content):
            struct.pack_into(rng.choice("<>") + "HH", content, at, 20000, 20000)
        if len(content) < 16:
            break
    return bytes(content)


@dataclass(frozen=True)
class Inspected:
    """What became of damaged photos: names that are nowhere, reasons of those that were set aside."""

    num_inspected: int
    lost: Sequence[str]
    reasons: Sequence[str]
    peak_mib: float


def inspect_damaged(num: int, seed: int, root: Path) -> Inspected:
    """Write photos of which all but one are damaged, and inspect them."""
    rng, files = random.Random(seed), originals()
    (root / "in").mkdir()
    for number in range(num):
        suffix = rng.choice((".jpg", ".png", ".tif", ".webp", ""))
        (root / "in" / f"{number:05d}{suffix}").write_bytes(damaged(rng.choice(files), rng))
    (root / "in" / "whole.jpg").write_bytes(files[0])
    model = write_darkness_detector(root / "model.onnx")
    inspect_photos([str(root / "in")], model, root / "out", InspectConfig(), open_source, Run())
    inspected = {row["photo"].split("@")[0] for row in read_csv(root / "out" / "photos.csv")}
    reasons = {row["file"]: row["reason"] for row in read_csv(root / "out" / "set-aside.csv")}
    names = {path.name for path in (root / "in").iterdir()}
    lost = sorted(names - inspected - reasons.keys())
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Inspected(len(inspected), lost, list(reasons.values()), peak_mib)


def main() -> None:
    """Print what became of the photos."""
    num, seed, started = int(sys.argv[1]), int(sys.argv[2]), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = inspect_damaged(num, seed, Path(folder))
    seconds = time.monotonic() - started
    print(
        f"{num + 1} files, {found.num_inspected} inspected, {len(found.reasons)} set aside, {len(found.lost)} lost"
    )
    print(f"{seconds:.0f} s, peak {found.peak_mib:.0f} MiB")
    for reason, count in Counter(" ".join(one.split()[:4]) for one in found.reasons).most_common(20):
        print(f"{count:6d} {reason}")
    assert not found.lost and found.peak_mib < 1024, found.lost[:5]


if __name__ == "__main__":
    main()
