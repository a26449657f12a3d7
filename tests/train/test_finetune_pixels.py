"""Fine-tuning networks with a pixel head: what they may start from, who may teach them, on which tiles."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from damcrack.files import InputError, read_csv, sha256_file
from damcrack.params import read_params, stage_config
from damcrack.run import Run
from damcrack.train.config import FinetuneConfig
from damcrack.train.finetune import finetune, with_enough_epochs
from damcrack.train.networks import build_network
from damcrack.train.weights import ModelInfo, load_model, snapshot_of
from trainings import write_set

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small")]

PARAMS = read_params(Path(__file__).parents[2] / "params/demo.yaml")
PIXELS: dict[str, Any] = {
    "network": "small",
    "pixel_channels": 16,
    "image_px": 32,
    "epochs": 1,
    "warmup_epochs": 0,
    "batch_size": 4,
    "optimiser": "adamw",
    "learning_rate": 0.001,
    "precision": "float32",
}
TILES_ONLY = PIXELS | {"pixel_channels": None}
STANDING_STILL = {"learning_rate": 1e-9, "weight_decay": 0.0}


def config(values: dict[str, Any], **changed: Any) -> FinetuneConfig:
    made: FinetuneConfig = stage_config(PARAMS, "finetune", "resnet18-scratch", values | changed)
    return made


def trained(tiles: Path, out: Path, values: FinetuneConfig, **models: Path) -> dict[str, object]:
    return finetune(tiles, out, "a", values, Run(out.parent / "scratch"), **models)


def tile_set(root: Path, seed: int = 0, masks: bool = True, num_unlabelled: int = 0) -> Path:
    """Eight training and four validation tiles of 32 px, every other one with a drawn line."""
    num, ends = 12 + num_unlabelled, np.random.default_rng(seed + 100)
    tiles = np.random.default_rng(seed).normal(150, 12, (num, 32, 32, 3))
    lines = np.zeros((num, 32, 32), np.uint8)
    for line in lines[1::2]:
        cv2.line(line, (int(ends.integers(32)), 0), (int(ends.integers(32)), 31), 255, 3)
    tiles[lines > 0] -= 90
    labels = [number % 2 if number < 12 else -1 for number in range(num)]
    splits = ["train"] * 8 + ["val"] * 4 + ["unlabelled"] * num_unlabelled
    known = {number: lines[number] for number in range(1, 12, 2)} if masks else {}
    return write_set(root, np.clip(tiles, 0, 255).astype(np.uint8), labels, splits, known).root


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, small: None) -> Path:
    """Tiles with masks, with labels alone, and others; a pixel network and a plain one trained on the first."""
    root = tmp_path_factory.mktemp("finetune")
    tile_set(root / "tiles", num_unlabelled=3)
    tile_set(root / "labels", masks=False)
    tile_set(root / "others", seed=1)
    trained(root / "tiles", root / "pixels", config(PIXELS))
    trained(root / "tiles", root / "plain", config(TILES_ONLY))
    return root


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return snapshot_of(load_model(folder)[0])


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5)


def test_a_pixel_model_says_what_it_is(here: Path) -> None:
    """Its width, the normalisation that all pixel networks share, and F1 of pixels in history."""
    info = ModelInfo.read(here / "pixels")
    assert info.pixel_channels == 16
    assert (info.mean, info.std) == ((127 / 255,) * 3, (128 / 255,) * 3)
    assert ModelInfo.read(here / "plain").pixel_channels is None
    assert float(read_csv(here / "pixels/history.csv")[0]["val_pixel_f1"]) >= 0
    assert read_csv(here / "plain/history.csv")[0]["val_pixel_f1"] == ""


def test_labels_alone_are_enough(here: Path, tmp_path: Path) -> None:
    """Tiles without any mask train a pixel head too: a crack is somewhere in them."""
    summary = trained(here / "labels", tmp_path / "out", config(PIXELS))
    assert "validation accuracy" in summary
    assert "validation pixel F1" not in summary
    start = snapshot_of(build_network("small", 2, 0, 16))
    assert not close(weights(tmp_path / "out")["pixel_head.weight"], start["pixel_head.weight"])


def test_views_may_be_smaller_than_the_tiles(here: Path, tmp_path: Path) -> None:
    """Training sees cut-outs around cracks, validation the whole tile."""
    wide = config(PIXELS, view_px=32, focus=0.5, scales=(0.5, 1.0))
    trained(here / "tiles", tmp_path / "out", wide)
    assert ModelInfo.read(tmp_path / "out").config["view_px"] == 32


def test_a_pixel_network_may_teach_on_any_tiles(here: Path, tmp_path: Path) -> None:
    """All of them see images alike: one trained elsewhere is taken, and named in the model's lineage."""
    taught = config(PIXELS, teacher="pixels")
    trained(here / "others", tmp_path / "out", taught, teacher=here / "pixels")
    info = ModelInfo.read(tmp_path / "out")
    assert info.teacher_sha256 == ModelInfo.read(here / "pixels").weights_sha256
    assert info.data_digest != ModelInfo.read(here / "pixels").data_digest
    assert float(read_csv(tmp_path / "out/history.csv")[0]["soft_loss"]) > 0


