"""Draw the picture of the README: the page that `damcrack demo` writes, where its cracks are decided on.

Writes docs/images/report.jpg. Needs Chromium.

python -m experiments.picture
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from damcrack.cli.main import cli
from experiments.commands import browser

IMAGES = Path("docs/images")
WINDOW = "1280,800"
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 82]


def draw_report() -> None:
    """Inspect, open the page in a browser, choose "Decide"."""
    from selenium.webdriver.common.by import By

    with TemporaryDirectory() as folder, browser(WINDOW, "hide-scrollbars") as opened:
        cli.main(["demo", "--out", str(Path(folder) / "demo")], standalone_mode=False)
        opened.get((Path(folder) / "demo/report.html").as_uri())
        next(one for one in opened.find_elements(By.TAG_NAME, "button") if one.text == "Decide").click()
        time.sleep(3)  # until the photo is drawn
        shown = cv2.imdecode(np.frombuffer(opened.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
        assert shown is not None
        cv2.imwrite(str(IMAGES / "report.jpg"), shown, QUALITY)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw_report()
