"""`damcrack inspect` as people call it: photos in a real bucket, and a disk that is full."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

import walls

pytestmark = pytest.mark.slow

SIZE_HW = (224, 336)


def cracked(seed: int) -> bytes:
    wall = walls.concrete(SIZE_HW, seed)
    cover = walls.coverage(SIZE_HW, walls.line((150, 110), 20.0 * seed, 150), 5.0)
    done, encoded = cv2.imencode(".jpg", walls.photo(wall, cover), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return encoded.tobytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    walls.write_darkness_detector(folder / "model.onnx")
    return folder / "model.onnx"


def damcrack(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "damcrack.cli.main", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True)


def photos_in(survey: Path) -> list[str]:
    with (survey / "photos.csv").open(newline="", encoding="utf-8-sig") as file:
        return [row["photo"] for row in csv.DictReader(file)]


def test_photos_of_a_real_bucket_are_inspected(s3, model: Path, tmp_path: Path) -> None:
    """A prefix is read like a folder: its photos and no others; a broken one is set aside, the rest goes on."""
    bucket = s3(
        {
            "2026/a.jpg": cracked(1),
            "2026/deep/b ü.jpg": cracked(2),
            "2026/broken.jpg": cracked(3)[:500],
            "2026/notes.txt": b"-",
            "2025/old.jpg": cracked(4),
        }
    )
    done = damcrack("inspect", f"s3://{bucket}/2026", "--model", model, "--out", tmp_path / "survey")
    assert done.returncode == 0, done.stderr
    assert photos_in(tmp_path / "survey") == ["a.jpg", "deep/b ü.jpg"]
    assert "broken.jpg" in (tmp_path / "survey/set-aside.csv").read_text()


def test_a_bucket_that_is_not_there_is_one_sentence(s3, model: Path, tmp_path: Path) -> None:
    """The error names the address, without a traceback."""
    done = damcrack("inspect", "s3://damcrack-nothing-here/x", "--model", model, "--out", tmp_path / "survey")
    assert done.returncode != 0
    assert "damcrack-nothing-here" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_a_full_disk_loses_nothing(model: Path, tmp_path: Path) -> None:
    """One sentence says so, no half photo is left, and the same command with more space finishes the survey."""
    disk, photos = tmp_path / "disk", tmp_path / "photos"
    disk.mkdir()
    photos.mkdir()
    for seed in range(6):
        (photos / f"{seed}.jpg").write_bytes(cracked(seed))
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
