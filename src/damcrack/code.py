"""Which code runs: what is stored between runs must not outlive an edit, and the version number shows none."""

import hashlib
from functools import cache
from pathlib import Path

from damcrack.files import sha256_file

PACKAGE = Path(__file__).parent


@cache
def code_sha256() -> str:
    """Hex SHA-256 of the paths and contents of all Python files of the package, as this process first saw them.

    A wheel and a checkout of the same code agree.
    """
    files = sorted((path.relative_to(PACKAGE).as_posix(), path) for path in PACKAGE.rglob("*.py"))
    lines = [f"{name} {sha256_file(path)}\n" for name, path in files if path.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def code_name() -> str:
    """The first digits of `code_sha256`, for folders and tags."""
    return code_sha256()[:12]
