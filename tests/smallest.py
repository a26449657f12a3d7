"""The demo's values, so small that the whole graph takes a minute or two on one core: for tests."""

from pathlib import Path
from typing import Any

import yaml


def smallest(checkout: Path) -> dict[str, Any]:
    """Every stage of the demo, a few images each, one epoch; whatever comes out passes the gate's floors."""
    params: dict[str, Any] = yaml.safe_load((checkout / "params/demo.yaml").read_text())
    params["photos"] |= {"sample_photos": 8, "sample_size_hw": [448, 672]}
    params["miniimagenet"] |= {"sample_classes": 3, "sample_per_class": 10, "image_px": 32}
    params["tile"] |= {"tile_px": 224, "tiles_per_class": None}
    for section in ("pretrain", "distill", "finetune"):
        params[section]["common"] |= {"epochs": 1, "batch_size": 8}
    params["finetune"]["common"]["image_px"] = 32
    small = {"epochs": 1, "batch_size": 8, "image_px": 224, "view_px": 64}
    small |= {"network": "resnet18", "encoder_weights": None}  # an EfficientNet takes half a minute to export
    for item in params["finetune"]["shipped"].values():
        item |= small
    params["export"] |= {"parity_tiles": 8, "calibration_tiles": 8}
    params["register"] |= {"min_accuracy": 0.0, "min_photos": 2, "min_wide_recall": None, "max_ece": 1.0}
    return params


def one_chain(params: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:
    """The same with one model of each kind: a teacher, its student, and the detector made of it."""
    params["pretrain"]["items"] = {"resnet50": teacher}
    params["distill"]["items"] = {"dynamic": params["distill"]["items"]["dynamic"]}
    params["finetune"] |= {
        "scratch": {},
        "pretrained": {},
        "distilled": {"resnet18-dynamic": {"init": "dynamic"}},
    }
    return params


def detector_alone(params: dict[str, Any]) -> dict[str, Any]:
    """The same without the networks of the paper."""
    params["pretrain"]["items"], params["distill"]["items"] = {}, {}
    params["finetune"] |= {"scratch": {}, "pretrained": {}, "distilled": {}}
    return params
