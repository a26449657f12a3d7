"""params.yaml: every mistake is named by section and field."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from damcrack.files import InputError
from damcrack.params import check_params, flatten, flatten_values, read_params, stage_config
from damcrack.stage_table import STAGES

DEMO = Path(__file__).parents[1] / "params" / "demo.yaml"


def demo() -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load(DEMO.read_text())
    return params


def changed(section: str, *path: str, value: object) -> dict[str, Any]:
    """The demo values with one changed."""
    params = demo()
    target = params[section]
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    return params


def test_item_values_override_the_common_ones() -> None:
    """An experiment has the common values, with its own in their place."""
    params = changed("finetune", "scratch", "resnet18-scratch", value={"epochs": 3})
    config = stage_config(params, "finetune", "resnet18-scratch")
    assert config.epochs == 3
    assert config.learning_rate == params["finetune"]["common"]["learning_rate"]


@pytest.mark.parametrize(
    ("section", "path", "value", "words"),
    [
        ("tile", ("crack_fracton",), 0.1, ["tile.crack_fracton", "did you mean 'crack_fraction'?"]),
        ("tile", ("tile_px",), "big", ["tile.tile_px", "'big'", "integer"]),
        ("tile", ("split",), "scene", ["tile.split", "'scene'", "'random'"]),
        ("distill", ("common", "alpha"), 1.5, ["distill.fixed.alpha", "1.5", "less than or equal to 1"]),
        ("distill", ("items", "dynamic", "temperature", "t_mim"), 3, ["t_mim", "did you mean 't_min'?"]),
        ("distill", ("items", "dynamic", "temperature", "t_max"), 1.0, ["t_max", "t_min < t_max"]),
        (
            "pretrain",
            ("common", "epochs"),
            0,
            ["pretrain.resnet18.epochs", "0", "greater than or equal to 1"],
        ),
        ("pretrain", ("common", "learning_rate"), -1, ["learning_rate", "-1", "greater than 0"]),
        ("pretrain", ("common", "learning_rate"), float("inf"), ["learning_rate", "finite"]),
        ("pretrain", ("common", "seed"), 10**20, ["seed", "less than"]),
        ("photos", ("max_megapixels",), float("inf"), ["max_megapixels", "finite"]),
        ("finetune", ("scratch",), {"my walls": {}}, ["finetune", "'my walls'", "letters"]),
        ("finetune", ("scratch",), {"walls/2027": {}}, ["finetune", "'walls/2027'"]),
        ("finetune", ("common", "trainable"), "neck", ["trainable", "'neck'", "'head'"]),
        # Each alone is allowed; a later stage would refuse them.
        ("tile", ("tile_px",), 224, ["resnet18-scratch", "image_px: 64", "224"]),
        ("finetune", ("shipped", "lite0-detector", "image_px"), 64, ["lite0-detector", "64", "128"]),
        ("finetune", ("shipped", "lite0-detector", "unlabelled_share"), 0.5, ["unlabelled_tiles"]),
    ],
)
def test_wrong_values_are_named(section: str, path: tuple[str, ...], value: object, words: list[str]) -> None:
    """The message has the field, what was given and what is allowed."""
    with pytest.raises(InputError) as caught:
        check_params(changed(section, *path, value=value), list(STAGES))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_missing_value_is_named() -> None:
    """What has no default is asked for by name; what has one may be left out."""
    params = demo()
    del params["miniimagenet"]["image_px"], params["tile"]["tile_px"]
    with pytest.raises(InputError, match=r"miniimagenet\.image_px"):
        stage_config(params, "miniimagenet", None)
    assert stage_config(params, "tile", None).tile_px == 224


def test_all_wrong_values_are_named_at_once() -> None:
    """Two mistakes take one call to find."""
    params = changed("tile", "split", value="scene")
    params["tile"]["seed"] = -1
    with pytest.raises(InputError) as caught:
        stage_config(params, "tile", None)
    assert "tile.split" in str(caught.value) and "tile.seed" in str(caught.value)


def test_checking_loads_no_network_library() -> None:
    """A machine without torch can check values."""
    code = (
        "import sys; from pathlib import Path; from damcrack.params import check_params, read_params\n"
        "from damcrack.stage_table import STAGES\n"
        f"check_params(read_params(Path({str(DEMO)!r})), list(STAGES))\n"
        "print('LOADED', sorted({'torch', 'mlflow', 'matplotlib', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout


def test_unknown_sections_and_items_are_refused_with_a_guess() -> None:
    """A mistyped section does not silently leave its stage at other values; of items the known ones are listed."""
    with pytest.raises(InputError, match=r"'tiles' \(did you mean 'tile'\?\)"):
        check_params({**demo(), "tiles": {}}, list(STAGES))
    with pytest.raises(InputError, match="resnet18-scratch"):
        stage_config(demo(), "finetune", "resnet18-scrath")


def test_missing_file_and_broken_yaml_are_named(tmp_path: Path) -> None:
    """As is another encoding: all are the user's to fix, without a traceback."""
    with pytest.raises(InputError, match="missing"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("tile: [1,")
    with pytest.raises(InputError, match="not YAML"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("tile: {}", encoding="utf-16")  # as an editor of Windows saves it
    with pytest.raises(InputError, match=r"params\.yaml"):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, text) for text in ("1:30", "on", "no", "2026-05-01")),
        *(("010", 10), ("0x10", 16), ("1e-3", 0.001), ("-1.5", -1.5), (".5", 0.5)),
        *(("true", True), ("", None), ("~", None)),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """As DVC reads the same file."""
    read = read_params(f"tile: {{seed: {text}}}")["tile"]["seed"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["tile: {seed: 1, seed: 2}", "tile: {}\ntile: {}", "photos: {sources: {own: a, own: b}}"]
)
def test_a_name_that_is_there_twice_is_refused(text: str) -> None:
    """YAML libraries take the last one in silence."""
    with pytest.raises(InputError, match="twice"):
        read_params(text)


