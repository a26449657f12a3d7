"""What the images are built from."""

import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from sysconfig import get_path

import pytest

ROOT = Path(__file__).parents[2]


DOCKERFILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "infra").rglob("Dockerfile"))


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_packages_are_installed_by_their_hashes(dockerfile):
    """Every `pip install`, and each list that it reads has a hash for every package."""
    text = (ROOT / dockerfile).read_text().replace("\\\n", " ")
    installs = [line for part in text.splitlines() for line in part.split("&&") if "pip install" in line]
    assert installs
    for line in installs:
        assert "--require-hashes" in line
        (listed,) = re.findall(r"-r \S*/(\S+)", line)
        names = re.findall(
            r"^[a-zA-Z0-9._-]+(?:\[\S+\])?==.*", (ROOT / "requirements" / listed).read_text(), re.M
        )
        assert names and all(name.rstrip().endswith("\\") for name in names)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_each_image_lists_the_licences_of_what_it_holds(dockerfile):
    """By our script, after each install."""
    text = (ROOT / dockerfile).read_text()
    assert text.count("licences.py >") == sum("/uv pip install" in line or line.strip().startswith("&& uv pip")
                                              for line in text.splitlines())  # fmt: skip


@pytest.mark.slow
def test_nearly_every_package_has_a_licence():
    """Of those that are installed here, each of which is listed."""
    script = ROOT / "infra/docker/licences.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    # Not those of sys.path: setuptools, once another test has imported it, adds packages of its own there.
    installed = distributions(path=[get_path("purelib"), get_path("platlib")])
    assert {row[0] for row in rows} == {one.metadata["Name"] for one in installed}
    assert sum(row[2] == "UNKNOWN" for row in rows) < len(rows) / 20


def test_dvc_opens_no_place_that_everybody_may_write():
    """Its site cache has mode 777: it lies inside a folder of ours, in images in that of the task."""
    assert "DVC_SITE_CACHE_DIR ?= $(CURDIR)/.dvc/tmp/site" in (ROOT / "Makefile").read_text()
    assert "DVC_SITE_CACHE_DIR" not in (ROOT / "infra/docker/Dockerfile").read_text()


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_an_image_copies_travels_to_the_engine(dockerfile):
    """Each path of a COPY is there, and .dockerignore, which shuts out all but what it names, lets it through."""
    lines = (ROOT / dockerfile).read_text().splitlines()
    sources = [word for line in lines if re.match("COPY (?!--from)", line) for word in line.split()[1:-1]]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(Path(source).is_relative_to(one) for one in allowed), source


def test_secrets_beside_the_compose_file_stay_out():
    """The settings of the server's compose file hold passwords; they come last, so nothing lets them in again."""
    assert (ROOT / ".dockerignore").read_text().splitlines()[-1] == "infra/mlflow/.env"
