"""The machine that travels: a new environment with the extra `inspect` alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from walls import concrete, coverage, line, photo, rgb, write_darkness_detector

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).parent / "uv"
ABSENT = (
    "torch",
    "torchvision",
    "mlflow",
    "kfp",
    "dvc",
    "boto3",
    "onnx",
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "skimage",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment in which `pip install damcrack[inspect]` was all, at the locked versions."""
    if not UV.exists():
        pytest.skip("needs uv beside Python, as make puts it there")
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    locked = folder / "versions.txt"  # without hashes: they cannot be constraints
    lines = (ROOT / "requirements/lock.txt").read_text().splitlines()
    locked.write_text(
        "\n".join(line.rstrip(" \\") for line in lines if line and not line.startswith((" ", "#")))
    )
    source = folder / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    install = [str(UV), "pip", "install", "--quiet", "--python", str(python), "--constraint", str(locked)]
    subprocess.run([*install, f"{source}[inspect]"], check=True)
    return python


def call(python: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(python), *command], capture_output=True, text=True, check=False, env=environment
    )


def test_the_large_libraries_are_not_there(bare: Path) -> None:
    """Neither torch nor kfp, mlflow nor dvc came along."""
    code = f"import importlib.util as u; print([n for n in {ABSENT!r} if u.find_spec(n)])"
    assert call(bare, "-c", code).stdout.strip() == "[]"


def test_photos_are_inspected_and_compared_there(bare: Path, tmp_path: Path) -> None:
    """From photo to report, review and comparison, with onnxruntime alone."""
    size = (480, 640)
    model = write_darkness_detector(tmp_path / "model.onnx")
    cover = coverage(size, line([320.0, 240.0], 20, 300), 7.0)
    for survey in ("old", "new"):
        (tmp_path / survey).mkdir()
        Image.fromarray(rgb(photo(concrete(size), cover))).save(tmp_path / survey / "a.jpg", quality=95)
        command = (str(bare.parent / "damcrack"), "inspect", str(tmp_path / survey), "--model", str(model))
        done = call(bare, *command, "--out", str(tmp_path / f"{survey}-survey"), "--gsd", "0.5")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{survey}-survey/report.html").is_file()
    both = [str(tmp_path / f"{survey}-survey") for survey in ("old", "new")]
    done = call(bare, str(bare.parent / "damcrack"), "compare", *both, "--out", str(tmp_path / "compared"))
    assert done.returncode == 0, done.stderr
    assert "0 new, 0 grown, 0 vanished, 1 unchanged" in " ".join(done.stderr.split())


def test_what_is_missing_is_named(bare: Path, tmp_path: Path) -> None:
    """A registry address says which extra it needs."""
    (tmp_path / "in").mkdir()
    command = (
        str(bare.parent / "damcrack"),
        "inspect",
        str(tmp_path / "in"),
        "--model",
        "models:/x@champion",
    )
    done = call(bare, *command, "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "damcrack[track]" in done.stderr
