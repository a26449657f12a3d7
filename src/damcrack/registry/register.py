"""Stage `register`: the exported model goes into the registry, and becomes champion if it is shown to be better.

    OUT/register.json     what was registered: model name, hashes, evaluation set, scores on it
    OUT/evaluation-set/   the frozen evaluation set, unless another is agreed on (see stages.promotion.frozen)
    OUT/photos.csv        photos that trained or chose the model, by sha256
    OUT/card/             model card: card.md, card.html, calibration.png, failures.jpg

The version number and the decision depend on the registry's past, so they go to the registry, the run and the
summary, never into OUT.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from damcrack.data.source import OpenSource
from damcrack.files import InputError, new_directory, sha256_file, write_csv, write_json
from damcrack.registry import frozen, settle
from damcrack.registry.card import write_card
from damcrack.registry.contest import TRAINED_ON, Contest
from damcrack.registry.policy import Policy, Verdict, mark
from damcrack.registry.settle import CHALLENGER, Gate
from damcrack.run import Run

FORMAT = 3
METRICS = ("accuracy", "precision", "recall", "f1", "auroc", "ece")
EVALUATION_SET = "evaluation-set"


@dataclass(frozen=True)
class RegisterConfig(Policy):
    """Section `register` of params.yaml: where the model goes, on what it is judged, and the policy.

    `evaluation_set` is a folder or s3:// prefix with a frozen evaluation set, null the test tiles of the graph;
    `evaluation_sha256` the digest that it must have.
    """

    model_name: str
    evaluation_set: str | None
    evaluation_sha256: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model_name or set(self.model_name) & set("/:."):
            raise ValueError(f"model_name: {self.model_name!r}; allowed is a name without / : .")
        digest = self.evaluation_sha256
        if digest is not None and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
            raise ValueError(f"evaluation_sha256: {digest!r}; allowed is 64 hexadecimal digits, or null")


@dataclass(frozen=True)
class Entry:
    """A model to register: the files of an export, its card and the tags of its version."""

    model_name: str
    export: Path
    metrics: Path
    photos: Path
    card: Path
    experiment: str
    weights_sha256: str
    onnx_sha256: str
    parents: Sequence[str]  # weights that this model's training started from or was taught by
    tags: Mapping[str, str]


class Registry(settle.Registry, Protocol):
    """Where models are kept, by name, version and alias."""

    def add(self, entry: Entry) -> str:
        """Register the model, or refresh the tags of the version with the same hashes; return its version."""


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

    Idempotent: the same files are one version for ever. Alias `challenger` always moves to this version. Whatever
    is wrong with the files, the set or the champion shows before anything is registered.

    Raises:
        InputError: files are missing or contradict each other, or the registry does not answer.
    """
    check_export(evaluation / "metrics.json", export)
    with new_directory(out) as folder:
        write_csv(folder / TRAINED_ON, frozen.PHOTO_COLUMNS, frozen.training_photos(photos, tiles))
        gate = _gate(photos, tiles, folder, config, registry, open_source, run)
        contest = gate.contest(str(export), export, folder / TRAINED_ON)
        contest.against(gate.champion(registry.reign(config.model_name)))
        write_card(folder / "card", contest, export, folder / TRAINED_ON, config)
        entry = read_entry(evaluation / "metrics.json", export, folder, config.model_name)
        write_json(folder / "register.json", _record(entry, contest, config))
        version = registry.add(entry)
        registry.point(config.model_name, CHALLENGER, version)
        verdict, record = gate.settle(version, contest)
    keep_record(record, run)
    run.artifact(out / "card" / "card.html")
    return _summary(entry, version, verdict, contest)


def _gate(
    photos: Path,
    tiles: Path,
    folder: Path,
    config: RegisterConfig,
    registry: Registry,
    open_source: OpenSource,
    run: Run,
) -> Gate:
    if config.evaluation_set is None:
        own = folder / EVALUATION_SET
        own.mkdir()
        frozen.write_set(photos, tiles, own, run)
        chosen = frozen.open_set(own, config.evaluation_sha256)
    else:
        place, digest = config.evaluation_set, config.evaluation_sha256
        if digest is None:
            raise InputError(
                f"register.evaluation_set is {place}, but evaluation_sha256 is null; give its digest, as `damcrack "
                "freeze` printed it: what comes from outside the graph must not change unseen"
            )
        chosen = frozen.fetch_set(place, digest, open_source, run.scratch)
    run.dataset("evaluation set", chosen.digest, config.evaluation_set or tiles.name, "test")
    return Gate(config.model_name, config, chosen, registry, run)


