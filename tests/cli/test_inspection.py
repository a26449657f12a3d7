"""`damcrack inspect` as people call it: photos in a real bucket, and a disk that is full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from damcrack.cli.main import cli
from damcrack.data.photo import encode_jpeg
from damcrack.files import InputError, read_csv
from surveys import cracked
from walls import rgb, write_darkness_detector

pytestmark = pytest.mark.slow


def encoded(seed: int) -> bytes:
    return encode_jpeg(rgb(cracked((224, 336), (150, 110, 20 * seed, 150, 5.0), seed=seed)), 95)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_darkness_detector(tmp_path_factory.mktemp("model") / "model.onnx"))


def damcrack(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "damcrack.cli.main", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True)


def photos_in(survey: Path) -> list[str]:
    return [row["photo"] for row in read_csv(survey / "photos.csv")]


def test_photos_of_a_real_bucket_are_inspected(s3, model: Path, tmp_path: Path) -> None:
    """A prefix is read like a folder: its photos and no others; a broken one is set aside, the rest goes on."""
    bucket = s3(
        {
            "2026/a.jpg": encoded(1),
            "2026/deep/b ü.jpg": encoded(2),
            "2026/broken.jpg": encoded(3)[:500],
            "2026/notes.txt": b"-",
            "2025/old.jpg": encoded(4),
        }
    )
    arguments = ["inspect", f"s3://{bucket}/2026", "--model", str(model), "--out", str(tmp_path / "survey")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.exception
    assert photos_in(tmp_path / "survey") == ["a.jpg", "deep/b ü.jpg"]
    assert "broken.jpg" in (tmp_path / "survey/set-aside.csv").read_text()


def test_a_bucket_that_is_not_there_is_one_sentence(s3, model: Path, tmp_path: Path) -> None:
    """The error names the address."""
    arguments = [
        "inspect",
        "s3://damcrack-nothing-here/x",
        "--model",
        str(model),
        "--out",
        str(tmp_path / "x"),
    ]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, InputError)
    assert "damcrack-nothing-here" in str(done.exception)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_a_full_disk_loses_nothing(model: Path, tmp_path: Path) -> None:
    """One sentence says so, no half photo is left, and the same command with more space finishes the survey."""
    disk, photos = tmp_path / "disk", tmp_path / "photos"
    disk.mkdir()
    photos.mkdir()
    for seed in range(6):
        (photos / f"{seed}.jpg").write_bytes(encoded(seed))
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        call = ("inspect", photos, "--model", model, "--out", disk / "survey")
        full = damcrack(*call)
        assert full.returncode != 0
        assert "No space left" in full.stderr
        assert "same command again" in full.stderr
        kept = [folder.name for folder in (disk / "survey/photos").iterdir() if folder.name[0] != "."]
        assert all((disk / "survey/photos" / name / "findings.json").exists() for name in kept)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        done = damcrack(*call)
        assert done.returncode == 0, done.stderr
        assert photos_in(disk / "survey") == [f"{seed}.jpg" for seed in range(6)]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
