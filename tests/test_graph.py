"""The graph for real, tiny: started by new photos in Kubeflow's local runner, and run by DVC and by other callers."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import yaml

from damcrack.data.photo import decode_photo, encode_jpeg
from damcrack.files import read_csv
from damcrack.kubeflow.graph import derive
from damcrack.params import stage_config
from damcrack.run import Run
from damcrack.sample.concrete import encode_photo, render_photo
from damcrack.storage.source import open_source
from damcrack.tracking.send import send_later
from damcrack.tracking.store import RESTORED_FROM
from smallest import one_chain, smallest

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')
from damcrack.kubeflow.new_imagery import new_imagery
from damcrack.kubeflow.pipeline import Setting, training
from local_pipeline import LocalRun, run_as_processes

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COPIED = ("dvc.yaml", "requirements", "snapshots", "src", ".dvcignore")
pytestmark = pytest.mark.slow
# Another encoding where there is one: other sorting, commas in numbers, other bytes of letters.
LOCALES = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split()
LOCALE = next((name for name in ("de_DE.iso88591", "tr_TR.utf8", "de_DE.utf8") if name in LOCALES), "C")
HERE = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "COLUMNS": "80"}
ELSEWHERE = {"TZ": "Pacific/Kiritimati", "LC_ALL": LOCALE, "PYTHONHASHSEED": "77", "COLUMNS": "200"}


def tiny_params(store: Path) -> dict[str, Any]:
    """One model of each kind; a small network plays the teacher. The detector learns from the new photos too."""
    params = one_chain(smallest(ROOT), {"network": "resnet18"})
    params["photos"]["sources"] = {"sample": "sample", "incoming": f"{store}/accepted"}
    params["tile"]["unlabelled_tiles"] = 12
    (detector,) = params["finetune"]["shipped"].values()
    detector["unlabelled_share"] = 0.25
    return params


def arrivals() -> dict[str, bytes]:
    """Four walls by other names, one of them at night and one out of focus, which say nothing; no mask at all."""
    walls = [encode_photo(render_photo(11, number, (448, 672)).rgb, number) for number in range(4)]
    pixels = decode_photo(walls[0], 10**7)
    unusable = [np.asarray(pixels // 12, np.uint8), np.asarray(cv2.GaussianBlur(pixels, (0, 0), 9), np.uint8)]
    return {f"{number}.jpg": one for number, one in enumerate([*walls, *map(encode_jpeg, unusable)])}


def call(workspace: Path, *command: str, **changed: str) -> str:
    """Run a command of the environment in the workspace; return what it printed."""
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(workspace / "src"),
        "DAMCRACK_TRACK": "later",
        "MLFLOW_TRACKING_URI": f"sqlite:///{workspace / 'mlflow.db'}",
        **changed,
    }
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=workspace,
        env=environment,
        umask=0o077 if changed else -1,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '(.*?)'", output))


def digests(folder: Path) -> dict[str, str]:
    """Hash of every file in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


class Cluster(NamedTuple):
    """A folder with services, and what runs in it left: of the photos' first poll, of the next, of the graph alone."""

    folder: Path
    params: dict[str, Any]
    first: LocalRun
    poll: LocalRun
    second: LocalRun

    @property
    def store(self) -> Path:
        """Where new photos are kept."""
        return self.folder / "store"

    @property
    def snapshot(self) -> Path:
        """What was trained on."""
        (path,) = (self.store / "snapshots").iterdir()
        return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, patched_kfp: None) -> Cluster:
    """Three runs with one remote."""
    folder = tmp_path_factory.mktemp("pipeline")
    for name in ("incoming", "remote", "scratch"):
        (folder / name).mkdir()
    for name, content in arrivals().items():
        (folder / "incoming" / name).write_bytes(content)
    params = tiny_params(folder / "store")
    imagery = {"incoming": f"{folder}/incoming", "store": f"{folder}/store", "train_after_photos": 4}
    images = {"cpu": "python", "train": "python"}
    setting = Setting(ROOT, yaml.safe_dump(params), str(folder / "remote"), images, "abc")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in HERE.items():
            patch.setenv(name, value)
        patch.setenv("PATH", str(BIN), prepend=":")
        patch.setenv("PYTHONPATH", str(ROOT / "src"))
        patch.setenv("DAMCRACK_CHECKOUT", str(ROOT))
        patch.setenv("DAMCRACK_SCRATCH", str(folder / "scratch"))
        patch.setenv("DAMCRACK_TRACK", "later")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        polling = partial(new_imagery(setting, yaml.safe_dump(imagery)), model="shipped")
        first, poll = (run_as_processes(polling, folder / name) for name in ("first", "poll"))
        (snapshot,) = (folder / "store/snapshots").iterdir()
        alone = training(replace(setting, snapshots={"photos": str(snapshot)}))
        second = run_as_processes(alone, folder / "second")
        (folder / ".damcrack").symlink_to(folder / "scratch")
        send_later()
    return Cluster(folder, params, first, poll, second)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Path:
    """A workspace in which the same graph has run once, elsewhere; `first.lock` is its lock then."""
    folder = tmp_path_factory.mktemp("graph") / "a folder/of another name"
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(
            source, folder / name
        )
    shutil.copy(cluster.snapshot, folder / "snapshots/photos.csv")
    (folder / "params.yaml").write_text(yaml.safe_dump(cluster.params, sort_keys=False))
    call(folder, "dvc", "init", "--no-scm", "--quiet")
    call(folder, "dvc", "repro", **ELSEWHERE)
    shutil.copy(folder / "dvc.lock", folder / "first.lock")
    return folder


