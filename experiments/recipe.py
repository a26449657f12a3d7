"""Which augmentation carries a detector over to concrete that it was never trained on (docs/LOG.md reports it).

Four sources of 224 px blocks: METU tiles, `hires` walls and bridges, `uav75` board-marked concrete, `uav-embankment`
(folders under data/source, as for experiments.walls). For every pair of sources, networks are trained on the other
two with each recipe and judged on the pair: what a source got then chooses the recipe for another one, so that the
source that is reported takes no part in the choice.

    python -m experiments.recipe       # 6 pairs x 5 recipes, about 150 s of one core each

Each finished network is kept, so the command can be interrupted and called again.
"""

import argparse
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from damcrack.edges.params import read_params, stage_config
from damcrack.engine.augment import Appearance, normalise
from damcrack.engine.decoded import DecodedSet, decode_set
from damcrack.engine.networks import replace_head
from damcrack.engine.objectives import Supervised
from damcrack.engine.weights import load_model
from damcrack.stages.fitting import Lineage, Task, describe, fit
from experiments.real import RUN
from experiments.walls import INIT, PARAMS, tiles_of

Floats = npt.NDArray[np.float64]

WORK = Path(".bench/recipe")
SOURCES = ("metu", "hires", "uav75", "uav-embankment")
IMAGE_PX = 112
TRAIN_PER_CLASS, TEST_PER_CLASS = 150, 400
STEPS, BATCH = 300, 32

LOOK = Appearance(jitter=0.4, grey=0.2, blur=0.5, noise=10.0)
PLACE = {"rotate_deg": 20.0, "shift_px": 5.0}
CLOSER, BOTH_WAYS = (0.59, 1.0), (0.59, 1.7)  # 0.59 of the side is 0.35 of the area
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "appearance": {"appearance": LOOK},
    "geometry": {**PLACE, "scales": CLOSER},
    "strong": {**PLACE, "scales": CLOSER, "appearance": LOOK},
    "strong, both ways": {**PLACE, "scales": BOTH_WAYS, "appearance": LOOK},
}


@dataclass(frozen=True)
class Trial:
    """A network trained on some sources with a recipe."""

    sources: tuple[str, ...]
    recipe: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return (
            WORK / "+".join(self.sources) / self.recipe.replace(", ", "-").replace(" ", "-") / str(self.seed)
        )


def tiles(source: str) -> Path:
    """The blocks of one source, as many of each class."""
    most = {"metu": TEST_PER_CLASS, "hires": TEST_PER_CLASS}.get(source)
    # uav-embankment is one scene: its own validation blocks say little, and only the best epoch hangs on them.
    how = {"split": "random", "keep_duplicates_together": False} if source == "uav-embankment" else {}
    return tiles_of(f"recipe-{source}", [source], tiles_per_class=most, **how)


def blocks(source: str) -> DecodedSet:
    """The decoded blocks of one source."""
    return decode_set(tiles(source), IMAGE_PX, WORK / "decoded")


def joined(sources: Sequence[str], per_class: int) -> DecodedSet:
    """Blocks of several sources as one set, at most so many a class and source for training, a third for validation."""
    pixels, labels, rows_of, digests = [], [], {"train": [], "val": []}, []
    start = 0
    for source in sources:
        part = blocks(source)
        for split, most in (("train", per_class), ("val", per_class // 3)):
            rows = np.concatenate([_of_class(part, split, label)[:most] for label in (0, 1)])
            rows_of[split].append(np.arange(start, start + len(rows)))
            pixels.append(part.images_NHWC[rows])
            labels.append(part.labels_N[rows])
            start += len(rows)
        digests.append(part.digest)
    digest = hashlib.sha256(" ".join([*digests, str(per_class)]).encode()).hexdigest()
    places = {split: np.concatenate(rows) for split, rows in rows_of.items()} | {
        "test": np.zeros(0, np.int64)
    }
    return DecodedSet(np.concatenate(pixels), np.concatenate(labels), places, part.classes, digest)


def _of_class(part: DecodedSet, split: str, label: int) -> npt.NDArray[np.int64]:
    rows = part.rows_of[split]
    return np.random.default_rng(0).permutation(rows[part.labels_N[rows] == label])


def margins(trial: Trial) -> dict[str, Floats]:
    """Logit of crack minus that of no crack for all blocks of each source that did not train; trained if need be."""
    others = [source for source in SOURCES if source not in trial.sources]
    kept = {source: trial.folder / f"{source}.npy" for source in others}
    if not all(path.exists() for path in kept.values()):
        print(f"== {trial.folder}", flush=True)
        if not (trial.folder / "model").exists():
            fit_trial(trial)
        for source, path in kept.items():
            np.save(path, judge(trial.folder / "model", blocks(source)))
    return {source: np.load(path) for source, path in kept.items()}


def fit_trial(trial: Trial) -> None:
    """Fine-tune the distilled ResNet18 for the same number of steps, whatever the number of blocks."""
    alone = len(trial.sources) == 1
    images = joined(trial.sources, TRAIN_PER_CLASS * (3 if alone else 1))
    config = stage_config(read_params(PARAMS), "finetune", "resnet18-dynamic")
    epochs = round(STEPS * BATCH / len(images.rows_of["train"]))
    settings = {"image_px": IMAGE_PX, "batch_size": BATCH, "epochs": epochs, "seed": trial.seed}
    config = replace(config, **settings | {"learning_rate": 0.02} | RECIPES[trial.recipe])
    network, init = load_model(INIT)
    replace_head(network, 2, config.seed)
    info = describe(trial.recipe, "resnet18", images, config, Lineage(init.weights_sha256, None))
    fit(Task(network, Supervised(), info), images, config, trial.folder / "model", RUN)


@torch.no_grad()
def judge(model: Path, part: DecodedSet) -> Floats:
    """Margins (N,) of all blocks of a source."""
    network, info = load_model(model)
    network.eval().to(memory_format=torch.channels_last)
    mean, std = torch.tensor(info.mean), torch.tensor(info.std)
    answers = []
    for rows in np.array_split(np.arange(len(part.labels_N)), max(1, len(part.labels_N) // 64)):
        pixels = torch.from_numpy(part.images_NHWC[rows]).permute(0, 3, 1, 2)
        logits = network(normalise(pixels, mean, std))
        answers.append((logits[:, 1] - logits[:, 0]).numpy())
    return np.concatenate(answers).astype(np.float64)


def table(trials: Sequence[Trial]) -> str:
    """Markdown: mean accuracy and AUROC in percent by recipe and judged source, and how many networks."""
    lines = ["| recipe | judged on | n | accuracy | AUROC |", "| --- | --- | ---: | ---: | ---: |"]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for trial in trials:
        for source, margin in margins(trial).items():
            label = blocks(source).labels_N
            score = float(((margin > 0) == label).mean()), float(roc_auc_score(label, margin))
            found.setdefault((trial.recipe, source), []).append(score)
    for (recipe, source), scores in found.items():
        accuracy, auroc = np.mean(scores, axis=0)
        lines.append(f"| {recipe} | {source} | {len(scores)} | {accuracy:.1%} | {auroc:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    pairs = itertools.combinations(SOURCES, 2)
    print(table([Trial(pair, recipe, 0) for recipe, pair in itertools.product(RECIPES, pairs)]))


if __name__ == "__main__":
    main()
