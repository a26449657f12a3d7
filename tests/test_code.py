"""The digest of the source: an edit changes it; where the package lies, and what Python compiles, do not."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from damcrack import code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, which is the one that is looked at."""
    copy = tmp_path / "damcrack"
    shutil.copytree(code.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copy)
    yield copy
    code.code_sha256.cache_clear()


def digest() -> str:
    """The digest as a new process would find it."""
    code.code_sha256.cache_clear()
    return code.code_sha256()


def test_one_edited_module_changes_the_digest(package: Path) -> None:
    """Content, name and presence of a module count."""
    seen = [digest()]
    losses = package / "train/losses.py"
    losses.write_text(losses.read_text() + "# edited\n")
    seen.append(digest())
    losses.rename(package / "train/other.py")
    seen.append(digest())
    (package / "train/other.py").unlink()
    seen.append(digest())
    assert len(set(seen)) == 4


def test_only_source_counts(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled files, an editor's dangling lock, file times and the place of the package do not."""
    before = digest()
    (package / "train/__pycache__").mkdir()
    (package / "train/__pycache__/losses.cpython-311.pyc").write_bytes(b"compiled")
    (package / "train/.#losses.py").symlink_to("user@host:1")
    (package / "train/losses.py").touch()
    moved = package.with_name("elsewhere")
    package.rename(moved)
    monkeypatch.setattr(code, "PACKAGE", moved)
    assert digest() == before


def test_a_running_process_keeps_its_digest(package: Path) -> None:
    """An edit during a run does not touch the code that was loaded, so the digest stays."""
    before = digest()
    (package / "new.py").write_text("")
    assert code.code_sha256() == before