def test_names_are_text_and_merged_mappings_may_be_overridden() -> None:
    """Items may be called 1, on or by a date."""
    text = "a: &a {1: x, seed: 1}\ntile: {<<: *a, seed: 2, on: 3, 2026-05-01: 4}"
    assert read_params(text)["tile"] == {"1": "x", "seed": 2, "on": 3, "2026-05-01": 4}


def test_nothing_after_a_name_is_no_values() -> None:
    """Of a section, its common values, a group and an item."""
    values = "{network: resnet18, image_px: 64, epochs: 1, learning_rate: 0.1}"
    params = read_params(f"tile:\nfinetune:\n  common: {values}\n  none:\n  items:\n    own:\n")
    assert stage_config(params, "finetune", "own").image_px == 64
    assert stage_config(params, "tile", None).tile_px == 224
    params = read_params(f"finetune:\n  common:\n  items:\n    own: {values}\n")
    assert stage_config(params, "finetune", "own").image_px == 64


@pytest.mark.parametrize(
    "section",
    [
        *("[1]", "{common: [1], items: {own: {}}}"),
        *("{common: {}, items: [own]}", "{common: {}, items: {own: resnet18}}"),
    ],
)
def test_what_is_no_mapping_is_refused(section: str) -> None:
    """Of a section, its common values, a group or an item."""
    with pytest.raises(InputError, match="expected names with values"):
        stage_config(read_params(f"finetune: {section}"), "finetune", "own")


def test_an_item_in_two_groups_is_refused() -> None:
    """Both would write the same model."""
    params = read_params("finetune: {common: {}, a: {own: {epochs: 1}}, b: {own: {epochs: 2}}}")
    with pytest.raises(InputError, match="2 groups"):
        stage_config(params, "finetune", "own")


def test_flattened_names_reach_nested_values() -> None:
    """Every value has a dotted name for the tracking server; an empty section is one value of its file."""
    values = flatten(stage_config(demo(), "distill", "dynamic"))
    assert values["temperature.t_max"] == 5.0
    assert values["alpha"] == 0.6
    assert flatten_values({}) == {}
    assert flatten_values({"evaluate": {}}) == {"evaluate": {}}