def check_export(metrics_path: Path, export: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read an export's model.json and its row of the metrics, and check that every hash says the same.

    Raises:
        InputError: a file is missing, the experiment was not evaluated, or a hash differs.
    """
    metrics, model = _read_json(metrics_path), _read_json(export / "model.json")
    experiment = model["name"]
    if experiment not in metrics["experiments"]:
        raise InputError(
            f"{metrics_path} has no experiment {experiment!r} (of {export}), only "
            f"{', '.join(sorted(metrics['experiments']))}; evaluate it, or export one of these"
        )
    _check_hashes(export, model, metrics["experiments"][experiment]["weights_sha256"], metrics_path)
    return metrics, model


def read_entry(metrics_path: Path, export: Path, made: Path, model_name: str) -> Entry:
    """The entry of a checked export; `made` holds the card and the list of photos.

    Raises:
        InputError: as `check_export`.
    """
    metrics, model = check_export(metrics_path, export)
    row, chosen = metrics["experiments"][model["name"]], metrics["evaluation_set"]
    numbers = {name: row[name] for name in METRICS if row.get(name) is not None}
    tags = {
        "experiment": model["name"],
        "weights_sha256": model["weights_sha256"],
        "onnx_sha256": model["onnx_sha256"],
        "data_digest": model["data_digest"],
        "evaluation_digest": chosen["digest"],
        "evaluation_split": chosen["split"],
        "evaluation_tiles": str(chosen["num_tiles"]),
        **{name: repr(value) for name, value in numbers.items()},
    }
    return Entry(
        model_name=model_name,
        export=export,
        metrics=metrics_path,
        photos=made / TRAINED_ON,
        card=made / "card",
        experiment=model["name"],
        weights_sha256=model["weights_sha256"],
        onnx_sha256=model["onnx_sha256"],
        parents=[parent for parent in model.get("parents", {}).values() if parent],
        tags=tags,
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing; run the stage that makes it, or `dvc repro`")
    return dict(json.loads(path.read_text()))


def _check_hashes(export: Path, model: Mapping[str, Any], evaluated_sha256: str, metrics_path: Path) -> None:
    for file, key in (("model.onnx", "onnx_sha256"), ("weights.safetensors", "weights_sha256")):
        path = export / file
        if not path.is_file():
            raise InputError(f"{path} is missing; run `damcrack export` again")
        actual = sha256_file(path)
        if actual != model[key]:
            raise InputError(
                f"{path} has sha256 {actual[:12]}, {export / 'model.json'} expects {model[key][:12]}; "
                "the file was changed: run `damcrack export` again"
            )
    if evaluated_sha256 != model["weights_sha256"]:
        raise InputError(
            f"{metrics_path} judged {model['name']} with weights {evaluated_sha256[:12]}, but {export} holds "
            f"{model['weights_sha256'][:12]}; run `damcrack evaluate` and `damcrack export` on the same model"
        )


def _record(entry: Entry, contest: Contest, config: RegisterConfig) -> dict[str, Any]:
    marks = mark(contest.frozen.truth, contest.scores(contest.challenger), config)._asdict()
    return {
        "format": FORMAT,
        "model_name": entry.model_name,
        "experiment": entry.experiment,
        "weights_sha256": entry.weights_sha256,
        "onnx_sha256": entry.onnx_sha256,
        "evaluation_set": {"sha256": contest.frozen.digest, "num_tiles": len(contest.frozen.images)},
        "policy": asdict(config),
        "scores": {name: None if value != value else value for name, value in marks.items()},
    }


def keep_record(record: Mapping[str, Any], run: Run) -> None:
    """Keep a decision record with the run, as decision.json; nothing if nothing was decided."""
    if record:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "decision.json"
            write_json(path, record)
            run.artifact(path)


def _summary(entry: Entry, version: str, verdict: Verdict, contest: Contest) -> dict[str, object]:
    num_photos = len(set(contest.frozen.truth.photo_N.tolist()))
    return {
        "model": f"{entry.model_name} version {version} ({entry.experiment})",
        "judged on": f"{len(contest.frozen.images)} tiles of {num_photos} photos, set {contest.frozen.digest[:12]}",
        "decision": f"{verdict.decision}: {verdict.reason}",
        "load it": f'mlflow.pyfunc.load_model("models:/{entry.model_name}/{version}")',
    }