def test_graph_ends_with_a_registered_model(workspace: Path) -> None:
    """All stages ran; the registered weights are those of the exported experiment."""
    registered = json.loads((workspace / "results/register/register.json").read_text())
    model = json.loads((workspace / "models/finetune/lite0-detector/model.json").read_text())
    assert registered["weights_sha256"] == model["weights_sha256"]
    assert "<html" in (workspace / "results/evaluate/results.html").read_text()
    assert "lite0-detector" in call(workspace, "damcrack", "summary")


def test_case_study_looks_at_photos_that_no_training_saw(workspace: Path) -> None:
    """Every block of the test photos is judged, the brightness threshold beside it; the report is there."""
    study = json.loads((workspace / "results/inspect/case-study.json").read_text())
    with (workspace / "data/tiles/tiles.csv").open(newline="") as file:
        splits = {(row["photo"], row["split"]) for row in csv.DictReader(file)}
    with (workspace / "results/inspect/photos.csv").open(newline="", encoding="utf-8-sig") as file:
        inspected = {row["photo"] for row in csv.DictReader(file)}
    assert inspected and {split for photo, split in splits if photo in inspected} == {"test"}
    blocks = study["blocks"]["all"]
    assert blocks["network"]["num_blocks"] == blocks["global threshold"]["num_blocks"] > 0
    assert set(study["pixels"]) == {"network", "global threshold", "Otsu", "adaptive"}
    assert (workspace / "results/inspect/report.html").is_file()


def test_lineage_goes_from_hash_to_hash(workspace: Path) -> None:
    """Crack model, distilled student and teacher name each other by the content of their weights."""
    crack, student, teacher = (
        json.loads((workspace / "models" / name / "model.json").read_text())
        for name in ("finetune/resnet18-dynamic", "distill/dynamic", "pretrain/resnet50")
    )
    assert crack["init_sha256"] == student["weights_sha256"]
    assert student["teacher_sha256"] == teacher["weights_sha256"]


def test_second_run_runs_nothing(workspace: Path) -> None:
    """Nothing changed, so nothing is run."""
    assert stages_run(call(workspace, "dvc", "repro")) == set()


def test_python_function_and_command_give_the_bytes_of_dvc(workspace: Path, tmp_path: Path) -> None:
    """For data and training stages, all three callers write identical files."""
    from damcrack.data.tile import tile
    from damcrack.train.finetune import finetune

    params = yaml.safe_load((workspace / "params.yaml").read_text())
    run = Run(tmp_path / "scratch")
    tile(workspace / "data/photos", tmp_path / "tiles", stage_config(params, "tile", None), run)
    item, init = "resnet18-dynamic", "models/distill/dynamic"
    config = stage_config(params, "finetune", item)
    finetune(tmp_path / "tiles", tmp_path / "model", item, config, run, init=workspace / init)
    command = ["finetune", "--item", item, "--tiles", "data/tiles", "--init", init]
    call(workspace, "damcrack", *command, "--out", str(tmp_path / "by-command"))
    by_dvc = digests(workspace / "models/finetune" / item)
    assert digests(tmp_path / "tiles") == digests(workspace / "data/tiles")
    assert digests(tmp_path / "model") == by_dvc
    assert digests(tmp_path / "by-command") == by_dvc


