"""A network as ONNX bytes that depend on its weights alone, with what a user must know inside the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto

    from damcrack.engine.locator import Locator

CONTRACT = "damcrack"  # key of the ONNX metadata
OUTPUTS = ["crack_prob", "logits", "crack_map"]


def with_metadata(encoded: bytes, contract: Mapping[str, Any]) -> bytes:
    """The same model with the contract in its metadata, so that one file is enough to use it rightly."""
    import onnx

    proto = onnx.load_from_string(encoded)
    _strip(proto)
    proto.metadata_props.add(key=CONTRACT, value=json.dumps(contract, sort_keys=True))
    written: bytes = proto.SerializeToString(deterministic=True)
    return written


def to_onnx(locator: Locator, tile_hw: tuple[int, int], opset: int) -> bytes:
    """Convert to ONNX in float32 with a free batch size.

    The bytes depend on the weights, the opset and the versions of the libraries alone.
    """
    import onnx
    import torch

    example = torch.zeros(2, *tile_hw, 3, dtype=torch.uint8)
    with redirect_stdout(StringIO()):  # it praises itself in the middle of our summary
        program = torch.onnx.export(
            locator,
            (example,),
            dynamo=True,
            input_names=["tiles"],
            output_names=OUTPUTS,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    encoded: bytes = proto.SerializeToString(deterministic=True)
    return encoded


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
