"""The pipeline for real: the repository's graph on a small sample, as processes of kfp's local runner, twice."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')


from damcrack.kubeflow.graph import derive
from damcrack.kubeflow.pipeline import Setting
from damcrack.tracking.recorded import send_later
from damcrack.tracking.store import RESTORED_FROM
from local_pipeline import LocalRun, run_as_processes
from smallest import one_chain, smallest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
# Another encoding where there is one: other sorting, commas in numbers, other bytes of letters.
LOCALES = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split()
LOCALE = next((name for name in ("de_DE.iso88591", "tr_TR.utf8", "de_DE.utf8") if name in LOCALES), "C")
HERE = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "COLUMNS": "80"}
ELSEWHERE = {"TZ": "Pacific/Kiritimati", "LC_ALL": LOCALE, "PYTHONHASHSEED": "77", "COLUMNS": "200"}


def params() -> str:
    """One model of each kind; a small network plays the teacher."""
    return yaml.safe_dump(one_chain(smallest(ROOT), {"network": "resnet18"}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalRun, LocalRun, str, str, Path]:
    """Two runs with one remote: what each left, the text of each lock, and the folder."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "remote").mkdir()
    (folder / "scratch").mkdir()
    setting = Setting(ROOT, params(), str(folder / "remote"), {"cpu": "python", "train": "python"}, "abc")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in HERE.items():
            patch.setenv(name, value)
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
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


def test_second_run_executes_nothing_and_ends_with_the_same_lock(runs):
    """All stages ran once; then none did, the one that acts on the registry included: what it did still stands."""
    first, second, first_lock, second_lock, _ = runs
    names = {node.name for node in derive(ROOT, params())}
    assert set(first.restored) == names and not any(first.restored.values())
    assert set(second.restored) == names and all(second.restored.values())
    assert first_lock == second_lock
    assert set(yaml.safe_load(first_lock)["stages"]) == names


def test_kubeflow_draws_numbers_and_page(runs):
    """The evaluation hands on the chosen experiment's numbers and its page."""
    for path in (runs[-1] / "second").rglob("executor_output.json"):
        artifacts = json.loads(path.read_text())["artifacts"]
        metadata = {name: found["artifacts"][0]["metadata"] for name, found in artifacts.items()}
        if metadata.get("page", {}).get("stage") == "evaluate":
            break
    assert 0 <= metadata["metrics"]["accuracy"] <= 1 and metadata["metrics"]["restored"] == 1
    assert "<html" in (path.parent / "page").read_text()


def test_restored_stages_show_in_mlflow_with_the_run_that_made_them(runs):
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


def test_dvc_repro_on_a_laptop_gives_the_same_lock(runs, tmp_path):
    """Every entry is that of the cluster, and so are all bytes of all outputs, where nothing else is the same.

    Names of folders, umask, time zone, locale, hash seed and width of the terminal are in no output.
    """
    folder = tmp_path / "a folder/of another name"
    folder.mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", "requirements", "snapshots", "src"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(params())
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "DAMCRACK_TRACK": "later",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        **ELSEWHERE,
    }
    for arguments in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        command = [sys.executable, "-m", "dvc", *arguments]
        subprocess.run(command, cwd=folder, env=environment, umask=0o077, check=True)
    laptop, cluster = (yaml.safe_load(text) for text in ((folder / "dvc.lock").read_text(), runs[2]))
    assert {name for name in laptop["stages"] if laptop["stages"][name] != cluster["stages"][name]} == set()
    assert laptop == cluster


def test_no_machine_path_is_in_what_the_run_hands_on(runs):
    """The lock names paths inside the checkout only."""
    assert not re.search(r"(?<![\w.])/(tmp|root|home)/", runs[2])
