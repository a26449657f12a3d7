"""The scratch folder has bounds: other code's checkpoints and soft targets go, and decoded sets out of use."""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from damcrack.source import source_name

BY_SOURCE = ("checkpoints", "soft-targets")  # one folder in each for each state of the code
DECODED_FILES = 8
DAY_S = 24 * 3600.0


@contextmanager
def scratch_in_use(scratch: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the scratch folder while a stage runs; first remove what is of no use, unless another stage runs in it.

    That one may have started with older code, and still needs its checkpoints.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / ".in-use").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            _clean(scratch, say)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _clean(scratch: Path, say: Callable[[str], None]) -> None:
    stale = [path for kind in BY_SOURCE for path in (scratch / kind).glob("*") if path.name != source_name()]
    arrays = sorted((scratch / "decoded").glob("*.npy"), key=_used_at, reverse=True)
    unused = [path for path in arrays[DECODED_FILES:] if _used_at(path) < time.time() - DAY_S]
    if stale or unused:
        gib = sum(map(_num_bytes, stale + unused)) / 2**30
        say(
            f"removed from {scratch}: {len(stale)} folders with checkpoints or soft targets of other code, "
            f"{len(unused)} decoded arrays unused for a day ({gib:.2f} GiB)"
        )
    # No other stage runs: what is unfinished was left by killed ones.
    unfinished = [one for kind in BY_SOURCE for one in (scratch / kind / source_name()).glob(".*.part")]
    for path in (*stale, *unused, *unfinished, *(scratch / "decoded").glob(".*.part")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _used_at(path: Path) -> float:
    return path.stat().st_mtime


def _num_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
