"""What carries a detector over to concrete that it was never trained on (docs/LOG.md reports it).

Five sources of 224 px blocks: METU tiles and the built-in rendered sample, which always may train; and three that are
judged: `hires` walls and bridges, `uav75` board-marked concrete, `uav-embankment` (folders with images/ and masks/ in
data/source, and there MANIFEST.csv with the group of each photo). A recipe is an augmentation, the sources that train,
and how large a block is seen when it is judged; all train at 112 px. With "one more", a network is trained for each of
the three, and judged on the other two.

The recipe for a source is chosen by what it does on the other two, with networks that saw none of the source that is
then reported: neither training, nor best epoch, nor choice.

    python -m experiments.recipe --seeds 0 1 2      # 10 networks a seed, about 7 min of one free core each

Each finished network is kept, so the command can be interrupted and called again.
"""

import argparse
import csv
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.data.tile import tile
from damcrack.files import new_directory, write_csv
from damcrack.params import read_params, stage_config
from damcrack.storage.source import open_source
from damcrack.train.augment import Appearance, normalise
from damcrack.train.decoded import DecodedSet, decode_set
from damcrack.train.fitting import Lineage, Task, describe, fit
from damcrack.train.networks import replace_head
from damcrack.train.objectives import Supervised
from damcrack.train.weights import load_model
from experiments.real import RUN, once

Floats = npt.NDArray[np.float64]

WORK = Path(".bench/recipe")
GIVEN = Path("data/source")
PARAMS = Path("params/real.yaml")
INIT = Path("experiments/paper/models/distill/dynamic/0")  # made by `make paper CELLS=distill`
TRAINED_PX = 112
JUDGED = ("hires", "uav75", "uav-embankment")
MOST_PER_CLASS = {"metu": 3000, "rendered": 1400, "hires": 400, "uav75": None, "uav-embankment": None}
PER_SOURCE = 1500  # views of a class and source in an epoch
MOST_REPEATS = 5  # of one tile of a small source in it
STEPS, BATCH, LEARNING_RATE = 800, 32, 0.02

BOTH_WAYS: dict[str, Any] = {
    "rotate_deg": 20.0,
    "shift_px": 5.0,
    "scales": (0.59, 2.0),
    "appearance": Appearance(jitter=0.4, grey=0.2, blur=0.5, noise=10.0),
}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "flips": {},  # the paper's
    "crops": BOTH_WAYS | {"scales": (0.59, 1.0)},  # 0.35 to 1 of the area
    "both ways": BOTH_WAYS,  # also from further away: METU's cracks are broad
}


@dataclass(frozen=True)
class Recipe:
    """An augmentation, the sources that always train, how large a block is judged, whether a judged source trains."""

    augmentation: str
    sources: tuple[str, ...]
    judged_px: int
    one_more: bool = False

    def trials(self) -> list[tuple[str, ...]]:
        """The sources of each network."""
        return [(*self.sources, more) for more in JUDGED] if self.one_more else [self.sources]

    def __str__(self) -> str:
        names = [*self.sources, "one more"] if self.one_more else self.sources
        return f"{' + '.join(names)}; {self.augmentation}; {self.judged_px} px"


RECIPES = (
    Recipe("flips", ("metu",), 112),
    Recipe("crops", ("metu",), 112),
    Recipe("both ways", ("metu",), 112),
    Recipe("both ways", ("metu",), 224),
    Recipe("both ways", ("metu", "rendered"), 224),
    Recipe("both ways", ("metu",), 224, one_more=True),
    Recipe("both ways", ("metu", "rendered"), 224, one_more=True),
)


