"""Blocks that the network is unsure of, for an engineer to sort; sorted ones become labelled tiles.

OUT/review/unsorted/NAME.jpg    blocks in the uncertain band, the most uncertain first by name
OUT/review/crack, no-crack/     where the engineer moves them
OUT/review/blocks.csv           which photo and place each is of
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.data.encode import encode_tile
from damcrack.data.layouts import GROUPS_FILE
from damcrack.files import InputError, new_directory, read_csv, write_bytes, write_csv
from damcrack.inspection.findings import Block, Findings, Pixels

COLUMNS = ("file", "photo", "sha256", "x0_px", "y0_px", "x1_px", "y1_px", "crack_prob")
UNSORTED = "unsorted"
OUR_NAME = re.compile(r"(\d\.\d{3}-[0-9a-f]{12}-\d{5}-\d{5}\.jpg)|(\..*\.jpg\.part)")
# The engineer's folder: the folder of ready tiles that the photos stage takes in.
SORTED = {"crack": "Positive", "no-crack": "Negative"}
QUALITY = 95


def uncertain_blocks(findings: Findings) -> dict[str, Block]:
    """Blocks of one photo in the uncertain band, by file name; the most uncertain sort first."""
    low, high = findings.uncertain
    found = [block for block in findings.blocks if low <= block.crack_prob <= high]
    digest = findings.sha256[:12]
    return {f"{abs(b.crack_prob - 0.5):.3f}-{digest}-{b.x0:05d}-{b.y0:05d}.jpg": b for b in found}


def block_files(rgb: Pixels, findings: Findings) -> dict[str, bytes]:
    """JPEGs by name of the uncertain blocks of one photo (H, W, 3)."""
    return {
        name: encode_tile(np.ascontiguousarray(rgb[b.y0 : b.y1, b.x0 : b.x1]), QUALITY)
        for name, b in uncertain_blocks(findings).items()
    }


def write_review(root: Path, new: Path, folders: Sequence[Path]) -> int:
    """Lay the blocks of all photos out to be sorted, their table in `new`; what was sorted before stays where it is.

    Returns how many are unsorted.
    """
    review = root / "review"
    for name in (UNSORTED, *SORTED):
        (review / name).mkdir(parents=True, exist_ok=True)
    done = {path.name for name in SORTED for path in (review / name).glob("*.jpg")}
    rows, unsorted = list[dict[str, Any]](), set[str]()
    for folder in folders:
        findings = Findings.read(folder)
        for name, block in uncertain_blocks(findings).items():
            values = (name, findings.photo, findings.sha256, *block)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
            if name not in done:
                unsorted.add(name)
                write_bytes(review / UNSORTED / name, (folder / "review" / name).read_bytes())
    for path in (review / UNSORTED).iterdir():
        if OUR_NAME.fullmatch(path.name) and path.name not in unsorted:
            path.unlink()
    (new / "review").mkdir()
    write_csv(new / "review" / "blocks.csv", COLUMNS, sorted(rows, key=lambda row: str(row["file"])))
    return len(unsorted)


def take_back(root: Path, out: Path) -> dict[str, object]:
    """Make a source of ready tiles from the sorted blocks of a survey: OUT/Positive, OUT/Negative, OUT/groups.csv.

    Blocks of one photo form one group, so that they stay on one side of a split.

    Raises:
        InputError: there is no review folder, nothing is sorted, or a block lies in both folders.
    """
    review = root / "review"
    if not (review / "blocks.csv").is_file():
        raise InputError(f"{review} is no review folder; give the folder that `damcrack inspect` wrote")
    photo_of = {row["file"]: row["sha256"] for row in read_csv(review / "blocks.csv")}
    sorted_names = {name: sorted(path.name for path in (review / name).glob("*.jpg")) for name in SORTED}
    twice = set(sorted_names["crack"]) & set(sorted_names["no-crack"])
    if twice:
        raise InputError(f"{min(twice)} lies in crack and in no-crack, expected one; remove one copy")
    if not any(sorted_names.values()):
        raise InputError(
            f"nothing is sorted yet; move blocks from {review / UNSORTED} to crack or no-crack beside it"
        )
    groups = []
    with new_directory(out, "labelled-blocks") as folder:
        for name, label in SORTED.items():
            (folder / label).mkdir()
            for file in sorted_names[name]:
                shutil.copyfile(review / name / file, folder / label / file)
                groups.append({"file": f"{label}/{file}", "group": photo_of.get(file, file)[:12]})
        write_csv(folder / GROUPS_FILE, ("file", "group"), groups)
    return {
        "taken": f"{len(sorted_names['crack'])} crack, {len(sorted_names['no-crack'])} no-crack blocks",
        "still unsorted": len(list((review / UNSORTED).glob("*.jpg"))),
        "train on them": f"add `review: {out}` to photos.sources in params.yaml, then `damcrack snapshot photos`",
    }
