"""New imagery teaches without a label: one run of the pipeline, every stage that leads to the gate real."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from damcrack.data.photo import decode_photo, encode_jpeg
from damcrack.files import read_csv
from damcrack.sample.concrete import encode_photo, render_photo
from smallest import detector_alone, smallest

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
    """The detector alone, which learns from tiles without a label too."""
    params = detector_alone(smallest(ROOT))
    params["photos"]["sources"] = {"sample": "sample", "incoming": f"{store}/accepted"}
    params["tile"]["unlabelled_tiles"] = 12
    (student,) = params["finetune"]["shipped"].values()
    student["unlabelled_share"] = 0.25
    return params


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose graph lacks the two stages that neither train the detector nor judge it."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("src", "requirements", "snapshots", ".dvcignore"):
        (folder / name).symlink_to(ROOT / name)
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    for stage in ("miniimagenet", "inspect"):
        del graph["stages"][stage]
    (folder / "dvc.yaml").write_text(yaml.safe_dump(graph))
    return folder


def test_photos_without_a_label_train_a_student_that_the_gate_judges(checkout, tmp_path, monkeypatch):
    """Inspected by one run, which trains on the sharp ones; the next poll does nothing, each photo counts once."""
    for name in ("incoming", "remote", "scratch"):
        (tmp_path / name).mkdir()
    for name, content in arrivals().items():
        (tmp_path / "incoming" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "incoming" / name).write_bytes(content)
    store = tmp_path / "store"
    imagery = {"incoming": str(tmp_path / "incoming"), "store": str(store), "train_after_photos": 4}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    for name, value in {
        "PYTHONPATH": str(ROOT / "src"),
        "DAMCRACK_CHECKOUT": str(checkout),
        # With a scratch folder the stage `register` alone sends runs to MLflow, which takes seconds to import.
        "DAMCRACK_SCRATCH": str(tmp_path / "scratch"),
        "DAMCRACK_TRACK": "later",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }.items():
        monkeypatch.setenv(name, value)
    params = yaml.safe_dump(values(store))
    setting = Setting(checkout, params, str(tmp_path / "remote"), {"cpu": "python", "train": "python"}, "abc")
    pipeline = new_imagery(setting, yaml.safe_dump(imagery))

    def run(name):
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / name))
        pipeline(model="shipped")
        found = (json.loads(path.read_text()) for path in (tmp_path / name).rglob("executor_output.json"))
        return [one for one in found if "metrics" in one.get("artifacts", {})]

    stages = run("first")
    (report,) = (json.loads(path.read_text()) for path in (store / "inspected").iterdir())
    assert len(report["photos"]) == 6
    (snapshot,) = (store / "snapshots").iterdir()
    rows = [row["name"] for row in read_csv(snapshot) if row["source"] == "incoming"]
    assert len(rows) == 4 and all(name.startswith("photos/") for name in rows)
    assert [path.name for path in (store / "trained").iterdir()] == ["00000001.json"]
    assert len(stages) == 6
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (version,) = client.search_model_versions("name='dam-crack-detector'")
    assert version.version
    assert run("second") == []
