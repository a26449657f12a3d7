"""`damcrack check` beside a dvc.yaml: names that no stage makes are found before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from damcrack.cli.main import cli
from damcrack.files import InputError
from damcrack.kubeflow.graph import check_graph, derive
from damcrack.params import check_params
from damcrack.stage_table import STAGES
from smallest import detector_alone

pytest.importorskip("dvc", reason='needs pip install "damcrack[graph]"')
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
COMPILE = ["pipeline", "compile", "--remote", "s3://a/b", "--cpu-image", "a", "--train-image", "b"]


def check(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Result:
    """`damcrack check` of these values in the checkout."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(params, sort_keys=False))
    monkeypatch.chdir(ROOT)
    return CliRunner().invoke(cli, ["check", str(file)])


@pytest.mark.parametrize(
    ("section", "changed", "found"),
    [
        ("export", {"experiment": "lite1-detector"}, "export reads models/finetune/lite1-detector"),
        ("export", {"experiment": "resnet18-fixed"}, "export.experiment"),
        ("finetune", {"pretrained": {"mine": {"init": "resnet19"}}}, "mine reads models/pretrain/resnet19"),
        (
            "finetune",
            {"taught": {"mine": {"init": "dynamic", "teacher": "none"}}},
            "reads models/finetune/none",
        ),
        ("finetune", {"pretrained": {"mine": {}}}, "finetune-pretrained@mine"),
        ("finetune", {"taught": None}, "a group without items is written {}"),
        (
            "finetune",
            {"scratch": {"mine": {"init": "resnet18"}}},
            "init is 'resnet18', its command gets None",
        ),
        ("finetune", {"pretrained": {"mine": {"init": "resnet50"}}}, "network is resnet18"),
        (
            "finetune",
            {"taught": {"mine": {"init": "dynamic", "teacher": "lite0-detector"}}},
            "pixel_channels",
        ),
        ("pretrain", {"items": {"resnet18": {"network": "resnet18"}}}, "reads models/pretrain/resnet50"),
    ],
)
def test_a_name_that_no_stage_makes_is_refused(
    section: str,
    changed: dict[str, Any],
    found: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The sentence names the stage and what it would read, or the place in dvc.yaml; no path of a copy of ours."""
    params = yaml.safe_load((ROOT / "params/demo.yaml").read_text())
    params[section] |= changed
    error = check(params, monkeypatch, tmp_path).exception
    assert isinstance(error, InputError) and found in str(error) and "damcrack-tmp" not in str(error)


def test_a_network_that_lies_there_may_be_read(tmp_path: Path) -> None:
    """One from elsewhere, where its folder would be: on this machine; in a pod it would be missing."""
    params = yaml.safe_load((ROOT / "params/demo.yaml").read_text())
    params["finetune"]["pretrained"] = {"mine": {"init": "resnet19"}}
    nodes, configs = derive(ROOT, yaml.safe_dump(params)), check_params(params, list(STAGES))
    with pytest.raises(InputError, match="models/pretrain/resnet19"):
        check_graph(nodes, configs, tmp_path)
    (tmp_path / "models/pretrain/resnet19").mkdir(parents=True)
    assert check_graph(nodes, configs, tmp_path) == []


def test_a_pipeline_is_not_compiled_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pod would find the network missing after the trainings before."""
    pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')
    params = yaml.safe_load((ROOT / "params/demo.yaml").read_text())
    params["finetune"]["pretrained"] = {"mine": {"init": "resnet19"}}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(ROOT)
    out = ["--out", str(tmp_path / "training.yaml"), "--params", str(tmp_path / "values.yaml")]
    found = CliRunner().invoke(cli, [*COMPILE, *out, "--revision", "abc"]).exception
    assert isinstance(found, InputError) and "models/pretrain/resnet19" in str(found)
    assert not (tmp_path / "training.yaml").exists()


def test_compiling_without_git_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It needs a commit's name, and asks for one."""
    pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')
    assert CliRunner().invoke(cli, ["init", str(tmp_path)]).exit_code == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    found = CliRunner().invoke(cli, COMPILE).exception
    assert isinstance(found, InputError) and "--revision" in str(found)


def test_an_item_that_no_stage_runs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A group that dvc.yaml does not know is no mistake of the values; what is in it would never be trained."""
    params = yaml.safe_load((ROOT / "params/demo.yaml").read_text())
    params["finetune"]["scrach"] = {"mine": {}}
    said = check(params, monkeypatch, tmp_path)
    assert said.exit_code == 0
    assert [line.split()[4] for line in said.output.splitlines() if "no stage runs" in line] == [
        "finetune@mine;"
    ]


def test_values_in_a_file_beside_the_graph_are_read(tmp_path: Path) -> None:
    """A dvc.yaml may have `vars` of its own; a folder with a file's suffix is none of them."""
    stage = {"cmd": "echo ${word}", "outs": ["${word}"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"vars": ["own.yaml"], "stages": {"say": stage}}))
    (tmp_path / "own.yaml").write_text("word: crack\n")
    (tmp_path / "photos.yaml").mkdir()
    assert [node.command for node in derive(tmp_path, "{}")] == ["echo crack"]


def test_a_detector_alone_is_a_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The networks of the paper can be left out."""
    params = detector_alone(yaml.safe_load((ROOT / "params/demo.yaml").read_text()))
    assert "8 stages" in check(params, monkeypatch, tmp_path).output


def test_only_the_sections_that_a_graph_takes_must_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The detector's graph takes four and is whole, a fifth is no mistake; without one of them it is refused."""
    monkeypatch.chdir(ROOT / "experiments/detector")
    params, values = yaml.safe_load(Path("params.yaml").read_text()), tmp_path / "values.yaml"
    for more, num in (({}, 5), ({"evaluate": {}}, 6)):
        values.write_text(yaml.safe_dump(params | more))
        done = CliRunner().invoke(cli, ["check", str(values)])
        assert done.exit_code == 0 and "9 stages" in done.output and f"{num} configs" in done.output
        assert "no stage runs" not in done.output
    del params["tile"]
    values.write_text(yaml.safe_dump(params))
    error = CliRunner().invoke(cli, ["check", str(values)]).exception
    assert isinstance(error, InputError) and "'tile'" in str(error)
