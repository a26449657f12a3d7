"""The package as an index would give it: built, checked, installed in new environments, and used there."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from PIL import Image

from walls import concrete, coverage, line, photo, rgb, write_darkness_detector

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).parent / "uv"
MAX_WHEEL_BYTES = 20e6
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
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an sdist of the files that git would commit, and the wheel that was built from it."""
    if not UV.exists():
        pytest.skip("needs uv beside Python, as make puts it there")
    folder = tmp_path_factory.mktemp("built")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    build = [str(UV), "build", "--quiet", "--out-dir", str(folder / "dist"), str(folder / "source")]
    subprocess.run(build, check=True)
    return folder / "dist"


def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bare(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment in which `pip install WHEEL` was all, at the locked versions."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    locked = folder / "versions.txt"  # without hashes: they cannot be constraints
    lines = (ROOT / "requirements/lock.txt").read_text().splitlines()
    locked.write_text(
        "\n".join(line.rstrip(" \\") for line in lines if line and not line.startswith((" ", "#")))
    )
    install = [str(UV), "pip", "install", "--quiet", "--python", str(python), "--constraint", str(locked)]
    subprocess.run([*install, str(wheel(built))], check=True)
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
    """From photo to report and comparison, with onnxruntime alone."""
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


def metadata(built: Path) -> Message:
    with zipfile.ZipFile(wheel(built)) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_an_index_takes_the_package(built: Path) -> None:
    """`twine check --strict` is content with both files, and the wheel is small."""
    with_markdown = ("tool", "run", "--quiet", "--with", "readme-renderer[md]", "twine")
    files = [str(path) for path in built.iterdir() if path.suffix in (".whl", ".gz")]
    done = subprocess.run(
        [str(UV), *with_markdown, "check", "--strict", *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert wheel(built).stat().st_size < MAX_WHEEL_BYTES


def test_the_page_on_an_index_has_no_dead_link(built: Path, tmp_path: Path) -> None:
    """Without the repository's address no link is relative; with it all lead into the repository, pictures too."""
    text = str(metadata(built).get_payload())
    assert not re.findall(r"\]\((?!https?:|#)[^)]*\)", text)
    assert metadata(built).get_all("Project-URL") == ["Paper, https://doi.org/10.3390/w15152839"]
    source = built.with_name("source")  # an sdist holds the text as it was when that was built
    build = [str(UV), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(source)]
    address = "https://forge.invalid/owner/name"
    subprocess.run(build, check=True, env={**os.environ, "DAMCRACK_REPOSITORY": f"{address}/blob/v1"})
    text = str(metadata(tmp_path).get_payload())
    assert f"]({address}/blob/v1/docs/detector.md" in text
    assert re.search(rf"!\[[^\]]*\]\({address}/raw/v1/docs/images/", text)
    assert f"Source, {address}" in metadata(tmp_path).get_all("Project-URL", [])


def test_the_wheel_holds_what_it_needs(built: Path) -> None:
    """Detector, its weights to teach with, templates, styles, scripts, and the repository's own graph and values."""
    with zipfile.ZipFile(wheel(built)) as archive:
        names = set(archive.namelist())
        for name in ("dvc.yaml", "params.yaml", "imagery.yaml"):
            assert archive.read(f"damcrack/project/{name}") == (ROOT / name).read_bytes()
    source = ROOT / "src"
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {name for name in wanted if not name.endswith(".pyc")} <= names


def test_tests_of_the_sdist_pass(built: Path, tmp_path: Path) -> None:
    """What was packed as source passes tests that read the whole tree."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_consistency.py",
               "tests/test_params.py", "tests/cli/test_help.py", "tests/cli/test_project.py",
               "-m", "not slow"]  # fmt: skip
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root / "src")}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


@pytest.mark.parametrize("extras", ["cad,gis", "cvat", "all"])
def test_extras_exist(extras: str, bare: Path, built: Path) -> None:
    """What `pip install ".[EXTRAS]"` would install can be resolved, and more than without them."""
    install = [str(UV), "pip", "install", "--dry-run", "--python", str(bare), f"{wheel(built)}[{extras}]"]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "extra" not in done.stderr and "Would install" in done.stderr


def test_a_project_of_its_own(bare: Path, tmp_path: Path) -> None:
    """`damcrack init` needs no repository, and its values are valid."""
    assert call(bare, str(bare.parent / "damcrack"), "init", str(tmp_path / "own")).returncode == 0
    assert (tmp_path / "own/params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    done = call(bare, str(bare.parent / "damcrack"), "check", str(tmp_path / "own/params.yaml"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_python_shows_the_demo(version: str, built: Path, tmp_path: Path) -> None:
    """`pip install WHEEL` and `damcrack demo` in a new environment of each Python that is here."""
    local = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    found = subprocess.run([str(UV), "python", "find", version], capture_output=True, text=True, env=local)
    if found.returncode != 0:
        pytest.skip(f"no Python {version} here")
    python = tmp_path / "env/bin/python"
    subprocess.run(
        [str(UV), "venv", "--quiet", "--python", found.stdout.strip(), str(tmp_path / "env")], check=True
    )
    subprocess.run(
        [str(UV), "pip", "install", "--quiet", "--python", str(python), str(wheel(built))], check=True
    )
    done = call(python, str(python.parent / "damcrack"), "demo", "--out", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo/report.html").is_file()


def test_an_older_python_is_refused_in_one_sentence(built: Path, tmp_path: Path) -> None:
    """By pip's own rule, and by make before it does anything."""
    assert metadata(built)["Requires-Python"] == ">=3.11"
    local = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    found = subprocess.run([str(UV), "python", "find", "<3.11"], capture_output=True, text=True, env=local)
    if found.returncode != 0:
        pytest.skip("no older Python here")
    for name in ("Makefile", "pyproject.toml", "requirements"):
        source, target = ROOT / name, tmp_path / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    call = ["make", "--silent", ".venv/installed", f"PYTHON={found.stdout.strip()}"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "3.11" in done.stderr.splitlines()[0]
    assert not (tmp_path / ".venv").exists()
