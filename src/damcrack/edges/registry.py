"""The MLflow model registry: versions named by hashes, with the runs that made them.

The models hold the ONNX flavour, so they load without torch and nothing is unpickled. Raw RGB tiles go in:
uint8 of shape (batch, height_px, width_px, 3); a dict of arrays comes out.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from damcrack.edges.sender import (
    QUIET,
    Store,
    experiment_name,
    one_line,
    send_later,
    sending_errors,
    set_defaults,
    shown_uri,
    tracking_uri,
)
from damcrack.errors import InputError
from damcrack.outputs import new_directory
from damcrack.stages.register import Entry, Registered, Scores

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

# A model of 90 MB takes its time to a distant store, and nothing is being trained meanwhile.
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
EXTRA_FILES = ("model-int8.onnx", "weights.safetensors", "model.json", "parity.json")
FETCHED = Path(".damcrack/models")
FOR_INSPECTION = ("model.onnx", "model-int8.onnx", "model.json")
PARENT_TAGS = ("damcrack.init_sha256", "damcrack.teacher_sha256")
NEEDED_TO_SCORE = ("mlflow", "onnx", "onnxruntime", "numpy", "pandas")


class MlflowRegistry:
    """A `stages.register.Registry` in the MLflow of MLFLOW_TRACKING_URI (and MLFLOW_REGISTRY_URI, if set)."""

    @cached_property
    def _store(self) -> Store:
        if find_spec("mlflow") is None:
            raise InputError("mlflow is not installed; run `pip install damcrack[track]`")
        set_defaults(QUIET | PATIENT)
        return Store(tracking_uri())

    @property
    def _client(self) -> "MlflowClient":
        return self._store.client

    def add(self, entry: Entry) -> str:
        """Register the model, or refresh the tags of the version with the same hashes; return its version.

        Raises:
            InputError: the registry does not answer, or refuses.
        """
        with _answering(self):
            send_later()  # the runs that made the model must be there to be found
            runs = self._makers(entry)
            tags = {**entry.tags, **_lineage_tags(runs)}
            known = self._find(entry)
            if known is not None:
                self._set_tags(entry.model_name, known, tags)
                return known
            return self._create(entry, tags, runs)

    def aliased(self, model_name: str, alias: str) -> Registered | None:
        """Look up the version that an alias points to."""
        with _answering(self):
            model = self._client.get_registered_model(model_name)
            number = model.aliases.get(alias)
            if number is None:
                return None
            tags = self._client.get_model_version(model_name, number).tags
            return Registered(str(number), tags.get("weights_sha256", ""), _scores(tags))

    def point(self, model_name: str, alias: str, version: str) -> None:
        """Make an alias point to a version."""
        with _answering(self):
            self._client.set_registered_model_alias(model_name, alias, version)

    def tag(self, model_name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version."""
        with _answering(self):
            self._set_tags(model_name, version, tags)

    def _set_tags(self, model_name: str, version: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(model_name, version, key, value)

    def _find(self, entry: Entry) -> str | None:
        same = " and ".join(
            [
                f"name = '{entry.model_name}'",
                f"tags.weights_sha256 = '{entry.weights_sha256}'",
                f"tags.onnx_sha256 = '{entry.onnx_sha256}'",
            ]
        )
        found = self._client.search_model_versions(same)
        return str(min(int(version.version) for version in found)) if found else None

    def _create(self, entry: Entry, tags: Mapping[str, str], runs: Sequence["MlflowRun"]) -> str:
        client = self._client
        self._ensure_model(entry.model_name)
        run_id = runs[0].info.run_id if runs and _output(runs[0]) == entry.weights_sha256 else None
        experiment_id = self._store.experiment_id(experiment_name())
        model = client.create_logged_model(experiment_id, entry.model_name, run_id, tags=dict(tags))
        with tempfile.TemporaryDirectory() as folder:
            save_model(entry, Path(folder) / "model", model.model_id, run_id)
            client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        client.finalize_logged_model(model.model_id, "READY")
        made = client.create_model_version(
            entry.model_name,
            source=f"models:/{model.model_id}",
            run_id=run_id,
            tags=dict(tags),
            description=_description(entry, runs),
            model_id=model.model_id,
        )
        return str(made.version)

    def _ensure_model(self, model_name: str) -> None:
        if not self._client.search_registered_models(f"name = '{model_name}'"):
            self._client.create_registered_model(model_name, description="Crack or no crack on dam tiles.")

    def _makers(self, entry: Entry) -> list["MlflowRun"]:
        """Runs whose outputs led to these weights, nearest first: fine-tuning, distillation, pretraining."""
        waiting, seen, runs = [entry.weights_sha256, *entry.parents], set[str](), []
        while waiting:
            sha256 = waiting.pop(0)
            if sha256 in seen:
                continue
            seen.add(sha256)
            run = self._maker(sha256)
            if run is not None:
                runs.append(run)
                waiting += [run.data.tags[key] for key in PARENT_TAGS if run.data.tags.get(key)]
        return runs

    def _maker(self, sha256: str) -> "MlflowRun | None":
        experiment_id = self._store.experiment_id(experiment_name())
        made_it = f"tags.`damcrack.output` = '{sha256}' and attributes.status = 'FINISHED'"
        found = self._client.search_runs([experiment_id], made_it, order_by=["attributes.start_time DESC"])
        # A run restored from a cache shows the same output but did not compute it.
        return min(found, key=lambda run: "damcrack.restored_from" in run.data.tags, default=None)


def fetch_model(uri: str) -> Path:
    """Folder with the exported files of models:/NAME@ALIAS or models:/NAME/VERSION, as `damcrack export` wrote them.

    A version is fetched once; which one an alias means is asked every time.

    Raises:
        InputError: mlflow is missing, the registry does not answer, or has no such version.
    """
    registry = MlflowRegistry()
    name, number = _named(registry, uri)
    kept = FETCHED / f"{name}-{number}"
    if not kept.is_dir():
        with _answering(registry, "give the model"), new_directory(kept) as folder:
            from mlflow.artifacts import download_artifacts

            with tempfile.TemporaryDirectory() as given:
                got = Path(download_artifacts(f"models:/{name}/{number}", dst_path=given))
                for path in sorted(got.rglob("*")):
                    if path.name in FOR_INSPECTION:
                        shutil.copyfile(path, folder / path.name)
            if not (folder / "model.onnx").is_file():  # nothing of it may be kept as if it were the model
                raise InputError(
                    f"models:/{name}/{number}: its artifact store holds no model.onnx any more; "
                    "restore the artifacts, or register the model again"
                )
    return kept


def _named(registry: MlflowRegistry, uri: str) -> tuple[str, str]:
    """Model name and version of a models:/ address."""
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not at:
        name, slash, number = name.partition("/")
        if not (slash and number.isdigit() and name):
            raise InputError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
        return name, number
    champion = registry.aliased(name, alias)
    if champion is None:
        raise InputError(f"{uri}: the model has no alias {alias}; register one, or name a version")
    return name, champion.version


@contextmanager
def _answering(registry: MlflowRegistry, what: str = "take the model") -> Iterator[None]:
    """Turn a registry that is away or unwilling into words."""
    try:
        yield
    except sending_errors() as error:
        raise InputError(
            f"the model registry at {shown_uri(tracking_uri())} did not {what} ({one_line(error)}); "
            "start the server or set MLFLOW_TRACKING_URI, then run the same command again"
        ) from error


def _output(run: "MlflowRun") -> str:
    return str(run.data.tags.get("damcrack.output", ""))


def _scores(tags: Mapping[str, str]) -> Scores:
    """Read a version's scores; one that somebody registered by hand has none, and never compares as equal."""
    accuracy, recall = (float(tags.get(name, "nan")) for name in ("accuracy", "recall"))
    return Scores(tags.get("evaluation_digest", "unknown"), accuracy, recall)


def _lineage_tags(runs: Sequence["MlflowRun"]) -> dict[str, str]:
    """One tag per stage of the line, for example run.distill = run ids."""
    by_stage: dict[str, list[str]] = {}
    for run in runs:
        by_stage.setdefault(run.data.tags.get("damcrack.stage", "unknown"), []).append(run.info.run_id)
    return {f"run.{stage}": ",".join(run_ids) for stage, run_ids in by_stage.items()}


def _description(entry: Entry, runs: Sequence["MlflowRun"]) -> str:
    line = [f"- {run.info.run_name}, run {run.info.run_id}" for run in runs]
    tags = entry.tags
    return "\n".join(
        [
            f"{entry.experiment}: accuracy {entry.scores.accuracy:.4f}, recall {entry.scores.recall:.4f} on "
            f"{tags['evaluation_tiles']} tiles of the {tags['evaluation_split']} split "
            f"({tags['evaluation_digest'][:12]}). Trained on tiles {tags['data_digest'][:12]}.",
            "",
            "Made by:",
            *(line or ["- runs that this store does not know"]),
        ]
    )


def save_model(entry: Entry, folder: Path, model_id: str, run_id: str | None) -> None:
    """Write an MLflow model folder around the exported ONNX file, its bytes unchanged."""
    import mlflow.onnx
    import onnx
    from mlflow.models import Model

    proto = onnx.load(entry.export / "model.onnx")
    present = [entry.export / name for name in EXTRA_FILES if (entry.export / name).is_file()]
    signature = onnx_signature(proto)
    mlflow.onnx.save_model(
        proto,
        str(folder),
        mlflow_model=Model(model_id=model_id, run_id=run_id),
        signature=signature,
        input_example=_example(signature.inputs.inputs[0].shape),
        pip_requirements=[f"{name}=={installed_version(name)}" for name in NEEDED_TO_SCORE],
        # The onnxruntime that we pin, and that the parity check ran on, is the CPU's.
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
        extra_files=[str(path) for path in (*present, entry.metrics)],
    )
    shutil.copyfile(entry.export / "model.onnx", folder / "model.onnx")


def onnx_signature(proto: Any) -> Any:
    """Read the signature off the ONNX graph: dimensions with a name instead of a number are free (-1)."""
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def spec(value: Any, name: str | None) -> Any:
        tensor = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        return TensorSpec(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape, name)

    # A single input stays nameless, so that `predict` takes a plain array.
    inputs = Schema([spec(value, None) for value in proto.graph.input])
    return ModelSignature(inputs, Schema([spec(value, value.name) for value in proto.graph.output]))


def _example(shape: Sequence[int]) -> Any:
    """Two tiles: light concrete, and the same with a dark line across."""
    import numpy as np

    tiles = np.full((2, *shape[1:]), 168, dtype=np.uint8)
    tiles[1, shape[1] // 2] = 40
    return tiles
