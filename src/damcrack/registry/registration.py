"""A model becomes a version of the MLflow registry: its files, their hashes, its card, and the run that trained it.

A version holds the ONNX flavour, so it loads without torch and nothing is unpickled. Raw RGB tiles go in: uint8 of
shape (batch, height, width, 3), height and width multiples of 32; a dict of arrays comes out.
"""

import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from damcrack.files import sha256_file, temporary_folder
from damcrack.registry.champion import Entry
from damcrack.tracking.recorded import code_tags
from damcrack.tracking.store import Store, experiment_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

EXPORTED = ("model.onnx", "weights.safetensors", "model.json", "parity.json")
FILES_TAG = "files"
LOCK_FILE = Path("dvc.lock")
MAX_DESCRIPTION = 4900  # MLflow's column takes 5,000 characters, a line of ours among them
MAX_MODEL_TAG = 1000  # of a logged model
EXAMPLE_PX = 64  # a multiple of 32, as the model asks for
NEEDED_TO_SCORE = ("mlflow", "onnx", "onnxruntime", "numpy", "pandas")


def add(store: Store, entry: Entry) -> str:
    """Register the model, or refresh tags, description and card of the version with the same hashes.

    Returns its version. MLflow's errors pass.
    """
    client, name = store.client, entry.model_name
    hashes = {path.name: sha256_file(path) for path in _files(entry)}
    tags = {**entry.tags, **code_facts(), FILES_TAG: json.dumps(hashes)}
    known = find_version(client, name, tags["weights_sha256"], tags["onnx_sha256"])
    if known is None:
        return _create(store, entry, tags)
    for key, value in tags.items():
        client.set_model_version_tag(name, known.version, key, value)
    client.update_model_version(name, known.version, _description(entry))
    client.log_model_artifacts(str(known.source).removeprefix("models:/"), str(entry.card), "card")
    return str(known.version)


def find_version(
    client: "MlflowClient", model_name: str, weights_sha256: str, onnx_sha256: str
) -> "ModelVersion | None":
    """The oldest version that holds a model with these hashes, None if there is none."""
    same = (
        f"name = '{model_name}' and tags.weights_sha256 = '{weights_sha256}' and "
        f"tags.onnx_sha256 = '{onnx_sha256}'"
    )
    return min(client.search_model_versions(same), key=lambda found: int(found.version), default=None)


def _create(store: Store, entry: Entry, tags: dict[str, str]) -> str:
    client, lock = store.client, [LOCK_FILE] if LOCK_FILE.is_file() else []
    if not client.search_registered_models(f"name = '{entry.model_name}'"):
        client.create_registered_model(entry.model_name, description="Crack or no crack on dam tiles.")
    maker = store.maker_of(tags["weights_sha256"])
    run_id = maker.info.run_id if maker else None
    short = {key: value for key, value in tags.items() if len(value) <= MAX_MODEL_TAG}
    experiment_id = store.experiment_id(experiment_name())
    model = client.create_logged_model(experiment_id, entry.model_name, run_id, tags=short)
    with temporary_folder() as folder:
        _save_model(_files(entry) + lock, folder / "model", model.model_id, run_id)
        client.log_model_artifacts(model.model_id, str(folder / "model"))
        client.log_model_artifacts(model.model_id, str(entry.card), "card")
    client.finalize_logged_model(model.model_id, "READY")
    # The version comes last and in one request: an interrupted registration leaves no incomplete version.
    version = client.create_model_version(
        entry.model_name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        tags=tags | ({"dvc_lock_sha256": sha256_file(LOCK_FILE)} if lock else {}),
        description=_description(entry),
        model_id=model.model_id,
    )
    return str(version.version)


def _files(entry: Entry) -> list[Path]:
    """The files that a version holds, the ONNX file first."""
    files = [*(entry.export / name for name in EXPORTED), entry.metrics, entry.photos]
    return [path for path in files if path.is_file()]


def _save_model(files: Sequence[Path], folder: Path, model_id: str, run_id: str | None) -> None:
    """Write an MLflow model folder around the ONNX file, its bytes unchanged; the others go into its extra_files/."""
    import mlflow.onnx
    import onnx
    from mlflow.models import Model

    onnx_file, *others = files
    proto = onnx.load(onnx_file)
    signature = _signature(proto)
    shape = [EXAMPLE_PX if length < 0 else length for length in signature.inputs.inputs[0].shape[1:]]
    mlflow.onnx.save_model(
        proto,
        str(folder),
        mlflow_model=Model(model_id=model_id, run_id=run_id),
        signature=signature,
        input_example=np.full((2, *shape[:2], 3), 168, np.uint8),
        pip_requirements=[f"{name}=={installed_version(name)}" for name in NEEDED_TO_SCORE],
        # The onnxruntime that we pin, and that the parity check ran on, is the CPU's.
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
        extra_files=[str(path) for path in others],
    )
    shutil.copyfile(onnx_file, folder / "model.onnx")


def _signature(proto: Any) -> Any:
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


def _description(entry: Entry) -> str:
    """The card, cut to what MLflow takes."""
    card = (entry.card / "card.md").read_text(encoding="utf-8")
    if len(card) <= MAX_DESCRIPTION:
        return card
    return card[:MAX_DESCRIPTION].rpartition("\n")[0] + "\n\nThe rest is in card/card.md of this version."


def code_facts() -> dict[str, str]:
    """The code that decides or registers."""
    tags = code_tags()
    names = {
        "code_version": "damcrack.code_version",
        "git_commit": "mlflow.source.git.commit",
        "git_dirty": "damcrack.git_dirty",
    }
    return {name: tags[tag] for name, tag in names.items() if tag in tags}
