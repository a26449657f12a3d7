"""Stage `register`: the exported model goes into the registry, and becomes champion if it is shown to be better.

    OUT/register.json     what was registered: model name, hashes, evaluation set, scores on it
    OUT/evaluation-set/   the evaluation set, unless the config names another
    OUT/photos.csv        photos used to train or select the model, by sha256
    OUT/card/             model card: card.md, card.html, failures.jpg

The version number and the decision depend on the registry's past, so they go to the registry, the run and the
summary, never into OUT.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.data.snapshot import OpenSource
from damcrack.files import (
    InputError,
    new_directory,
    read_json,
    sha256_file,
    temporary_folder,
    write_csv,
    write_json,
)
from damcrack.registry.card import write_card
from damcrack.registry.champion import (
    CHALLENGER,
    PROMOTED,
    Entry,
    Record,
    Registry,
    carry_out,
    present_champion,
    rollback_from,
)
from damcrack.registry.config import RegisterConfig
from damcrack.registry.evaluation_set import (
    PHOTO_COLUMNS,
    EvaluationSet,
    fetch_set,
    open_set,
    training_photos,
    write_set,
)
from damcrack.registry.gate import TRAINED_ON, Gate, ScoredModel, without_nan
from damcrack.registry.policy import score
from damcrack.run import Run

FORMAT = 3
RUN_AGAIN = "run the stage that makes it, or `dvc repro`"
METRICS = ("accuracy", "precision", "recall", "f1", "auroc", "ece")
EVALUATION_SET = "evaluation-set"


def register(
    photos: Path,
    tiles: Path,
    evaluation: Path,
    export: Path,
    out: Path,
    config: RegisterConfig,
    registry: Registry,
    open_source: OpenSource,
    run: Run,
) -> dict[str, object]:
    """Register `export` with its `evaluation` and card, then let the gate decide whether it becomes champion.

    Idempotent: the same files are always the same version. Alias `challenger` moves to this version. Whatever is
    wrong with the files, the set or the champion shows before anything is registered.

    Raises:
        InputError: files are missing or contradict each other, or the registry does not answer.
    """
    with new_directory(out, "register") as folder:
        entry = read_entry(evaluation / "metrics.json", export, folder, config.model_name)
        write_csv(entry.photos, PHOTO_COLUMNS, training_photos(photos, tiles))
        chosen = _evaluation_set(photos, tiles, folder / EVALUATION_SET, config, open_source, run)
        gate = Gate(config.model_name, config, chosen, registry, run)
        challenger = ScoredModel.load(str(export), export, chosen, run, entry.photos)
        known = registry.find(entry.model_name, entry.tags["weights_sha256"], entry.tags["onnx_sha256"])
        decision, record = gate.decide(challenger, known)
        write_card(entry.card, challenger, chosen, export, entry.photos, config)
        write_json(folder / "register.json", _registered(entry, challenger, chosen, config))
        version = registry.add(entry)
        registry.set_alias(entry.model_name, CHALLENGER, version)
        if record:
            record["version"] = version
            carry_out(registry, record)
    if record:
        record_artifact(record, run)
    run.artifact(out / "card" / "card.html")
    num_photos = len(np.unique(chosen.truth.photo_N))
    return {
        "model": f"{entry.model_name} version {version} ({entry.model['name']})",
        "evaluated on": f"{len(chosen.images)} tiles of {num_photos} photos, set {chosen.digest[:12]}",
        "decision": f"{decision.outcome}: {decision.reason}",
        "load it": f'mlflow.pyfunc.load_model("models:/{entry.model_name}/{version}")',
    }


def _evaluation_set(
    photos: Path, tiles: Path, own: Path, config: RegisterConfig, open_source: OpenSource, run: Run
) -> EvaluationSet:
    if config.evaluation_set is None:
        own.mkdir()
        write_set(photos, tiles, own, run)
        chosen = open_set(own, config.evaluation_sha256)
    elif config.evaluation_sha256 is None:
        raise InputError(
            f"register.evaluation_set is {config.evaluation_set}, but evaluation_sha256 is null; set it to the digest "
            "that `damcrack freeze` printed: a set from outside the graph must not change unnoticed"
        )
    else:
        chosen = fetch_set(config.evaluation_set, config.evaluation_sha256, open_source, run.scratch)
    run.dataset("evaluation set", chosen.digest, config.evaluation_set or tiles.name, "test")
    return chosen


def _checked(metrics_path: Path, export: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics and an export's model.json, whose hashes all agree with the files and each other."""
    metrics, model = read_json(metrics_path, RUN_AGAIN), read_json(export / "model.json", RUN_AGAIN)
    name, experiments = model["name"], metrics["experiments"]
    if name not in experiments:
        raise InputError(
            f"{metrics_path} has no experiment {name!r} (of {export}), only {', '.join(sorted(experiments))}; "
            "evaluate it, or export one of these"
        )
    for file, key in (("model.onnx", "onnx_sha256"), ("weights.safetensors", "weights_sha256")):
        path = export / file
        actual = sha256_file(path) if path.is_file() else "none"
        if actual != model[key]:
            raise InputError(
                f"{path} has sha256 {actual[:12]}, {export / 'model.json'} expects {model[key][:12]}; "
                "the file was removed or changed: run `damcrack export` again"
            )
    evaluated = experiments[name]["weights_sha256"]
    if evaluated != model["weights_sha256"]:
        raise InputError(
            f"{metrics_path} evaluated {name} with weights {evaluated[:12]}, but {export} holds "
            f"{model['weights_sha256'][:12]}; run `damcrack evaluate` and `damcrack export` on the same model"
        )
    return metrics, model


