"""Tiling by `tile` alone, and by one or several shards that are then put together, in turn on this machine.

    python -m benchmarks.tile_shards --photos data/photos --shards 1 4

Every way ends with the same bytes, which is checked. "longest shard" and "together" are what a cluster waits for
if each shard has a machine like this one; "sum" is what one machine pays.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from damcrack.edges.params import read_params, stage_config
from damcrack.outputs import sha256_file
from damcrack.stages.run import SilentRun
from damcrack.stages.tile import tile, tile_shard
from damcrack.stages.tile_shards import Share


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(photos: Path, params: Path, counts: list[int], rounds: int) -> None:
    """Print a table of medians, as shares of the time of `tile` alone in the same round."""
    config, run = stage_config(read_params(params), "tile", None), SilentRun()
    rows: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for _ in range(rounds):
            alone = seconds(partial(tile, photos, root / "alone", config, run))
            for count in counts:
                shards = root / f"shards-{count}"
                cut = [
                    seconds(partial(tile_shard, photos, shards / str(k), config, Share(k, count), run))
                    for k in range(count)
                ]
                joined = seconds(partial(tile, photos, root / "joined", config, run, shards=shards))
                assert sha256_file(root / "joined/tiles.csv") == sha256_file(root / "alone/tiles.csv")
                rows[count].append(((max(cut) + joined) / alone, (sum(cut) + joined) / alone))
    print("| shards | longest shard + putting together | sum |\n| --- | --- | --- |\n| none | 1.00 | 1.00 |")
    for count, found in rows.items():
        wait, total = (median(values) for values in zip(*found, strict=True))
        print(f"| {count} | {wait:.2f} | {total:.2f} |")


if __name__ == "__main__":
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--photos", type=Path, default=Path("data/photos"))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    main(options.photos, options.params, options.shards, options.rounds)
