"""The form in which a network with a pixel head travels: raw tiles in, crack probabilities out; as one ONNX file.

The file's bytes depend on the weights, the opset and the versions of the libraries alone.
Shape suffixes: B tiles, H rows, W columns, h and w those of the map, K most confident cells.
"""

import copy
import json
import math
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from itertools import chain
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from damcrack.train.pixels import PixelNetwork
from damcrack.train.weights import ModelInfo

GREY_LEVELS = 255.0
# A tile is judged by the mean of this share of its cells, the most confident ones.
BLOCK_SHARE = 0.003
MIN_PROB = 1e-6
CONTRACT = "damcrack"  # key of the ONNX metadata
OUTPUTS = ["crack_prob", "crack_map"]
MIN_HALVED = 256  # smaller tensors are stored as they are


class Deployed(nn.Module):
    """Uint8 RGB tiles (B, H, W, 3) in; crack probability (B,) and probability of each 2 by 2 pixels (B, h, w) out.

    Sides are multiples of 32. `temperature` calibrates the tile's probability (Guo et al. 2017), not the map.
    """

    def __init__(self, network: PixelNetwork, info: ModelInfo, temperature: float = 1.0) -> None:
        super().__init__()
        mean, std = set(info.mean), set(info.std)
        assert len(mean) == len(std) == 1, "networks with a pixel head see all channels alike"
        self.network = copy.deepcopy(network)
        self._mean = GREY_LEVELS * mean.pop()
        first = next(layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d))
        with torch.no_grad():  # one pass over the pixels less
            first.weight /= GREY_LEVELS * std.pop()
        self.temperature = temperature

    def forward(self, tiles_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Score tiles."""
        images_BCHW = tiles_BHWC.permute(0, 3, 1, 2).float() - self._mean
        _, logits_Bhw = self.network.both_at_half_size(images_BCHW)
        map_Bhw = torch.sigmoid(logits_Bhw)
        return self._of_tile(map_Bhw), map_Bhw

    def _of_tile(self, map_Bhw: Tensor) -> Tensor:
        flat_BN = map_Bhw.flatten(1)
        num = torch.sym_max(1, torch.sym_int(flat_BN.shape[1] * BLOCK_SHARE))
        score_B = flat_BN.topk(num, dim=1, sorted=False)[0].mean(dim=1).clamp(MIN_PROB, 1 - MIN_PROB)
        return torch.sigmoid(torch.logit(score_B) / self.temperature)


def to_onnx(deployed: Deployed, tile_hw: tuple[int, int], opset: int) -> bytes:
    """Convert to ONNX in float32; batch, height and width are free."""
    with redirect_stdout(StringIO()):  # it praises itself in the middle of our summary
        program = torch.onnx.export(
            deployed,
            (torch.zeros(2, *tile_hw, 3, dtype=torch.uint8),),
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
    return _bytes(proto)


def in_half_precision(encoded: bytes) -> bytes:
    """The same model with its weights stored as float16: half the size; it computes in float32 as before.

    Each is followed by a cast, which onnxruntime carries out once, when it loads the model.
    """
    proto = onnx.load_from_string(encoded)
    casts = []
    for number, tensor in enumerate(proto.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) < MIN_HALVED:
            continue
        halved = numpy_helper.to_array(tensor).astype("float16")
        casts.append(helper.make_node("Cast", [f"half_{number}"], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(halved, f"half_{number}"))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    del proto.graph.value_info[:]
    return _bytes(proto)


def with_metadata(encoded: bytes, contract: Mapping[str, Any]) -> bytes:
    """The same model with the contract in its metadata, so that one file is enough to use it rightly."""
    proto = onnx.load_from_string(encoded)
    _strip(proto)
    proto.metadata_props.add(key=CONTRACT, value=json.dumps(contract, sort_keys=True))
    return _bytes(proto)


def _bytes(proto: onnx.ModelProto) -> bytes:
    encoded: bytes = proto.SerializeToString(deterministic=True)
    return encoded


def _name_dimensions(model: onnx.ModelProto) -> None:
    """Say batch, height and width where the exporter wrote symbols of its own."""
    sides = {
        "tiles": ("batch", "height", "width"),
        "crack_prob": ("batch",),
        "crack_map": ("batch", "h", "w"),
    }
    for value in (*model.graph.input, *model.graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, sides[value.name], strict=False):
            dim.dim_param = name


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces and other notes of the exporter: they hold paths of the machine."""
    model.producer_version = model.producer_version.partition("+")[0]  # not which build of torch
    graph = model.graph
    named = (graph.node, graph.input, graph.output, graph.initializer, graph.value_info)
    for part in (model, graph, *chain.from_iterable(named)):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