def read_entry(metrics_path: Path, export: Path, folder: Path, model_name: str) -> Entry:
    """The entry of an export; `folder` is where its card and its list of photos belong.

    Raises:
        InputError: a file is missing, the experiment was not evaluated, or a hash differs.
    """
    metrics, model = _checked(metrics_path, export)
    row, chosen = metrics["experiments"][model["name"]], metrics["evaluation_set"]
    tags = {
        "experiment": model["name"],
        **{name: model[name] for name in ("weights_sha256", "onnx_sha256", "data_digest")},
        "evaluation_digest": chosen["digest"],
        "evaluation_split": chosen["split"],
        "evaluation_tiles": str(chosen["num_tiles"]),
        **{name: repr(row[name]) for name in METRICS if row.get(name) is not None},
    }
    return Entry(model_name, export, metrics_path, folder / TRAINED_ON, folder / "card", model, tags)


def _registered(
    entry: Entry, challenger: ScoredModel, chosen: EvaluationSet, config: RegisterConfig
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model_name": entry.model_name,
        "experiment": entry.model["name"],
        "weights_sha256": entry.tags["weights_sha256"],
        "onnx_sha256": entry.tags["onnx_sha256"],
        "evaluation_set": {"sha256": chosen.digest, "num_tiles": len(chosen.images)},
        "policy": asdict(config),
        "scores": without_nan(score(chosen.truth, challenger.probs_N, config)._asdict()),
    }


def why_register_again(out: Path, registry: Registry) -> str | None:
    """Why `register`, which wrote `out`, would change the registry if it ran again; None if it would not.

    Raises:
        InputError: `register` did not write it, the registry does not answer, or its champion was deleted.
    """
    path = out / "register.json"
    registered = read_json(path, RUN_AGAIN)
    if registered.get("format") != FORMAT:
        raise InputError(f"{path} was written by another version of damcrack; run the stage `register`")
    name = registered["model_name"]
    version = registry.find(name, registered["weights_sha256"], registered["onnx_sha256"])
    if version is None:
        return f"no version of {name} holds these files"
    if registry.aliased(name, CHALLENGER) != version:
        return f"alias {CHALLENGER} of {name} does not name version {version}"
    champion, records = present_champion(registry, name, version), registry.records(name)
    if champion == version or rollback_from(records, version):
        return None
    last: Record = next((record for record in reversed(records) if record["version"] == version), {})
    if last.get("decision") == PROMOTED and last["champion_before"] == champion:
        return f"the promotion of version {version} was interrupted"
    same_set = last.get("evaluation_set", {}).get("sha256") == registered["evaluation_set"]["sha256"]
    if same_set and last.get("policy") == registered["policy"] and last["champion_before"] == champion:
        return None
    return f"version {version} was not yet compared with champion {champion} on this set by this policy"


def record_artifact(record: Record, run: Run) -> None:
    """Attach a decision record to the run, as decision.json."""
    with temporary_folder() as folder:
        path = folder / "decision.json"
        write_json(path, record)
        run.artifact(path)
