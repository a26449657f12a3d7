"""The graph for real: a tiny copy of it run by DVC, by the local runner of Kubeflow Pipelines, and by other callers."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from damcrack.kubeflow.graph import derive
from damcrack.params import stage_config
from damcrack.run import Run
from damcrack.storage.source import open_source
from damcrack.tracking.send import send_later
from damcrack.tracking.store import RESTORED_FROM
from smallest import one_chain, smallest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COPIED = ("dvc.yaml", "requirements", "snapshots", "src", ".dvcignore")
pytestmark = pytest.mark.slow
# Another encoding where there is one: other sorting, commas in numbers, other bytes of letters.
LOCALES = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split()
LOCALE = next((name for name in ("de_DE.iso88591", "tr_TR.utf8", "de_DE.utf8") if name in LOCALES), "C")
HERE = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "COLUMNS": "80"}
ELSEWHERE = {"TZ": "Pacific/Kiritimati", "LC_ALL": LOCALE, "PYTHONHASHSEED": "77", "COLUMNS": "200"}


def tiny_params() -> dict[str, Any]:
    """One model of each kind; a small network plays the teacher."""
    return one_chain(smallest(ROOT), {"network": "resnet18"})


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


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the whole tiny graph has run once, elsewhere; `first.lock` is its lock then."""
    folder = tmp_path_factory.mktemp("graph") / "a folder/of another name"
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(
            source, folder / name
        )
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params(), sort_keys=False))
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


def test_photos_function_gives_the_bytes_of_dvc(workspace: Path, tmp_path: Path) -> None:
    """The built-in sample is a function of its seed."""
    from damcrack.data.photos import photos

    config = stage_config(tiny_params(), "photos", None)
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, patched_kfp: None) -> Any:
    """Two runs with one remote: what each left, the text of each lock, and the folder."""
    pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')
    from damcrack.kubeflow.pipeline import Setting
    from local_pipeline import run_as_processes

    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "remote").mkdir()
    (folder / "scratch").mkdir()
    params, images = yaml.safe_dump(tiny_params()), {"cpu": "python", "train": "python"}
    setting = Setting(ROOT, params, str(folder / "remote"), images, "abc")
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
        first = run_as_processes(setting, folder / "first")
        second = run_as_processes(setting, folder / "second")
        (folder / ".damcrack").symlink_to(folder / "scratch")
        send_later()
    return first, second, first.lock.read_text(), second.lock.read_text(), folder


def test_second_run_executes_nothing_and_ends_with_the_same_lock(runs: Any) -> None:
    """All stages ran once; then none did, the one that acts on the registry included: what it did still stands."""
    first, second, first_lock, second_lock, _ = runs
    names = {node.name for node in derive(ROOT, yaml.safe_dump(tiny_params()))}
    assert set(first.restored) == names and not any(first.restored.values())
    assert set(second.restored) == names and all(second.restored.values())
    assert first_lock == second_lock
    assert set(yaml.safe_load(first_lock)["stages"]) == names


def test_kubeflow_draws_numbers_and_page(runs: Any) -> None:
    """The evaluation hands on the chosen experiment's numbers and its page."""
    for path in (runs[-1] / "second").rglob("executor_output.json"):
        artifacts = json.loads(path.read_text())["artifacts"]
        metadata = {name: found["artifacts"][0]["metadata"] for name, found in artifacts.items()}
        if metadata.get("page", {}).get("stage") == "evaluate":
            break
    assert 0 <= metadata["metrics"]["accuracy"] <= 1 and metadata["metrics"]["restored"] == 1
    assert "<html" in (path.parent / "page").read_text()


def test_restored_stages_show_in_mlflow_with_the_run_that_made_them(runs: Any) -> None:
    """Each restored stage is a run tagged damcrack.restored_from, which names the run of its first execution."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs[-1] / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("damcrack")
    found = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    restored = [run for run in found.values() if RESTORED_FROM in run.data.tags]
    assert len(restored) == sum(runs[1].restored.values())
    for run in restored:
        maker = found[run.data.tags[RESTORED_FROM]]
        assert maker.info.run_name == run.info.run_name and RESTORED_FROM not in maker.data.tags


def test_dvc_repro_on_a_laptop_gives_the_same_lock(runs: Any, workspace: Path) -> None:
    """Every entry is that of the cluster, and so are all bytes of all outputs, where nothing else is the same.

    Names of folders, umask, time zone, locale, hash seed and width of the terminal are in no output.
    """
    laptop, cluster = (yaml.safe_load(text) for text in ((workspace / "first.lock").read_text(), runs[2]))
    assert {name for name in laptop["stages"] if laptop["stages"][name] != cluster["stages"][name]} == set()
    assert laptop == cluster


def test_no_machine_path_is_in_what_the_run_hands_on(runs: Any) -> None:
    """The lock names paths inside the checkout only."""
    assert not re.search(r"(?<![\w.])/(tmp|root|home)/", runs[2])
