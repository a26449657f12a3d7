"""What is removed from the scratch folder when a stage begins, and what stays."""

import os
import time
from pathlib import Path

import pytest

from damcrack.code import code_name
from damcrack.stage_runner import scratch_in_use


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """State of this code and of another, and ten decoded arrays, the last of them used longest ago."""
    for kind in ("checkpoints", "soft-targets"):
        for code in (code_name(), "0" * 12):
            (tmp_path / kind / code / "key").mkdir(parents=True)
            (tmp_path / kind / code / "key/tensors").write_bytes(b"x" * 100)
    (tmp_path / "decoded").mkdir()
    for number in range(10):
        path = tmp_path / "decoded" / f"{number}.npy"
        path.write_bytes(b"x")
        used_at = time.time() - 3600 * (1 + 20 * number)
        os.utime(path, (used_at, used_at))
    return tmp_path


def test_what_no_stage_can_use_is_removed_and_named(scratch: Path) -> None:
    """State of other code goes, and arrays beyond the eight used last; one line says so."""
    said: list[str] = []
    with scratch_in_use(scratch, said.append):
        for kind in ("checkpoints", "soft-targets"):
            assert [path.name for path in (scratch / kind).iterdir()] == [code_name()]
        assert sorted(path.stem for path in (scratch / "decoded").iterdir()) == list("01234567")
    assert len(said) == 1
    assert "2 folders" in said[0] and "2 decoded arrays" in said[0]
    with scratch_in_use(scratch, said.append):
        assert len(said) == 1


def test_arrays_used_within_a_day_stay(scratch: Path) -> None:
    """However many there are: trainings of one day may need them all."""
    for path in (scratch / "decoded").iterdir():
        os.utime(path)
    with scratch_in_use(scratch, lambda line: None):
        assert len(list((scratch / "decoded").iterdir())) == 10


def test_nothing_is_removed_beside_a_running_stage(scratch: Path) -> None:
    """A stage that started with older code keeps its checkpoints; the next one that runs alone removes them."""
    old = scratch / "checkpoints" / ("0" * 12)
    said: list[str] = []
    with scratch_in_use(scratch, said.append):
        old.mkdir()
        with scratch_in_use(scratch, said.append):
            assert old.is_dir() and len(said) == 1
    with scratch_in_use(scratch, said.append):
        assert not old.exists() and len(said) == 2


def test_what_killed_stages_left_is_removed(scratch: Path) -> None:
    """Half a decoded array and half a checkpoint go once no stage runs; what is whole stays."""
    (scratch / "decoded/.0.npy.part").write_bytes(b"x")
    (scratch / "checkpoints" / code_name() / ".key.safetensors.part").write_bytes(b"x")
    with scratch_in_use(scratch, lambda line: None):
        left = [path for path in scratch.rglob(".*") if path.name != ".in-use"]
        assert not left and (scratch / "checkpoints" / code_name() / "key/tensors").is_file()
