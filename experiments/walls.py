"""The case study on photographs of real concrete: a detector from photos with masks, judged on others.

Reads the folders hires, uav75 and uav-embankment (images/, masks/) under data/source: walls, bridges and embankments,
no named dam; and data/source/MANIFEST.csv (path, group), which tells the photos of one scene. Whole scenes are set
aside first; no training stage and no choice sees them. Writes docs/inspection.md.
Each finished output is kept, so the command can be interrupted and called again.

    python -m experiments.walls
"""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from damcrack.edges.params import read_params, stage_config
from damcrack.edges.storage import open_source
from damcrack.outputs import new_directory, write_csv
from damcrack.stages.export import export
from damcrack.stages.finetune import finetune
from damcrack.stages.intake.snapshot import snapshot
from damcrack.stages.photos import photos
from damcrack.stages.tile import tile
from experiments.real import RUN, once

WORK = Path(".bench/walls")
GIVEN = Path("data/source")
WALLS = ("hires", "uav75", "uav-embankment")
PARAMS = Path("params/real.yaml")
INIT = Path("experiments/paper/models/distill/dynamic/0")  # made by `make paper CELLS=distill`


def with_scenes(out: Path) -> None:
    """A copy of one given folder with the groups.csv that keeps a scene on one side of the split."""
    with (GIVEN / "MANIFEST.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith(f"{out.name}/images/")]
    with new_directory(out) as folder:
        for part in ("images", "masks"):
            shutil.copytree(GIVEN / out.name / part, folder / part)
        named = [{"file": row["path"].removeprefix(f"{out.name}/"), "group": row["group"]} for row in rows]
        write_csv(folder / "groups.csv", ("file", "group"), named)


def tiles_of(name: str, sources: Sequence[str], **settings: Any) -> Path:
    """Blocks of 224 px of the photos or ready tiles of some sources."""
    params = read_params(PARAMS)
    config = stage_config(params, "photos", None)
    given = {one: once(with_scenes, WORK / "source" / one) for one in WALLS if one in sources}
    config = replace(config, sources={one: str(given.get(one, config.sources[one])) for one in sources})
    listed = once(snapshot, WORK / f"{name}.csv", sources=config.sources, open_source=open_source, run=RUN)
    taken = once(
        photos, WORK / "photos" / name, snapshot=listed, config=config, open_source=open_source, run=RUN
    )
    how = {"tiles_per_class": None, "test_tiles_per_class": None, "test_sources": (), "test_fraction": 0.0}
    config = replace(stage_config(params, "tile", None), **how | {"val_fraction": 0.15} | settings)
    return once(tile, WORK / "tiles" / name, photos=taken, config=config, run=RUN)


def trained(name: str, tiles: Path, init: Path, **settings: Any) -> Path:
    """A ResNet18 that sees blocks at their full 224 px."""
    config = stage_config(read_params(PARAMS), "finetune", "resnet18-dynamic")
    config = replace(config, image_px=224, batch_size=32, learning_rate=0.02, **settings)
    out = WORK / "models/finetune" / name
    return once(finetune, out, tiles=tiles, item=name, config=config, run=RUN, init=init)


def main() -> None:
    """Run what is missing."""
    # Cracks fill METU's tiles, so a network learns from them what a crack is before it looks for hairlines.
    close = trained("close", tiles_of("metu", ["metu"]), INIT, epochs=3, labelled_tiles=3000)
    walls = tiles_of("walls", WALLS, test_sources=("uav-embankment",), test_fraction=0.4)
    model = trained("walls", walls, close, epochs=14)
    config = stage_config(read_params(PARAMS), "export", None)
    once(export, WORK / "export", model=model, tiles=walls, config=config, run=RUN)


if __name__ == "__main__":
    main()
