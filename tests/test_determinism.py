"""The whole graph twice, with everything about the machine that must not matter changed: the same lock."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from smallest import one_chain, smallest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COPIED = ("dvc.yaml", "requirements", "snapshots", "src", ".dvcignore")
pytestmark = pytest.mark.slow
# German by another encoding where there is one: other sorting, commas in numbers, other bytes of letters.
LOCALES = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split()
LOCALE = next((name for name in ("de_DE.iso88591", "tr_TR.utf8", "de_DE.utf8") if name in LOCALES), "C")
PLAIN = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "COLUMNS": "80"}
OTHER = {"TZ": "Pacific/Kiritimati", "LC_ALL": LOCALE, "PYTHONHASHSEED": "77", "COLUMNS": "200"}


def copied(folder: Path) -> Path:
    """The checkout with the smallest values, in a folder of its own."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    params = one_chain(smallest(ROOT), {"network": "resnet18"})
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def locked(folder: Path, environment: dict[str, str], umask: int) -> dict[str, Any]:
    """Run the graph; return the stages of dvc.lock."""
    settings = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "DAMCRACK_TRACK": "later",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }
    for command in (["dvc", "init", "--no-scm", "--quiet"], ["dvc", "repro"]):
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | settings | environment,
            umask=umask,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    stages: dict[str, Any] = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return stages


def test_the_same_lock_in_another_folder_zone_and_language(tmp_path: Path) -> None:
    """Names of folders, umask, time zone, locale, hash seed and width of the terminal are in no output."""
    folders = copied(tmp_path / "a"), copied(tmp_path / "a folder/of another name")
    one, other = locked(folders[0], PLAIN, 0o022), locked(folders[1], OTHER, 0o077)
    different = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    assert different == []
