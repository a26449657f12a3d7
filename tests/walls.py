"""Synthetic concrete with cracks of known place and sub-pixel width, and a detector that needs no training."""

import json

import cv2
import numpy as np

from damcrack.sample import strokes

WALL, INSIDE = 150.0, 45.0


def concrete(size_hw, seed=0, roughness=4.0, pores=True):
    """Grey float (H, W): blotches of several sizes with pores and grain, so that photos can be registered."""
    rng = np.random.default_rng(seed)
    wall = np.full(size_hw, WALL, np.float32)
    for scale, strength in ((60, 6.0), (20, 4.0), (6, 3.0)):
        noise = cv2.GaussianBlur(rng.normal(0, 1, size_hw).astype(np.float32), (0, 0), scale)
        wall += strength * noise / noise.std()
    for _ in range(size_hw[0] * size_hw[1] // 6000 * pores):
        x, y = int(rng.integers(0, size_hw[1])), int(rng.integers(0, size_hw[0]))
        cv2.circle(wall, (x, y), int(rng.integers(1, 4)), float(rng.uniform(115, 135)), -1, cv2.LINE_AA)
    return wall + rng.normal(0, roughness, size_hw).astype(np.float32)


def coverage(size_hw, points_xy, width_px):
    """Share (H, W) of each pixel that a line of this width covers; a pixel's middle is at its whole number."""
    points = np.asarray(points_xy, np.float64) + 0.5
    drawn = strokes.coverage([strokes.Stroke(points, np.full(len(points), float(width_px)))], size_hw)
    return drawn.astype(np.float32) / 255


def photo(wall, *covers, inside=INSIDE, blur=0.6):
    """uint8 (H, W): a wall with dark lines, seen through a lens."""
    light = wall.copy()
    for cover in covers:
        light += cover * (inside - light)
    return np.clip(cv2.GaussianBlur(light, (0, 0), blur), 0, 255).astype(np.uint8)


def rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def line(centre_xy, angle_deg, length_px):
    """Two ends (2, 2) of a straight line."""
    half = length_px / 2 * np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))])
    return np.array([centre_xy - half, centre_xy + half])


def write_darkness_detector(path, tile_px=112, temperature=1.0, **contract):
    """An ONNX file with the contract of an exported model: crack from about 60 pixels darker than 90 on.

    It is a detector in its own right, only that nobody trained it; its map is the share of dark pixels by cell.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["tiles"], ["light"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["light", "last"], ["grey"], keepdims=0),
        helper.make_node("Less", ["grey", "dark_from"], ["is_dark"]),
        helper.make_node("Cast", ["is_dark"], ["dark"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["dark", "one"], ["dark_BCHW"]),
        helper.make_node(
            "AveragePool",
            ["dark_BCHW"],
            ["cells"],
            kernel_shape=[tile_px // 4] * 2,
            strides=[tile_px // 4] * 2,
        ),
        helper.make_node("Squeeze", ["cells", "one"], ["crack_map"]),
        helper.make_node("ReduceSum", ["dark", "sides"], ["num_dark"], keepdims=0),
        helper.make_node("Sub", ["num_dark", "enough"], ["above"]),
        helper.make_node("Div", ["above", "slope"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["crack_prob"]),
        helper.make_node("Neg", ["logit"], ["other"]),
        helper.make_node("Unsqueeze", ["logit", "one"], ["logit_B1"]),
        helper.make_node("Unsqueeze", ["other", "one"], ["other_B1"]),
        helper.make_node("Concat", ["other_B1", "logit_B1"], ["logits"], axis=1),
    ]
    constants = [
        helper.make_tensor("last", TensorProto.INT64, [1], [3]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("sides", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("dark_from", TensorProto.FLOAT, [], [90.0]),
        helper.make_tensor("enough", TensorProto.FLOAT, [], [40.0]),
        helper.make_tensor("slope", TensorProto.FLOAT, [], [10.0]),
    ]
    inputs = [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["batch", tile_px, tile_px, 3])]
    outputs = [
        helper.make_tensor_value_info("crack_prob", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("crack_map", TensorProto.FLOAT, ["batch", 4, 4]),
    ]
    graph = helper.make_graph(nodes, "darkness", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    says = {
        "format": 2,
        "name": "darkness",
        "network": "none",
        "classes": ["no crack", "crack"],
        "image_px": tile_px,
        "data_digest": "0" * 64,
        "weights_sha256": "1" * 64,
        "calibration": {"temperature": temperature, "num_tiles": 0},
        "input": {
            "name": "tiles",
            "dtype": "uint8",
            "shape": ["batch", tile_px, tile_px, 3],
            "colour": "RGB",
        },
    }
    model.metadata_props.add(key="damcrack", value=json.dumps(says | contract))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path
