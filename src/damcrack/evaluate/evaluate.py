"""Stage `evaluate`: every fine-tuned network on held-out tiles, and a page of results.

OUT/metrics.json       scores of experiments and baselines, histories of the pretraining
OUT/predictions.csv    crack probability of each tile by each experiment
OUT/photos.csv         errors of each experiment on each photo
OUT/table1.csv         mini-ImageNet, the paper's numbers next to ours; OUT/table2.csv the same for cracks
OUT/figures/*.png      learning curves, temperature, confusion, ROC, reliability, sample detections
OUT/results.html       all of it on one page that needs no network
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from damcrack.data.imageset import ImageSet
from damcrack.evaluate.config import EvaluateConfig
from damcrack.evaluate.drawing import write_figures
from damcrack.evaluate.figures import draw_figures, draw_samples
from damcrack.evaluate.page import choose_tiles, render
from damcrack.evaluate.scored import (
    Baseline,
    HeldOutTiles,
    Results,
    Scored,
    experiment_scores,
    score_baselines,
    score_model,
)
from damcrack.evaluate.tables import write_tables
from damcrack.evaluate.trained import TrainedModel, read_models, start_of
from damcrack.files import InputError, new_directory, write_bytes
from damcrack.run import Run

FORMAT = 1
HEADLINE = ("accuracy", "precision", "recall", "f1", "auroc", "ece", "train_val_gap")


def evaluate(tiles: Path, models: Path, out: Path, config: EvaluateConfig, run: Run) -> dict[str, object]:
    """Score all fine-tuned models of `tiles` and write tables, figures and the page.

    Raises:
        InputError: there is nothing to score, or no model that was trained on these tiles.
    """
    data = _evaluation_set(tiles, run)
    finetuned, left_out = _usable(models, data, run)
    pretraining = read_models(models, "pretrain") + read_models(models, "distill")
    tracked = run.track(finetuned, "evaluating models", len(finetuned))
    experiments = [score_model(model, start_of(model, pretraining), data, run) for model in tracked]
    baselines = score_baselines(data, run)
    metrics = _metrics(experiments, baselines, pretraining, data) | {"left_out": left_out}
    results = Results(data, experiments, baselines, pretraining, metrics)
    shown = choose_tiles(results, config.worst_tiles)
    charts, samples = draw_figures(results), draw_samples(results, shown)
    with new_directory(out, "evaluate") as folder:
        write_tables(folder, results)
        write_figures(folder / "figures", [*charts, samples])
        page = render(results, shown, charts, samples, config.worst_photos)
        write_bytes(folder / "results.html", page.encode())
    _report(out, metrics, run)
    return _summary(out, metrics, data)


def _evaluation_set(root: Path, run: Run) -> HeldOutTiles:
    data = HeldOutTiles.choose(ImageSet.open(root))
    if not len(data.rows):
        raise InputError(f"{root}: no test and no val tiles; give more photos, or another val_fraction")
    role = "test" if data.split == "test" else "validation"
    run.dataset("tiles", data.tiles.digest, root.name, role)
    return data


def _usable(root: Path, data: HeldOutTiles, run: Run) -> tuple[list[TrainedModel], dict[str, str]]:
    """The models that were trained on these tiles; names of the others, with the reason."""
    found = read_models(root, "finetune")
    usable = [model for model in found if model.info.data_digest == data.tiles.digest]
    left_out = {
        model.name: f"trained on tiles {model.info.data_digest[:12]}, these are {data.tiles.digest[:12]}"
        for model in found
        if model not in usable
    }
    for name, reason in left_out.items():
        run.say(f"{name} is left out: {reason}")
    if not usable:
        raise InputError(
            f"{root / 'finetune'}: {len(found)} models, none trained on {data.tiles.root}; run finetune first"
        )
    return usable, left_out


def _metrics(
    experiments: Sequence[Scored],
    baselines: Sequence[Baseline],
    pretraining: Sequence[TrainedModel],
    data: HeldOutTiles,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "evaluation_set": data.facts,
        "chosen": min(experiments, key=_by_validation).model.name,
        "experiments": {scored.model.name: experiment_scores(scored, data) for scored in experiments},
        "baselines": {baseline.name: baseline.scores for baseline in baselines},
        "pretraining": {model.label: model.facts for model in pretraining},
    }


def _by_validation(scored: Scored) -> tuple[float, float, str]:
    """Order of preference: it must not look at the test split."""
    facts = scored.model.facts
    return -facts["val_accuracy"], facts["val_loss"], scored.model.name


def _report(out: Path, metrics: Mapping[str, Any], run: Run) -> None:
    groups = metrics["experiments"] | metrics["baselines"]
    run.metrics(
        {
            f"{name}/{metric}": scores[metric]
            for name, scores in groups.items()
            for metric in HEADLINE
            if scores.get(metric) is not None
        }
    )
    for path in [out / "results.html", *sorted((out / "figures").glob("*.png"))]:
        run.artifact(path)


def _summary(out: Path, metrics: Mapping[str, Any], data: HeldOutTiles) -> dict[str, object]:
    summary: dict[str, object] = {
        "evaluated on": f"{len(data.rows)} {data.split} tiles, {int(data.labels.sum())} with cracks"
    }
    for name, scores in metrics["experiments"].items():
        mark = " (chosen by validation)" if name == metrics["chosen"] else ""
        summary[name] = f"accuracy {scores['accuracy']:.2%}, F1 {scores['f1'] or 0:.4f}{mark}"
    for name, scores in metrics["baselines"].items():
        summary[name.replace("_", " ")] = f"accuracy {scores['accuracy']:.2%}"
    return summary | {"page": out / "results.html", "metrics": out / "metrics.json"}
