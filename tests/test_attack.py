"""Kill -9 anywhere; DAMCRACK_KILLS says how often (default 14). See tests/kill_trials.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="each trial is a fork of one process"),
]
TESTS = Path(__file__).parents[1]


def test_a_kill_loses_nothing_and_the_next_call_repairs_it(tmp_path: Path) -> None:
    """Nothing foreign is touched, nothing half is taken for whole, the next call gives the same bytes as ever."""
    num = int(os.environ.get("DAMCRACK_KILLS", "14"))
    call = [sys.executable, str(TESTS / "kill_trials.py"), str(num), "0", str(tmp_path)]
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr + (tmp_path / "log.txt").read_text()
    assert sum(sum(outcomes.values()) for outcomes in json.loads(done.stdout).values()) == num
