"""New imagery teaches without a label: one run of the pipeline, every stage of the graph real."""

import csv
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from damcrack.data.photo import decode_photo, encode_jpeg
from damcrack.registry.registry import records_of
from damcrack.sample.concrete import encode_photo, render_photo
from damcrack.storage.source import open_source
from smallest import one_chain, smallest

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')
from kfp import local

from damcrack.kubeflow.new_imagery import new_imagery
from damcrack.kubeflow.pipeline import Setting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning"),
]
ROOT = Path(__file__).parents[2]
SIZE = (448, 672)


def arrivals():
    """Four walls by other names, one of them at night and one out of focus, which say nothing; no mask at all."""
    walls = [encode_photo(render_photo(11, number, SIZE).rgb, number) for number in range(4)]
    pixels = decode_photo(walls[0], 10**7)
    unusable = [np.asarray(pixels // 12, np.uint8), np.asarray(cv2.GaussianBlur(pixels, (0, 0), 9), np.uint8)]
    return {f"flight/{number}.jpg": one for number, one in enumerate([*walls, *map(encode_jpeg, unusable)])}


def values(store):
    """The smallest graph, whose student learns from tiles without a label too."""
    params = one_chain(smallest(ROOT), {"network": "resnet18"})
    params["photos"]["sources"] = {"sample": "sample", "incoming": f"{store}/accepted"}
    params["tile"]["unlabelled_tiles"] = 12
    (student,) = params["finetune"]["shipped"].values()
    student["unlabelled_share"] = 0.25
    return params


def test_photos_without_a_label_train_a_student_that_the_gate_judges(s3, tmp_path, monkeypatch):
    """One run inspects all and trains on those that can be judged; the next has nothing to do: each counts once."""
    bucket = s3({f"in/{name}": content for name, content in arrivals().items()})
    store = f"s3://{bucket}/store"
    imagery = {"incoming": f"s3://{bucket}/in", "store": store, "train_after_photos": 4}
    (tmp_path / "remote").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("DAMCRACK_CHECKOUT", str(ROOT))
    monkeypatch.setenv("DAMCRACK_TRACK", "later")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    params = yaml.safe_dump(values(store))
    setting = Setting(ROOT, params, str(tmp_path / "remote"), {"cpu": "python", "train": "python"}, "abc")
    pipeline = new_imagery(setting, yaml.safe_dump(imagery))

    def run(name):
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / name))
        pipeline(model="shipped")
        outputs = [json.loads(path.read_text()) for path in (tmp_path / name).rglob("executor_output.json")]
        stages = [one["artifacts"] for one in outputs if "page" in one.get("artifacts", {})]
        return [one["page"]["artifacts"][0]["metadata"]["stage"] for one in stages]

    stages = run("first")
    assert {"tile", "finetune-shipped@lite0-detector", "register"} <= set(stages)
    there = open_source(store)
    (report,) = [json.loads(there.read(one.name)) for one in there.listed("inspected/")]
    assert len(report["photos"]) == 6
    (snapshot,) = there.listed("snapshots/")
    rows = list(csv.DictReader(there.read(snapshot.name).decode().splitlines()))
    ours = [row["name"] for row in rows if row["source"] == "incoming"]
    assert len(ours) == 4 and all(name.startswith("photos/") for name in ours)
    assert [one.name for one in there.listed("trained/")] == ["trained/00000001.json"]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (version,) = client.search_model_versions("name='dam-crack-detector'")
    assert records_of(version)[0]["decision"] == "promoted"
    assert run("second") == []
