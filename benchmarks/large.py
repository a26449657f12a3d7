"""A panorama of 102 megapixels, and a survey of 2,000 photos with its page in a browser: time, memory, size.

    python -m benchmarks.large --export EXPORT      # about ten minutes on one core

All photos are rendered. Needs a Chromium for the last number; without one it is left out.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from damcrack.files import write_bytes
from damcrack.sample.concrete import encode_photo, render_photo

PANORAMA_TILES_HW = (8, 8)
WALL_HW = (1000, 1600)
NUM_PHOTOS, NUM_WALLS, PHOTO_HW = 2000, 12, (768, 1024)


def panorama(out: Path) -> None:
    """One rendered wall beside itself: 8000 x 12800 pixels."""
    rgb = np.tile(render_photo(5, 0, WALL_HW).rgb, (*PANORAMA_TILES_HW, 1))
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert done
    write_bytes(out / "panorama.jpg", encoded.tobytes())


def many(out: Path) -> None:
    """Rendered walls, each shifted anew, so that all photos differ."""
    walls = [render_photo(6, index, PHOTO_HW).rgb for index in range(NUM_WALLS)]
    rng = np.random.default_rng(0)
    for index in range(NUM_PHOTOS):
        shift_hw = int(rng.integers(PHOTO_HW[0])), int(rng.integers(PHOTO_HW[1]))
        write_bytes(
            out / f"{index:04d}.jpg", encode_photo(np.roll(walls[index % NUM_WALLS], shift_hw, (0, 1)), index)
        )


def inspected(photos: Path, export: Path, out: Path) -> str:
    """Seconds and peak memory of one call in a process of its own."""
    call = [sys.executable, "-c", "from damcrack.cli.main import main; main()", "inspect", str(photos)]
    start = time.perf_counter()
    subprocess.run([*call, "--model", str(export), "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest child so far
    page_mb = (out / "report.html").stat().st_size / 1e6
    return f"{seconds:.0f} s on {os.cpu_count()} cores, peak {peak_mib:.0f} MiB, report {page_mb:.0f} MB"


def opened(page: Path) -> str:
    """Seconds until a browser has the page."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        return "not opened: no chromium with chromedriver here"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"):
        options.add_argument(option)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        start = time.perf_counter()
        chrome.get(page.resolve().as_uri())
        return f"opens in {time.perf_counter() - start:.1f} s"
    finally:
        chrome.quit()


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--export", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for make in (many, panorama):
            photos, out = Path(folder) / make.__name__, Path(folder) / f"{make.__name__}-survey"
            photos.mkdir()
            make(photos)
            print(
                f"{make.__name__}: {inspected(photos, options.export, out)}; {opened(out / 'report.html')}",
                flush=True,
            )


if __name__ == "__main__":
    main()
