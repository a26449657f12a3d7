"""How much a random split leaks: near-duplicates of known tiles are injected and followed through the tile stage.

Reads a folder of ready tiles (Positive/, Negative/). For a share of them a second version is made as cameras and
data sets make them: shifted by two pixels, five grey values brighter, JPEG quality 60. Then tiles are split at
random with and without `keep_duplicates_together`, and pairs across the split are counted.

    python -m experiments.leak data/source/metu-tiles --seeds 3
"""

import argparse
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from damcrack.data.duplicates import duplicate_groups, fingerprints, row_averages
from damcrack.data.imageset import ImageSet
from damcrack.data.photo import decode_photo
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.data.tile import tile
from damcrack.params import read_params, stage_config
from damcrack.run import SilentRun
from damcrack.storage.source import open_source

WORK = Path(".bench/leak")
NUM_PER_CLASS, COPIES_PER_CLASS = 400, 200
RUN = SilentRun(WORK / "scratch")


def near_duplicate(encoded: bytes) -> bytes:
    """A second shot of the same tile: two pixels aside, a little brighter, compressed harder."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    moved = cv2.warpAffine(image, np.float32([[1, 0, 2], [0, 1, 0]]), image.shape[1::-1], borderMode=4)
    return cv2.imencode(".jpg", cv2.add(moved, (5, 5, 5, 0)), [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()


def write_source(tiles: Path, folder: Path) -> None:
    """Copy evenly spread tiles of both classes; every second one gets a near-duplicate, numbered far away."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("Positive", "Negative"):
        files = sorted((tiles / name).glob("*.jpg"))
        (folder / name).mkdir(parents=True)
        for number in range(NUM_PER_CLASS):
            encoded = files[number * len(files) // NUM_PER_CLASS].read_bytes()
            (folder / name / f"{number:05d}.jpg").write_bytes(encoded)
            if number < COPIES_PER_CLASS:
                (folder / name / f"{90_000 + number}.jpg").write_bytes(near_duplicate(encoded))


def twins(images: ImageSet) -> list[tuple[int, int]]:
    """Row numbers of each tile and its injected near-duplicate."""
    rows_of: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, row in enumerate(images.rows):
        rows_of[Path(row["photo"]).parent.name, int(Path(row["photo"]).stem) % 90_000].append(number)
    return [(rows[0], rows[1]) for rows in rows_of.values() if len(rows) == 2]


def across_the_split(images: ImageSet) -> tuple[int, int]:
    """Injected pairs in the set, and those with one tile to train on and one to validate on."""
    pairs = twins(images)
    splits = [row["split"] for row in images.rows]
    return len(pairs), sum(splits[one] != splits[other] for one, other in pairs)


def recall_table(folder: Path) -> str:
    """Share of injected pairs that the search joins, and groups that it sees among the originals, by bits."""
    files = sorted(folder.glob("*/*.jpg"))
    hashes, thumbnails = fingerprints(
        [row_averages(decode_photo(file.read_bytes(), 2**20)) for file in files]
    )
    place = {(f.parent.name, int(f.stem)): number for number, f in enumerate(files)}
    pairs = [(place[name, n - 90_000], at) for (name, n), at in place.items() if n >= 90_000]
    originals = [at for (_, n), at in place.items() if n < 90_000]
    lines = ["| duplicate_bits | injected pairs found | groups among originals |", "| --- | --- | --- |"]
    for bits in (4, 8, 12):
        groups = duplicate_groups(hashes, thumbnails, bits)
        found = sum(groups[one] == groups[other] for one, other in pairs)
        seen = np.bincount(duplicate_groups(hashes[originals], thumbnails[originals], bits))
        lines.append(f"| {bits} | {found} of {len(pairs)} | {np.count_nonzero(seen > 1)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    params = read_params(Path("params/real.yaml"))
    write_source(options.tiles, WORK / "source")
    print(recall_table(WORK / "source"), end="\n\n")
    sources = {"tiles": str(WORK / "source")}
    snapshot(sources, WORK / "snapshot.csv", open_source, RUN)
    config = replace(stage_config(params, "photos", None), sources=sources, ready_tile_block=1)
    photos(WORK / "snapshot.csv", WORK / "photos", config, open_source, RUN)
    print("| split at random, seed | pairs across it, duplicates anywhere | pairs across it, kept together |")
    print("| --- | --- | --- |")
    for seed in range(options.seeds):
        cells = []
        for together in (False, True):
            how = {"test_sources": (), "test_fraction": 0.0, "tiles_per_class": None, "split": "random"}
            base = replace(stage_config(params, "tile", None), seed=seed, **how)
            out = WORK / f"tiles-{seed}-{together}"
            tile(WORK / "photos", out, replace(base, keep_duplicates_together=together), RUN)
            num_pairs, num_across = across_the_split(ImageSet.open(out))
            cells.append(f"{num_across} of {num_pairs}")
        print(f"| {seed} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
