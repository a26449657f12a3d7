"""What the images are built from."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("dockerfile", ["infra/docker/Dockerfile", "infra/mlflow/Dockerfile"])
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
