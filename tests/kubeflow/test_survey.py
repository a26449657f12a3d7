"""A survey in parts as a pipeline: run by kfp's local runner over a real bucket, and compiled."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from damcrack.cli.main import cli
from damcrack.data.photo import encode_jpeg
from damcrack.files import InputError
from damcrack.imagery.bucket_survey import cut
from damcrack.storage.source import open_source
from walls import concrete, coverage, line, photo, rgb, write_darkness_detector

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')
from kfp import local

from damcrack.kubeflow import survey as pipelines
from damcrack.kubeflow.pipeline import compile_pipeline
from damcrack.kubeflow.survey import survey

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning"),
]
SIZE = (224, 336)
IMAGE = "damcrack-cpu@sha256:" + "a" * 64
TABLES = ("photos.csv", "blocks.csv", "cracks.csv", "set-aside.csv", "cracks.geojson", "cracks.coco.json")


def picture(seed):
    cover = coverage(SIZE, line((150, 110), 20.0 * seed, 150), 5.0)
    return encode_jpeg(rgb(photo(concrete(SIZE, seed), cover)))


def test_two_parts_write_what_one_machine_writes(s3, tmp_path, monkeypatch):
    """Tables and page are the same bytes. A part that failed is repeated, and finds what the other part stored.

    No other survey gets into a finished one.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipelines, "equip", lambda task, *_: task)  # no pauses before a retry
    bucket = s3({f"in/{seed}.jpg": picture(seed) for seed in range(4)} | {"in/copy.jpg": picture(3)})
    given, out = f"s3://{bucket}/in", f"s3://{bucket}/survey"
    model = str(write_darkness_detector(tmp_path / "model.onnx"))
    assert CliRunner().invoke(cli, ["inspect", given, "--model", model, "--out", "alone"]).exit_code == 0
    store, stored = open_source(out), [path.name for path in Path("alone/photos").iterdir()]
    blocked = f"photos/{stored[0]}/findings.json"
    store.create(blocked, b"{}")

    def run():
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "kfp"))
        survey(IMAGE, {}, given, out)(model=model, photos_per_part=3)

    with pytest.raises(RuntimeError):
        run()
    there = {one.name.split("/")[1] for one in store.listed("photos/")}
    assert len(there) > 1 and not store.listed("survey.json")
    import boto3

    boto3.client("s3").delete_object(Bucket=bucket, Key=f"survey/{blocked}")
    run()
    for name in (*TABLES, "report.html", "survey.json"):
        assert store.read(name) == Path("alone", name).read_bytes(), name
    with pytest.raises(InputError, match="finished survey"):
        cut(given, out, model, 3)


def test_every_task_has_a_deadline_and_is_repeated_alone(tmp_path):
    """A part's retry repeats no other part, and nothing comes from Kubeflow's cache; no second machine is asked for."""
    compile_pipeline(
        survey(IMAGE, {"inspect": {"threshold": 0.4}, "photos": {}}, "s3://a/in", "s3://a/out"),
        tmp_path / "p.yaml",
    )
    spec, platform = yaml.safe_load_all((tmp_path / "p.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(executors) == 3
    assert all(int(pod["activeDeadlineSeconds"]) <= 86400 for pod in executors.values())
    dags = [spec["root"], *(one for one in spec["components"].values() if "dag" in one)]
    tasks = {name: task for dag in dags for name, task in dag["dag"]["tasks"].items()}
    ours = [tasks[name] for name in ("cut-survey", "inspect-part", "write-survey")]
    assert all(task["retryPolicy"]["maxRetryCount"] == 2 for task in ours)
    assert not any(task["cachingOptions"].get("enableCache") for task in ours)
    values = spec["root"]["inputDefinitions"]["parameters"]["params"]["defaultValue"]
    assert yaml.safe_load(values) == {"inspect": {"threshold": 0.4}}


def test_the_command_compiles_it(tmp_path, monkeypatch):
    """With an image and two buckets; a folder is refused, since pods share no disk."""
    monkeypatch.chdir(Path(__file__).parents[2])
    arguments = ["pipeline", "compile", "--cpu-image", IMAGE, "--out", str(tmp_path / "p.yaml"), "--survey"]
    assert CliRunner().invoke(cli, [*arguments, "s3://a/in", "s3://a/out"]).exit_code == 0
    assert IMAGE in (tmp_path / "p.yaml").read_text()
    assert CliRunner().invoke(cli, [*arguments, "in", "s3://a/out"]).exit_code != 0
    assert CliRunner().invoke(cli, arguments[:-1]).exit_code == 2
