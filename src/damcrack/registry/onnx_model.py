"""An MLflow model folder around an exported ONNX file, its bytes unchanged.

The models hold the ONNX flavour, so they load without torch and nothing is unpickled. Raw RGB tiles go in:
uint8 of shape (batch, height, width, 3), height and width multiples of 32; a dict of arrays comes out.
"""

import shutil
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

EXAMPLE_PX = 64  # a multiple of 32, as the model asks for
NEEDED_TO_SCORE = ("mlflow", "onnx", "onnxruntime", "numpy", "pandas")


def save_model(
    onnx_file: Path, beside: Sequence[Path], folder: Path, model_id: str, run_id: str | None
) -> None:
    """Write the folder; files of `beside` go into its extra_files/."""
    import mlflow.onnx
    import onnx
    from mlflow.models import Model

    proto = onnx.load(onnx_file)
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
        extra_files=[str(path) for path in beside],
    )
    shutil.copyfile(onnx_file, folder / "model.onnx")


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
    """Two tiles: light concrete, and the same with a dark line across; sides that are free have EXAMPLE_PX."""
    import numpy as np

    height, width = (EXAMPLE_PX if length < 0 else length for length in shape[1:3])
    tiles = np.full((2, height, width, shape[3]), 168, dtype=np.uint8)
    tiles[1, height // 2 - 1 : height // 2 + 1] = 40
    return tiles
