"""What Windows and macOS lack is hidden, and the inspection runs all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from damcrack.files import read_csv
from surveys import cracked, save

pytestmark = pytest.mark.slow

# Modules and functions that Windows does not have; OpenCV there opens no path with letters beyond its code page, and
# text without a named encoding is read in that code page.
ELSEWHERE = """
import os, sys, warnings
for name in ("fcntl", "resource", "pwd", "grp", "termios", "syslog", "readline", "nis", "spwd", "crypt", "pty"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "fork", "getuid", "geteuid", "getgid", "killpg", "getpgid", "mkfifo", "statvfs"):
    delattr(os, name)
import signal
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM", "setitimer", "alarm"):
    delattr(signal, name)
import cv2
del cv2.imread, cv2.imwrite
warnings.filterwarnings("error", category=EncodingWarning, module=r"damcrack(\\..*)?")
from damcrack.cli.main import main
main()
"""


def elsewhere(*arguments: object, encoding: str = "cp1252") -> subprocess.CompletedProcess[bytes]:
    call = [sys.executable, "-X", "warn_default_encoding", "-c", ELSEWHERE, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})


def test_photos_are_inspected_and_compared_there(model: Path, tmp_path: Path) -> None:
    """Names in other letters than the console has, one of them of a file that is set aside."""
    folder = tmp_path / "Öffnung 裂缝"
    for number, name in enumerate(("裂缝.jpg", "mur à l'ouest.jpg", r"back\slash.jpg")):
        save(folder / name, cracked((224, 336), (150, 110, 20 * number, 150, 5.0), seed=number))
    (folder / "壊.jpg").write_bytes(b"no photo")
    for survey in ("alt 旧", "neu"):
        done = elsewhere("inspect", folder, "--model", model, "--out", tmp_path / survey)
        assert done.returncode == 0, done.stderr
    names = {row["photo"] for row in read_csv(tmp_path / "neu/photos.csv")}
    assert names >= {"裂缝.jpg", "mur à l'ouest.jpg"}
    done = elsewhere("compare", tmp_path / "alt 旧", tmp_path / "neu", "--out", tmp_path / "Vergleich 比")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "Vergleich 比/compare.html").is_file()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_refusal_reaches_any_console(tmp_path: Path, encoding: str) -> None:
    """One line, no traceback."""
    done = elsewhere("inspect", tmp_path / "無", "--out", tmp_path / "out", encoding=encoding)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"damcrack: error: " in done.stderr