def test_photos_function_gives_the_bytes_of_dvc(workspace: Path, cluster: Cluster, tmp_path: Path) -> None:
    """The built-in sample is a function of its seed."""
    from damcrack.data.photos import photos

    config = stage_config(cluster.params, "photos", None)
    photos(workspace / "snapshots/photos.csv", tmp_path / "photos", config, open_source, Run())
    assert digests(tmp_path / "photos") == digests(workspace / "data/photos")


def test_changed_values_run_only_what_they_touch(workspace: Path) -> None:
    """A value of the page and one of an experiment: no sibling is trained, nothing is exported or inspected."""
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params["evaluate"]["worst_tiles"] = 3
    params["finetune"]["distilled"]["resnet18-dynamic"]["learning_rate"] = 0.01
    (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert stages_run(call(workspace, "dvc", "repro")) == {
        "finetune-distilled@resnet18-dynamic",
        "evaluate",
        "register",
    }


def test_new_photos_are_inspected_and_teach_without_a_label(cluster: Cluster) -> None:
    """All are inspected, the sharp ones trained on; a model is registered, and the next poll does nothing."""
    (report,) = (json.loads(path.read_text()) for path in (cluster.store / "inspected").iterdir())
    assert len(report["photos"]) == 6
    rows = [row["name"] for row in read_csv(cluster.snapshot) if row["source"] == "incoming"]
    assert len(rows) == 4 and all(name.startswith("photos/") for name in rows)
    assert [path.name for path in (cluster.store / "trained").iterdir()] == ["00000001.json"]
    assert (cluster.poll.lock, cluster.poll.restored) == (None, {})


def test_second_run_executes_nothing_and_ends_with_the_same_lock(cluster: Cluster) -> None:
    """All stages ran once; then none did, the one that acts on the registry included: what it did still stands."""
    names = {node.name for node in derive(ROOT, yaml.safe_dump(cluster.params))}
    first, second = cluster.first, cluster.second
    assert set(first.restored) == names and not any(first.restored.values())
    assert set(second.restored) == names and all(second.restored.values())
    assert first.lock and second.lock and first.lock.read_text() == second.lock.read_text()
    assert set(yaml.safe_load(first.lock.read_text())["stages"]) == names


def test_kubeflow_draws_numbers_and_page(cluster: Cluster) -> None:
    """The evaluation hands on the chosen experiment's numbers and its page."""
    for path in (cluster.folder / "second").rglob("executor_output.json"):
        artifacts = json.loads(path.read_text())["artifacts"]
        metadata = {name: found["artifacts"][0]["metadata"] for name, found in artifacts.items()}
        if metadata.get("page", {}).get("stage") == "evaluate":
            break
    assert 0 <= metadata["metrics"]["accuracy"] <= 1 and metadata["metrics"]["restored"] == 1
    assert "<html" in (path.parent / "page").read_text()


def test_restored_stages_show_in_mlflow_with_the_run_that_made_them(cluster: Cluster) -> None:
    """Each restored stage is a run tagged damcrack.restored_from, which names the run of its first execution.

    There is one version of the model: registering again found it.
    """
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{cluster.folder / 'mlflow.db'}")
    assert len(client.search_model_versions("name='dam-crack-detector'")) == 1
    experiment = client.get_experiment_by_name("damcrack")
    found = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    restored = [run for run in found.values() if RESTORED_FROM in run.data.tags]
    assert len(restored) == sum(cluster.second.restored.values())
    for run in restored:
        maker = found[run.data.tags[RESTORED_FROM]]
        assert maker.info.run_name == run.info.run_name and RESTORED_FROM not in maker.data.tags


def test_dvc_repro_on_a_laptop_gives_the_same_lock(cluster: Cluster, workspace: Path) -> None:
    """Every entry is that of the cluster, and so are all bytes of all outputs, where nothing else is the same.

    Names of folders, umask, time zone, locale, hash seed and width of the terminal are in no output.
    """
    assert cluster.first.lock
    laptop, pods = (
        yaml.safe_load(path.read_text()) for path in (workspace / "first.lock", cluster.first.lock)
    )
    assert {name for name in laptop["stages"] if laptop["stages"][name] != pods["stages"][name]} == set()
    assert laptop == pods


def test_no_machine_path_is_in_what_the_run_hands_on(cluster: Cluster) -> None:
    """The lock names paths inside the checkout only, and the store that the values name."""
    assert cluster.first.lock
    text = cluster.first.lock.read_text().replace(str(cluster.store), "STORE")
    assert not re.search(r"(?<![\w.])/(tmp|root|home)/", text)
