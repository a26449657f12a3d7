"""Kills, full disks, two calls at once, damaged photos: tests/attack.py and tests/damaged_photos.py, a few of each.

DAMCRACK_ATTACKS says how many of each (default 14); `make attack` takes all commands, and more.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from damaged_photos import inspect_damaged

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="each trial is a fork of one process"),
]
NUM = os.environ.get("DAMCRACK_ATTACKS", "14")
# What they need is made in seconds.
FAST = (
    "inspect,",
    "compare, over an old",
    "report, over a foreign",
    "export-survey",
    "snapshot",
    "imagery take-in",
)
# A user may mount in a namespace of his own, where the system lets him.
MOUNTING = (
    () if os.name == "posix" and os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all attacks: what they need is made once."""
    return tmp_path_factory.mktemp("attack")


def attack(kind: str, folder: Path, before: Sequence[str] = ()) -> dict[str, dict[str, int]]:
    """The counts of attacks.

    Raises:
        AssertionError: something was lost, doubled, left over, or ended in a traceback.
    """
    call = [
        *before,
        sys.executable,
        str(Path(__file__).with_name("attack.py")),
        kind,
        NUM,
        "0",
        str(folder),
        *FAST,
    ]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_kill_loses_nothing_and_the_next_call_repairs_it(folder: Path) -> None:
    """Nothing foreign is touched, nothing half is taken for whole, the next call gives the same bytes as ever."""
    outcomes = attack("kills", folder)
    assert (
        sum(num for one in outcomes.values() for name, num in one.items() if "killed" in name) > int(NUM) / 2
    )


def test_a_full_disk_ends_in_a_sentence(folder: Path) -> None:
    """What was there stays, and the next call on a disk with room gives the same bytes as ever."""
    able = shutil.which("unshare") and subprocess.run([*MOUNTING, "true"], check=False).returncode == 0
    if MOUNTING and not able:
        pytest.skip("this system lets no user mount a disk")
    outcomes = attack("full", folder, MOUNTING)
    assert sum(num for one in outcomes.values() for name, num in one.items() if "full" in name) > int(NUM) / 2


def test_two_calls_at_once_end_as_one(folder: Path) -> None:
    """Each ends well or is refused in a sentence, and what is there is what one of them writes."""
    attack("twins", folder)


def test_damaged_photos_are_set_aside_with_a_reason(tmp_path: Path) -> None:
    """None is lost, none stops the others."""
    found = inspect_damaged(4 * int(NUM), 0, tmp_path)
    assert not found.lost and found.num_inspected > 0 and found.reasons
