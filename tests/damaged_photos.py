"""Photos with random damage, inspected as one survey: none crashes it, all are accounted for, memory stays bounded.

    python -m experiments.mutated_photos --num 1400 [--model MODEL] [--seed 0]

Damage: flipped, replaced, zeroed, dropped and doubled bytes, cuts, headers that promise other sizes; in JPEG, PNG,
TIFF, WebP, BMP, JPEG 2000 and AVIF of a drawn wall.
"""

import argparse
import io
import random
import resource
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from damcrack.files import read_csv
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.run import SilentRun
from damcrack.sample.concrete import render_photo
from damcrack.storage.source import open_source

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


def main() -> None:
    """Write the photos, inspect them, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    rng, files = random.Random(arguments.seed), originals()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        for number in range(arguments.num):
            suffix = rng.choice((".jpg", ".png", ".tif", ".webp", ""))
            (root / "in" / f"{number:05d}{suffix}").write_bytes(damaged(rng.choice(files), rng))
        (root / "in" / "whole.jpg").write_bytes(files[0])
        started, config = time.monotonic(), InspectConfig()
        inspect_photos([str(root / "in")], arguments.model, root / "out", config, open_source, SilentRun())
        names = {path.name for path in (root / "in").iterdir()}
        inspected = {row["photo"].split("@")[0] for row in read_csv(root / "out" / "photos.csv")}
        reasons = {row["file"]: row["reason"] for row in read_csv(root / "out" / "set-aside.csv")}
    lost = names - inspected - reasons.keys()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(names)} files, {len(inspected)} inspected, {len(reasons)} set aside, {len(lost)} lost")
    print(f"{time.monotonic() - started:.0f} s, peak {peak_mib:.0f} MiB")
    for reason, count in Counter(" ".join(one.split()[:4]) for one in reasons.values()).most_common(20):
        print(f"{count:6d} {reason}")
    assert not lost, sorted(lost)[:5]
    assert np.isfinite(peak_mib) and peak_mib < 1024


if __name__ == "__main__":
    main()
