"""A network as ONNX bytes that depend on its weights alone, with what a user must know inside the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto

    from damcrack.export.deployed import Deployed

CONTRACT = "damcrack"  # key of the ONNX metadata
OUTPUTS = ["crack_prob", "crack_map"]
MIN_HALVED = 256  # smaller tensors are stored as they are


def with_metadata(encoded: bytes, contract: Mapping[str, Any]) -> bytes:
    """The same model with the contract in its metadata, so that one file is enough to use it rightly."""
    import onnx

    proto = onnx.load_from_string(encoded)
    _strip(proto)
    proto.metadata_props.add(key=CONTRACT, value=json.dumps(contract, sort_keys=True))
    written: bytes = proto.SerializeToString(deterministic=True)
    return written


def to_onnx(deployed: Deployed, tile_hw: tuple[int, int], opset: int) -> bytes:
    """Convert to ONNX in float32; batch, height and width are free.

    The bytes depend on the weights, the opset and the versions of the libraries alone.
    """
    import onnx
    import torch

    example = torch.zeros(2, *tile_hw, 3, dtype=torch.uint8)
    with redirect_stdout(StringIO()):  # it praises itself in the middle of our summary
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            input_names=["tiles"],
            output_names=OUTPUTS,
            dynamic_shapes=(dict.fromkeys(range(3), torch.export.Dim.DYNAMIC),),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _name_dimensions(proto)
    _strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    encoded: bytes = proto.SerializeToString(deterministic=True)
    return encoded


def in_half_precision(encoded: bytes) -> bytes:
    """The same model with its weights stored as float16: half the size; it computes in float32 as before.

    Each is followed by a cast, which onnxruntime carries out once, when it loads the model.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.load_from_string(encoded)
    casts = []
    for number, tensor in enumerate(proto.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or _num_values(tensor.dims) < MIN_HALVED:
            continue
        halved = numpy_helper.to_array(tensor).astype("float16")
        casts.append(helper.make_node("Cast", [f"half_{number}"], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(halved, f"half_{number}"))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    del proto.graph.value_info[:]
    written: bytes = proto.SerializeToString(deterministic=True)
    return written


def _num_values(dims: Iterable[int]) -> int:
    return math.prod(dims)


def _name_dimensions(model: ModelProto) -> None:
    """Say batch, height and width where the exporter wrote symbols of its own."""
    sides = {
        "tiles": ("batch", "height", "width"),
        "crack_prob": ("batch",),
        "crack_map": ("batch", "h", "w"),
    }
    for value in (*model.graph.input, *model.graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, sides[value.name], strict=False):
            dim.dim_param = name


def _strip(model: ModelProto) -> None:
    """Remove stack traces and other notes of the exporter: they hold paths of the machine."""
    model.producer_version = model.producer_version.partition("+")[0]  # not which build of torch
    graph = model.graph
    parts: Iterable[Any] = (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *graph.value_info,
    )
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
