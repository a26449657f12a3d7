"""The graph on real photographs, for several seeds and splits (docs/LOG.md reports it).

Reads params/real.yaml and the folders that it names: natural (class folders), metu-tiles (Positive/ and
Negative/), hires, uav75 and uav-embankment (images/, masks/). Calls the same stage functions as `dvc repro`. Each
finished output is kept, so the command can be interrupted and called again.

    python -m experiments.real --seeds 3
"""

import argparse
import csv
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from damcrack.data.miniimagenet import miniimagenet
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.data.tile import tile
from damcrack.evaluate.evaluate import evaluate
from damcrack.params import read_params, stage_config
from damcrack.run import SilentRun
from damcrack.storage.source import open_source
from damcrack.train.distill import distill
from damcrack.train.finetune import finetune
from damcrack.train.pretrain import pretrain

WORK = Path(".bench/real")
# name: which sources train, and how they are split; the others of params/real.yaml test only.
SPLITS: dict[str, dict[str, Any]] = {
    "metu": {"split": "photo", "test_sources": ["hires", "uav75", "uav-embankment"]},
    "photo": {"split": "photo", "sources": ["hires", "uav75"], "test_sources": [], "test_fraction": 0.0},
    "random": {"split": "random", "sources": ["hires", "uav75"], "test_sources": [], "test_fraction": 0.0},
}
EXPERIMENTS = (
    "resnet18-scratch",
    "resnet18-pretrained",
    "resnet50-pretrained",
    "resnet18-fixed",
    "resnet18-dynamic",
)


class SpokenRun(SilentRun):
    """Shows what the stages say, records nothing."""

    def say(self, line: str) -> None:
        """Print at once."""
        print(line, flush=True)


RUN = SpokenRun(WORK / "scratch")


def once(stage: Callable[..., object], out: Path, **arguments: Any) -> Path:
    """Call a stage unless its output is there."""
    if not out.exists():
        print(f"== {out}", flush=True)
        stage(out=out, **arguments)
    return out


def pretraining(params: dict[str, Any]) -> None:
    """Natural images: teacher, student, and the student under the teacher at fixed and learned temperature."""
    config = stage_config(params, "miniimagenet", None)
    listed = once(snapshot, WORK / "natural.csv", sources=config.sources, open_source=open_source, run=RUN)
    images = once(
        miniimagenet,
        WORK / "miniimagenet",
        snapshot=listed,
        config=config,
        open_source=open_source,
        run=RUN,
    )
    for item in ("resnet18", "resnet50"):
        settings = stage_config(params, "pretrain", item)
        once(pretrain, WORK / "models/pretrain" / item, images=images, item=item, config=settings, run=RUN)
    given = {"images": images, "teacher": WORK / "models/pretrain/resnet50", "run": RUN}
    for item in ("fixed", "dynamic"):
        settings = stage_config(params, "distill", item)
        once(distill, WORK / "models/distill" / item, item=item, config=settings, **given)


def tiles_of(params: dict[str, Any], name: str) -> Path:
    """Photos and tiles of one split."""
    how = dict(SPLITS[name])
    config = stage_config(params, "photos", None)
    wanted = how.pop("sources", list(config.sources))
    config = replace(config, sources={source: config.sources[source] for source in wanted})
    key = "-".join(sorted(wanted))
    listed = once(snapshot, WORK / f"{key}.csv", sources=config.sources, open_source=open_source, run=RUN)
    taken = once(
        photos, WORK / "photos" / key, snapshot=listed, config=config, open_source=open_source, run=RUN
    )
    settings = replace(stage_config(params, "tile", None), **how)
    return once(tile, WORK / "tiles" / name, photos=taken, config=settings, run=RUN)


def crack_stage(params: dict[str, Any], name: str, seed: int) -> Path:
    """All crack experiments of one split and seed, and their evaluation."""
    tiles = tiles_of(params, name)
    models = WORK / "crack" / name / str(seed)
    for item in EXPERIMENTS:
        config = replace(stage_config(params, "finetune", item), seed=seed)
        folder = "distill" if config.init in ("fixed", "dynamic") else "pretrain"
        init = WORK / "models" / folder / config.init if config.init else None
        once(finetune, models / "finetune" / item, tiles=tiles, item=item, config=config, run=RUN, init=init)
    settings = stage_config(params, "evaluate", None)
    return once(evaluate, models / "evaluate", tiles=tiles, models=models, config=settings, run=RUN)


def table(title: str, value: Callable[[dict[str, Any]], dict[str, Any]], folders: list[Path]) -> str:
    """Markdown: mean and deviation over the seeds, in percent, one row per experiment."""
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    columns = list(value(metrics[0]["experiments"][EXPERIMENTS[0]]))
    lines = [f"| {title} | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for experiment in EXPERIMENTS:
        rows = [value(one["experiments"][experiment]) for one in metrics]
        cells = [_mean_and_deviation([row[column] for row in rows]) for column in columns]
        lines.append(f"| {experiment} | {' | '.join(cells)} |")
    for name, row in metrics[0]["baselines"].items():  # these have no seed
        cells = [_mean_and_deviation([number]) for number in value(row).values()]
        lines.append(f"| {name} (no network) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_and_deviation(values: list[Any]) -> str:
    if len(values) == 1:
        return "-" if values[0] is None else f"{100 * values[0]:.2f}"
    return f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f}"


def by_source(row: dict[str, Any]) -> dict[str, float]:
    """Accuracy on each test source."""
    return {source: numbers["accuracy"] for source, numbers in row["by_source"].items()}


def overall(row: dict[str, Any]) -> dict[str, Any]:
    """What one split says of an experiment."""
    return {name: row.get(name) for name in ("accuracy", "recall", "f1", "auroc", "train_val_gap")}


def pretraining_table() -> str:
    """Last epoch of the four networks on the natural images."""
    lines = ["| pretraining | best epoch | train | validation, best | validation, last | gap | T, last |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for folder in sorted((WORK / "models").glob("*/*")):
        rows = list(csv.DictReader((folder / "history.csv").open()))
        best = max(rows, key=lambda row: float(row["val_accuracy"]))
        train, last = float(rows[-1]["train_accuracy"]), float(rows[-1]["val_accuracy"])
        lines.append(
            f"| {folder.name} | {best['epoch']} | {train:.2%} | {float(best['val_accuracy']):.2%} "
            f"| {last:.2%} | {train - last:+.2%} | {rows[-1]['temperature'] or '-'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the tables."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--params", type=Path, default=Path("params/real.yaml"))
    options = parser.parse_args()
    params, seeds = read_params(options.params), range(options.seeds)
    pretraining(params)
    folders = {name: [crack_stage(params, name, seed) for seed in seeds] for name in SPLITS}
    print(pretraining_table(), end="\n\n")
    print(table("trained on METU, accuracy % by test source", by_source, folders["metu"]), end="\n\n")
    for name in ("random", "photo"):
        print(table(f"hires + uav75, split by {name}, %", overall, folders[name]), end="\n\n")


if __name__ == "__main__":
    main()
