"""Put the exported model into a registry and decide whether it becomes the champion.

    OUT/register.json    what was registered: model name, hashes, evaluation set, metrics

The version number and the decision depend on the registry's past, so they go to the registry, the run and the
summary, never into OUT.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from damcrack.errors import InputError
from damcrack.outputs import new_directory, sha256_file, write_json
from damcrack.stages.run import Run

FORMAT = 1
CHAMPION = "champion"
CHALLENGER = "challenger"
METRICS = ("accuracy", "precision", "recall", "f1", "auroc", "ece")


@dataclass(frozen=True)
class RegisterConfig:
    """`model_name` in the registry; no model below `min_accuracy` on its evaluation set becomes champion."""

    model_name: str
    min_accuracy: float

    def __post_init__(self) -> None:
        if not self.model_name or set(self.model_name) & set("/:."):
            raise ValueError(f"model_name: {self.model_name!r}; allowed is a name without / : .")
        if not 0 <= self.min_accuracy <= 1:
            raise ValueError(f"min_accuracy: {self.min_accuracy}; allowed is 0 to 1")


@dataclass(frozen=True)
class Scores:
    """How a model did on one evaluation set, named by the digest of its tiles."""

    evaluation_digest: str
    accuracy: float
    recall: float


@dataclass(frozen=True)
class Registered:
    """A version in the registry with the scores that it was last registered with."""

    version: str
    weights_sha256: str
    scores: Scores


@dataclass(frozen=True)
class Entry:
    """A model to register: the files of an export and the tags of its version."""

    model_name: str
    export: Path
    metrics: Path
    experiment: str
    weights_sha256: str
    onnx_sha256: str
    parents: Sequence[str]  # weights that this model's training started from or was taught by
    scores: Scores
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Decision:
    """Whether the champion moves: promoted, kept (the old one stays), or refused (below the floor)."""

    decision: str
    reason: str


class Registry(Protocol):
    """Where models are kept, by name, version and alias."""

    def add(self, entry: Entry) -> str:
        """Register the model, or refresh the tags of the version with the same hashes; return its version."""

    def aliased(self, model_name: str, alias: str) -> Registered | None:
        """Look up the version that an alias points to."""

    def point(self, model_name: str, alias: str, version: str) -> None:
        """Make an alias point to a version."""

    def tag(self, model_name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version."""


def register(
    evaluation: Path, export: Path, out: Path, config: RegisterConfig, registry: Registry, run: Run
) -> dict[str, object]:
    """Register `export` with its `evaluation`; idempotent: the same files are one version for ever.

    Alias `challenger` always moves to this version, `champion` as `decide` says.

    Raises:
        InputError: files are missing or contradict each other, or the registry does not answer.
    """
    entry = read_entry(evaluation / "metrics.json", export, config.model_name)
    with new_directory(out) as folder:
        write_json(folder / "register.json", _record(entry))
        version = registry.add(entry)
        champion = registry.aliased(config.model_name, CHAMPION)
        decision = decide(version, entry.scores, champion, config.min_accuracy)
        record = {"version": version, **asdict(decision), "champion_before": champion and asdict(champion)}
        # The tag comes before the aliases: a champion without its reason must not exist.
        registry.tag(config.model_name, version, {"decision": json.dumps(record)})
        registry.point(config.model_name, CHALLENGER, version)
        if decision.decision == "promoted":
            registry.point(config.model_name, CHAMPION, version)
    _keep_record(record, run)
    return _summary(entry, version, decision)


def decide(version: str, scores: Scores, champion: Registered | None, min_accuracy: float) -> Decision:
    """Compare with the champion, which only works on one evaluation set; a tie goes to the better recall."""
    if scores.accuracy < min_accuracy:
        return Decision("refused", f"accuracy {scores.accuracy:.4f} is below the floor {min_accuracy:.4f}")
    if champion is None:
        return Decision("promoted", "there was no champion")
    if champion.version == version:
        return Decision("kept", "it is the champion already")
    if champion.scores.evaluation_digest != scores.evaluation_digest:
        return Decision(
            "kept",
            f"champion version {champion.version} was judged on another evaluation set "
            f"({champion.scores.evaluation_digest[:12]}, this one {scores.evaluation_digest[:12]}); "
            "evaluate and register the champion on this set first",
        )
    ours, theirs = (scores.accuracy, scores.recall), (champion.scores.accuracy, champion.scores.recall)
    comparison = (
        f"accuracy {ours[0]:.4f}, recall {ours[1]:.4f} against {theirs[0]:.4f}, {theirs[1]:.4f} "
        f"of champion version {champion.version}"
    )
    return Decision("promoted" if ours > theirs else "kept", comparison)


def read_entry(metrics_path: Path, export: Path, model_name: str) -> Entry:
    """Read an export and its row of the metrics, and check that every hash says the same.

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
    row = metrics["experiments"][experiment]
    _check_hashes(export, model, row["weights_sha256"], metrics_path)
    chosen = metrics["evaluation_set"]
    numbers = {name: row[name] for name in METRICS if row.get(name) is not None}
    tags = {
        "experiment": experiment,
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
        experiment=experiment,
        weights_sha256=model["weights_sha256"],
        onnx_sha256=model["onnx_sha256"],
        parents=[parent for parent in model.get("parents", {}).values() if parent],
        scores=Scores(chosen["digest"], row["accuracy"], row["recall"]),
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


def _record(entry: Entry) -> dict[str, Any]:
    tags = entry.tags
    return {
        "format": FORMAT,
        "model_name": entry.model_name,
        "experiment": entry.experiment,
        "weights_sha256": entry.weights_sha256,
        "onnx_sha256": entry.onnx_sha256,
        "evaluation": {"digest": tags["evaluation_digest"], "split": tags["evaluation_split"]},
        "metrics": {name: float(tags[name]) for name in METRICS if name in tags},
    }


def _keep_record(record: Mapping[str, Any], run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decision.json"
        write_json(path, record)
        run.artifact(path)


def _summary(entry: Entry, version: str, decision: Decision) -> dict[str, object]:
    return {
        "model": f"{entry.model_name} version {version} ({entry.experiment})",
        "accuracy": f"{entry.scores.accuracy:.4f} on {entry.tags['evaluation_split']}",
        "decision": f"{decision.decision}: {decision.reason}",
        "load it": f'mlflow.pyfunc.load_model("models:/{entry.model_name}/{version}")',
    }