@pytest.mark.parametrize(
    ("tiles", "student", "teacher", "message"),
    [
        ("others", TILES_ONLY, "plain", "was trained on images .* train the teacher on the same set first"),
        ("tiles", PIXELS, "plain", "has no pixel head, the student has a pixel head"),
        ("others", PIXELS, "plain", "has no pixel head, the student has a pixel head"),
        ("tiles", TILES_ONLY, "pixels", "has a pixel head, the student has no pixel head"),
    ],
)
def test_teachers_that_see_images_otherwise_are_refused(
    here: Path, tmp_path: Path, tiles: str, student: dict[str, Any], teacher: str, message: str
) -> None:
    """A teacher without a pixel head knows the normalisation of its own tiles alone; nothing is written."""
    taught = config(student, teacher=teacher)
    with pytest.raises(InputError, match=message):
        trained(here / tiles, tmp_path / "out", taught, teacher=here / teacher)
    assert not (tmp_path / "out").exists()


def test_unlabelled_tiles_join_under_a_teacher(here: Path, tmp_path: Path) -> None:
    """Half of each batch of 4: the 8 training tiles take 4 steps; the model keeps the values as they were given."""
    taught = config(PIXELS, teacher="pixels", unlabelled_share=0.5)
    trained(here / "tiles", tmp_path / "out", taught, teacher=here / "pixels")
    kept = ModelInfo.read(tmp_path / "out").config
    assert (kept["batch_size"], kept["unlabelled_share"]) == (4, 0.5)


def test_a_share_of_no_unlabelled_tiles_is_refused(here: Path, tmp_path: Path) -> None:
    """The message names the share and what to give."""
    taught = config(PIXELS, teacher="pixels", unlabelled_share=0.5)
    with pytest.raises(InputError, match=r"unlabelled_share is 0.5, but .* set tile.unlabelled_tiles"):
        trained(here / "labels", tmp_path / "out", taught, teacher=here / "pixels")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"pixel_channels": 4}, "pixel_channels"),
        ({"views": 2}, "pixel_channels: a pixel head needs views: null"),
        ({"trainable": "head"}, "pixel_channels: .* trainable: all"),
        ({"pixel_channels": None, "view_px": 32}, "view_px, focus: need pixel_channels"),
        ({"pixel_channels": None, "focus": 0.5}, "view_px, focus: need pixel_channels"),
        ({"view_px": 20}, "view_px"),
        ({"focus": -0.1}, "focus"),
        ({"init": "a", "encoder_weights": "imagenet"}, "encoder_weights: 'imagenet' and init: 'a'"),
        ({"unlabelled_share": 0.5}, "unlabelled_share: .* need a teacher"),
        (
            {"pixel_channels": None, "teacher": "a", "unlabelled_share": 0.5},
            "unlabelled_share: .* pixel_channels",
        ),
        ({"teacher": "a", "unlabelled_share": 1.0}, "unlabelled_share"),
        ({"teacher": "a", "unlabelled_share": 0.1}, "unlabelled_share: 0.1 of batch_size 4 are 0 tiles"),
        ({"teacher": "a", "unlabelled_share": 0.8}, "unlabelled_share: 0.8 of batch_size 4 are 3 tiles"),
        ({"clip_norm": 0.0}, "clip_norm"),
    ],
)
def test_senseless_combinations_are_refused_by_name(changes: dict[str, Any], field: str) -> None:
    """The message begins with the field that is at fault."""
    valid = config(PIXELS)
    values = {each.name: getattr(valid, each.name) for each in fields(valid)}
    with pytest.raises(ValueError, match=field):
        FinetuneConfig(**{**values, **changes})


def test_unlabelled_tiles_take_their_place_in_the_count_of_steps() -> None:
    """Of a batch of 16 with a quarter unlabelled 12 are labelled: 120 tiles take 10 steps, 200 steps 20 epochs."""
    values = config(PIXELS, batch_size=16, teacher="a", unlabelled_share=0.25, min_steps=200)
    assert with_enough_epochs(values, 120).epochs == 20


def test_a_start_from_a_pixel_model_keeps_its_heads(here: Path, tmp_path: Path) -> None:
    """Standing still, it ends with the weights it began with, both heads included."""
    values = config(PIXELS, init="pixels", **STANDING_STILL)
    trained(here / "tiles", tmp_path / "out", values, init=here / "pixels")
    before, after = weights(here / "pixels"), weights(tmp_path / "out")
    names = [name for name, value in before.items() if value.ndim > 1 or name.endswith("head.bias")]
    assert {"tile_head.weight", "pixel_head.bias", "smooth.0.0.weight"} <= set(names)
    assert all(close(before[name], after[name]) for name in names)
    assert ModelInfo.read(tmp_path / "out").init_sha256 == ModelInfo.read(here / "pixels").weights_sha256


