"""Synthetic concrete with cracks of known place and sub-pixel width, and a detector that needs no training."""

import json
from functools import lru_cache

import cv2
import numpy as np
import onnx

from damcrack.sample import strokes

WALL, INSIDE = 150.0, 45.0
DARK = 95.0  # grey at which the darkness detector is undecided


def concrete(size_hw, seed=0, roughness=4.0, pores=True):
    """Grey float (H, W): blotches of several sizes with pores and grain, so that photos can be registered."""
    return _concrete(tuple(size_hw), seed, roughness, pores).copy()


@lru_cache(maxsize=8)
def _concrete(size_hw, seed, roughness, pores):
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


def darkness_prob(grey):
    """What the darkness detector says of each pixel (H, W), in whatever light the photo was taken."""
    dark = DARK / WALL * np.median(grey)
    cells = cv2.resize(grey.astype(np.float32), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(1 / (1 + np.exp((cells - dark) / 5)), grey.shape[::-1], interpolation=cv2.INTER_LINEAR)


def write_darkness_detector(path, tile_px=112, temperature=1.0, free=True, **contract):
    """An ONNX file with the contract of an exported model: 2x2 pixels are crack if they are darker than DARK.

    It is a detector in its own right, only that nobody trained it. A cell of its map depends on its own pixels alone.
    """
    says = contract_of(name="darkness", network="none", tile_px=tile_px, temperature=temperature) | contract
    nodes = [
        ("Cast", ["tiles"], ["light"], {"to": onnx.TensorProto.FLOAT}),
        ("ReduceMean", ["light", "last"], ["grey"], {"keepdims": 0}),
        ("Unsqueeze", ["grey", "one"], ["grey_B1HW"], {}),
        ("AveragePool", ["grey_B1HW"], ["cells_B1HW"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Squeeze", ["cells_B1HW", "one"], ["cells"], {}),
        ("Sub", ["dark", "cells"], ["above"], {}),
        ("Div", ["above", "slope"], ["map_logit"], {}),
        ("Sigmoid", ["map_logit"], ["crack_map"], {}),
    ]
    constants = {
        "last": np.array([3]),
        "one": np.array([1]),
        "dark": np.array(DARK, np.float32),
        "slope": np.array(5, np.float32),
    }
    path.write_bytes(detector_bytes(nodes, constants, says, None if free else tile_px))
    return path


def contract_of(name, network, tile_px, temperature=1.0, block_share=0.003):
    """What a model says of itself, as `damcrack export` writes it."""
    return {
        "format": 3,
        "name": name,
        "network": network,
        "classes": ["no crack", "crack"],
        "tile_px": tile_px,
        "data_digest": "0" * 64,
        "weights_sha256": "1" * 64,
        "calibration": {"temperature": temperature, "num_tiles": 0},
        "block_share": block_share,
        "map_stride_px": 2,
        "input": {
            "name": "tiles",
            "dtype": "uint8",
            "shape": ["batch", "height", "width", 3],
            "colour": "RGB",
            "multiple_of": 32,
        },
        "outputs": [
            {"name": "crack_prob", "dtype": "float32", "shape": ["batch"]},
            {"name": "crack_map", "dtype": "float32", "shape": ["batch", "height/2", "width/2"]},
        ],
    }


def detector_bytes(nodes, constants, contract, side_px=None):
    """A graph that ends in `crack_map`, and behind it what makes `crack_prob` of it, as in an exported model."""
    proto, helper = onnx.TensorProto, onnx.helper
    judged = [
        ("Flatten", ["crack_map"], ["flat"], {}),
        ("Shape", ["flat"], ["num_cells"], {"start": 1}),
        ("Cast", ["num_cells"], ["num_float"], {"to": proto.DOUBLE}),
        ("Mul", ["num_float", "block_share"], ["share"], {}),
        ("Floor", ["share"], ["whole"], {}),
        ("Cast", ["whole"], ["num_maybe"], {"to": proto.INT64}),
        ("Max", ["num_maybe", "at_least"], ["num"], {}),
        ("TopK", ["flat", "num"], ["highest", "places"], {"axis": 1}),
        ("ReduceMean", ["highest", "at_least"], ["mean"], {"keepdims": 0}),
        ("Clip", ["mean", "least", "most"], ["prob"], {}),
        ("Sub", ["certain", "prob"], ["other"], {}),
        ("Div", ["prob", "other"], ["odds"], {}),
        ("Log", ["odds"], ["logit"], {}),
        ("Div", ["logit", "temperature"], ["cool"], {}),
        ("Sigmoid", ["cool"], ["crack_prob"], {}),
    ]
    constants = constants | {
        "block_share": np.array([contract["block_share"]], np.float64),
        "at_least": np.array([1]),
        "least": np.array(1e-6, np.float32),
        "most": np.array(1 - 1e-6, np.float32),
        "certain": np.array(1, np.float32),
        "temperature": np.array(contract["calibration"]["temperature"], np.float32),
    }
    sides = ["height", "width"] if side_px is None else [side_px, side_px]
    cells = ["rows", "columns"] if side_px is None else [side_px // 2, side_px // 2]
    graph = helper.make_graph(
        [helper.make_node(kind, given, made, **values) for kind, given, made, values in [*nodes, *judged]],
        "detector",
        [helper.make_tensor_value_info("tiles", proto.UINT8, ["batch", *sides, 3])],
        [
            helper.make_tensor_value_info("crack_prob", proto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("crack_map", proto.FLOAT, ["batch", *cells]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.add(key="damcrack", value=json.dumps(contract, sort_keys=True))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