def with_scenes(out: Path) -> None:
    """A copy of one given folder with the groups.csv that keeps a scene on one side of the split."""
    with (GIVEN / "MANIFEST.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith(f"{out.name}/images/")]
    with new_directory(out) as folder:
        for part in ("images", "masks"):
            shutil.copytree(GIVEN / out.name / part, folder / part)
        named = [{"file": row["path"].removeprefix(f"{out.name}/"), "group": row["group"]} for row in rows]
        write_csv(folder / "groups.csv", ("file", "group"), named)


def tiles_of(source: str, **settings: Any) -> Path:
    """Blocks of 224 px of the photos or ready tiles of one source."""
    params = read_params(PARAMS)
    config = stage_config(params, "photos", None)
    known = {**config.sources, "rendered": "sample"}
    place = once(with_scenes, WORK / "source" / source) if source in JUDGED else known[source]
    config = replace(config, sources={source: str(place)}, sample_photos=200)
    listed = once(snapshot, WORK / f"{source}.csv", sources=config.sources, open_source=open_source, run=RUN)
    out = WORK / "photos" / source
    taken = once(photos, out, snapshot=listed, config=config, open_source=open_source, run=RUN)
    how = {"tiles_per_class": None, "test_tiles_per_class": None, "test_sources": (), "test_fraction": 0.0}
    config = replace(stage_config(params, "tile", None), **how | {"val_fraction": 0.15} | settings)
    return once(tile, WORK / "tiles" / source, photos=taken, config=config, run=RUN)


def tiles(source: str) -> Path:
    """The blocks of one source, as many of each class."""
    # uav-embankment is one scene: its own validation blocks say little, and only the best epoch hangs on them.
    how = {"split": "random", "keep_duplicates_together": False} if source == "uav-embankment" else {}
    return tiles_of(source, tiles_per_class=MOST_PER_CLASS[source], **how)


def blocks(source: str, image_px: int = TRAINED_PX) -> DecodedSet:
    """The decoded blocks of one source."""
    return decode_set(tiles(source), image_px, WORK / "decoded")


def joined(sources: Sequence[str]) -> DecodedSet:
    """Blocks of several sources as one set, in which each source has about the same weight in training."""
    pixels, labels, rows_of = [], [], {"train": [], "val": []}
    start = 0
    for part in map(blocks, sources):
        pixels.append(part.images_NHWC)
        labels.append(part.labels_N)
        rows_of["val"].append(start + part.rows_of["val"])
        for label in (0, 1):
            rows = np.random.default_rng(0).permutation(_of_class(part, label))
            rows_of["train"].append(start + np.resize(rows, min(PER_SOURCE, MOST_REPEATS * len(rows))))
        start += len(part.labels_N)
    told = [*(blocks(source).digest for source in sources), str((PER_SOURCE, MOST_REPEATS))]
    places = {split: np.concatenate(rows) for split, rows in rows_of.items()} | {
        "test": np.zeros(0, np.int64)
    }
    digest = hashlib.sha256(" ".join(told).encode()).hexdigest()
    return DecodedSet(np.concatenate(pixels), np.concatenate(labels), places, part.classes, digest)


def _of_class(part: DecodedSet, label: int) -> npt.NDArray[np.int64]:
    rows = part.rows_of["train"]
    return rows[part.labels_N[rows] == label]


def margins(recipe: Recipe, sources: tuple[str, ...], seed: int) -> dict[str, Floats]:
    """Logit of crack minus that of no crack for all blocks of each judged source that did not train."""
    folder = WORK / recipe.augmentation.replace(" ", "-") / "+".join(sources) / str(seed)
    kept = {source: folder / f"{source}-{recipe.judged_px}.npy" for source in JUDGED if source not in sources}
    if not (folder / "model").exists():
        print(f"== {folder}", flush=True)
        _fit(AUGMENTATIONS[recipe.augmentation], sources, seed, folder / "model")
    for source, path in kept.items():
        if not path.exists():
            np.save(path, judge(folder / "model", blocks(source, recipe.judged_px)))
    return {source: np.load(path) for source, path in kept.items()}


def _fit(augmentation: dict[str, Any], sources: tuple[str, ...], seed: int, out: Path) -> None:
    """Fine-tune the distilled ResNet18 for the same number of steps, whatever the number of blocks."""
    images = joined(sources)
    config = stage_config(read_params(PARAMS), "finetune", "resnet18-dynamic")
    epochs = max(1, round(STEPS * BATCH / len(images.rows_of["train"])))
    settings = {"image_px": TRAINED_PX, "batch_size": BATCH, "epochs": epochs, "seed": seed}
    config = replace(config, **settings | {"learning_rate": LEARNING_RATE} | augmentation)
    network, init = load_model(INIT)
    replace_head(network, 2, config.seed)
    info = describe("+".join(sources), "resnet18", images, config, Lineage(init.weights_sha256, None))
    fit(Task(network, Supervised(), info), images, config, out, RUN)


@torch.no_grad()
def judge(model: Path, part: DecodedSet) -> Floats:
    """Margins (N,) of all blocks of a source."""
    network, info = load_model(model)
    network.eval().to(memory_format=torch.channels_last)
    mean, std = torch.tensor(info.mean), torch.tensor(info.std)
    answers = []
    for rows in np.array_split(np.arange(len(part.labels_N)), max(1, len(part.labels_N) // 64)):
        pixels = torch.from_numpy(part.images_NHWC[rows]).permute(0, 3, 1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(normalise(pixels, mean, std)).float()
        answers.append((logits[:, 1] - logits[:, 0]).numpy())
    return np.concatenate(answers).astype(np.float64)


@dataclass(frozen=True)
class Score:
    """What one network did on one judged source."""

    recipe: Recipe
    seed: int
    trained_on: tuple[str, ...]
    source: str
    accuracy: float
    auroc: float


def scores(seed: int) -> list[Score]:
    """All networks of a seed on all sources that they may be judged on; trained if need be."""
    found = []
    for recipe in RECIPES:
        for sources in recipe.trials():
            for source, margin in margins(recipe, sources, seed).items():
                label = blocks(source).labels_N
                right = float(((margin > 0) == label).mean())
                auroc = float(roc_auc_score(label, margin))
                found.append(Score(recipe, seed, sources, source, right, auroc))
    return found


def chosen(found: Sequence[Score], reported: str) -> Recipe:
    """The recipe with the best mean AUROC on the other judged sources, by networks that never saw `reported`."""
    others = [one for one in found if one.source != reported and reported not in one.trained_on]
    return max(RECIPES, key=lambda recipe: np.mean([one.auroc for one in others if one.recipe == recipe]))


def table(found: Sequence[Score]) -> str:
    """Markdown: AUROC and accuracy in percent by recipe and judged source, over the networks that may judge."""
    lines = ["| recipe | " + " | ".join(JUDGED) + " |", "| --- |" + " ---: |" * len(JUDGED)]
    for recipe in RECIPES:
        of = {
            source: [one for one in found if (one.recipe, one.source) == (recipe, source)]
            for source in JUDGED
        }
        lines.append(f"| {recipe} | {' | '.join(map(_cell, of.values()))} |")
    return "\n".join(lines)


def _cell(found: Sequence[Score]) -> str:
    """Mean AUROC, its standard deviation over seeds if there are several, and mean accuracy; percent."""
    seeds = sorted({one.seed for one in found})
    auroc_S = [np.mean([one.auroc for one in found if one.seed == seed]) for seed in seeds]
    spread = f" ± {100 * np.std(auroc_S, ddof=1):.1f}" if len(seeds) > 1 else ""
    return f"{100 * np.mean(auroc_S):.1f}{spread} ({100 * np.mean([one.accuracy for one in found]):.1f})"


def main() -> None:
    """Train what is missing, print the table and the choice for each source."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    found = [one for seed in parser.parse_args().seeds for one in scores(seed)]
    print(table(found))
    for source in JUDGED:
        print(f"{source}: chosen without it: {chosen(found, source)}")


if __name__ == "__main__":
    main()