def test_a_start_from_a_plain_model_keeps_its_body(here: Path, tmp_path: Path) -> None:
    """The heads are fresh."""
    values = config(PIXELS, init="plain", seed=5, **STANDING_STILL)
    trained(here / "tiles", tmp_path / "out", values, init=here / "plain")
    before, after = weights(here / "plain"), weights(tmp_path / "out")
    assert close(after["encoder.stages.3.0.conv2.weight"], before["layer4.0.conv2.weight"])
    assert not close(after["tile_head.weight"], before["fc.weight"])


@pytest.mark.parametrize("changed", [{"pixel_channels": 24}, {"pixel_channels": None}])
def test_a_start_from_another_width_is_refused(here: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    """The message names both widths."""
    values = config(PIXELS, init="pixels", **changed)
    message = f"has pixel_channels 16, the experiment asks for {changed['pixel_channels']}"
    with pytest.raises(InputError, match=message):
        trained(here / "tiles", tmp_path / "out", values, init=here / "pixels")


def grey_tiles(root: Path) -> Path:
    """Eight tiles of 64 px without masks, half of each class, half of them for validation."""
    tiles = np.tile(20 * np.arange(8, dtype=np.uint8)[:, None, None, None], (1, 64, 64, 3))
    return write_set(root, tiles, [0, 1] * 4, ["train"] * 4 + ["val"] * 4).root


@pytest.mark.parametrize(
    ("network", "words"), [("small", "bfloat16"), ("efficientnet_lite0", "float32 (faster")]
)
def test_an_efficientnet_trains_in_float32_on_a_cpu_with_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, words: str
) -> None:
    """It is faster with it; a ResNet is not."""
    pytest.importorskip("timm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    changed = {"network": network, "precision": "auto", "image_px": 64}
    summary = trained(grey_tiles(tmp_path / "tiles"), tmp_path / "out", config(TILES_ONLY, **changed))
    assert words in str(summary["model"])


def test_a_pixel_head_at_another_size_than_the_photos_is_refused(tmp_path: Path) -> None:
    """It would inspect photos at twice the size of what it learned from."""
    root = grey_tiles(tmp_path / "tiles")
    with pytest.raises(InputError, match="image_px: 32"):
        trained(root, tmp_path / "out", config(PIXELS))


@pytest.mark.parametrize("role", ["init", "teacher"])
@pytest.mark.parametrize("classes", [["crack", "no crack"], ["a", "b", "c"]])
def test_a_model_of_other_classes_is_refused(
    here: Path, tmp_path: Path, role: str, classes: list[str]
) -> None:
    """In another order its answers mean the opposite."""
    shutil.copytree(here / "pixels", tmp_path / "other")
    path = tmp_path / "other/model.json"
    tensors = load_file(tmp_path / "other/weights.safetensors")
    tensors["tile_head.weight"] = torch.zeros(len(classes), tensors["tile_head.weight"].shape[1])
    tensors["tile_head.bias"] = torch.zeros(len(classes))
    save_file(tensors, tmp_path / "other/weights.safetensors")
    described = json.loads(path.read_text()) | {"classes": classes}
    described["weights_sha256"] = sha256_file(tmp_path / "other/weights.safetensors")
    path.write_text(json.dumps(described))
    values = config(PIXELS, **{role: "other"})
    with pytest.raises(InputError, match="tells apart"):
        trained(here / "tiles", tmp_path / "out", values, **{role: tmp_path / "other"})


def test_a_teacher_that_sees_another_size_is_refused(tmp_path: Path) -> None:
    """Of the same tiles, averaged down less."""
    root = grey_tiles(tmp_path / "tiles")
    trained(root, tmp_path / "large", config(TILES_ONLY, image_px=64))
    taught = config(TILES_ONLY, teacher="large")
    with pytest.raises(InputError, match="images of 64 px"):
        trained(root, tmp_path / "out", taught, teacher=tmp_path / "large")


@pytest.mark.parametrize("values", [PIXELS, TILES_ONLY], ids=["pixels", "tiles"])
def test_a_start_from_encoder_weights(here: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    """The body is that of the file, whose hash is the model's lineage."""
    body = snapshot_of(build_network("small", 1000, 9))
    save_file(body, tmp_path / "weights.safetensors")
    started = config(values, encoder_weights=str(tmp_path / "weights.safetensors"), **STANDING_STILL)
    trained(here / "tiles", tmp_path / "out", started)
    name = "encoder.stem.0.weight" if values["pixel_channels"] else "conv1.weight"
    assert close(weights(tmp_path / "out")[name], body["conv1.weight"])
    assert ModelInfo.read(tmp_path / "out").init_sha256 == sha256_file(tmp_path / "weights.safetensors")


def test_unlabelled_tiles_are_not_in_the_way_of_others(here: Path, tmp_path: Path) -> None:
    """A network without a pixel head trains on the same set as if they were not there."""
    tile_set(tmp_path / "same")
    trained(tmp_path / "same", tmp_path / "out", config(TILES_ONLY))
    before, after = weights(here / "plain"), weights(tmp_path / "out")
    assert all(torch.equal(before[name], after[name]) for name in before)
