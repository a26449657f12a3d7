"""A page as PDF, printed by the browser that is on this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from damcrack.files import InputError, temporary_folder, write_bytes

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
    "/snap/bin/chromium",
)
OPTIONS = [
    "--headless=new",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-pdf-header-footer",
]
TIMEOUT_S = 600
# Readers look for the end of a PDF in its last kilobyte, so a comment behind it harms none.
MARK = b"%damcrack-output\n"


def find_browser() -> Path | None:
    """A browser that prints without a window; None where there is none."""
    return next((Path(found) for name in BROWSERS if (found := shutil.which(name))), None)


def check_place(out: Path) -> None:
    """Refuse to replace a file that is no PDF of ours.

    Raises:
        InputError: there is such a file.
    """
    if out.is_dir() or (out.exists() and not out.read_bytes().endswith(MARK)):
        raise InputError(f"{out} is there and was not written by damcrack; choose another name")


def print_page(page: Path, out: Path, browser: Path) -> None:
    """Write an HTML file as PDF.

    Raises:
        InputError: the browser fails.
    """
    with temporary_folder() as folder:
        printed = folder / "page.pdf"
        command = [str(browser), *OPTIONS, f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}"]
        if sys.platform == "linux" and os.geteuid() == 0:
            command.append("--no-sandbox")  # which root does not get
        try:
            done = subprocess.run(
                [*command, page.resolve().as_uri()],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            said = done.stderr.strip().splitlines()[-1:]
        except (OSError, subprocess.TimeoutExpired) as error:
            said = [str(error)]
        if not printed.is_file():
            raise InputError(
                f"{browser} wrote no PDF ({''.join(said) or 'it said nothing'}); open report.html and print it by hand"
            )
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(out, printed.read_bytes() + MARK)
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
