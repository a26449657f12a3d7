"""What a pod loads before it finds that a stage was done elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "torchvision",
    "mlflow",
    "kfp",
    "cv2",
    "numpy",
    "scipy",
    "onnxruntime",
    "matplotlib",
    "pydantic",
)


def test_a_restored_stage_loads_no_heavy_library(finished, capfd):
    """No process of it, DVC's own included, imports one that takes more than a moment."""
    code = (
        "from damcrack.kubeflow.task import Task, run_task; import sys;"
        f"done = run_task(Task('first', [], {finished.params!r}, {str(finished.remote)!r})); assert done.restored"
    )
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    shown = "".join(capfd.readouterr())
    imported = {
        line.rpartition("|")[2].strip() for line in shown.splitlines() if line.startswith("import time:")
    }
    assert {"dvc", "dvc.repo"} <= imported
    assert not imported & set(HEAVY)
