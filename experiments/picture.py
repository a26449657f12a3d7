"""Draw the picture of the README: the page that `damcrack demo` writes, where its cracks are decided on.

Writes docs/images/report.jpg. Needs Chromium.

python -m experiments.picture
"""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from damcrack.cli.main import cli

IMAGES = Path("docs/images")
WINDOW = "1280,800"
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 82]


def draw_report() -> None:
    """Inspect, open the page in a browser, choose "Decide"."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={WINDOW}"):
        options.add_argument(argument)
    service = Service(shutil.which("chromedriver"))  # without a path Selenium asks the network for one
    with TemporaryDirectory() as folder, webdriver.Chrome(options, service) as browser:
        cli.main(["demo", "--out", str(Path(folder) / "demo")], standalone_mode=False)
        browser.get((Path(folder) / "demo/report.html").as_uri())
        next(one for one in browser.find_elements(By.TAG_NAME, "button") if one.text == "Decide").click()
        time.sleep(3)  # until the photo is drawn
        shown = cv2.imdecode(np.frombuffer(browser.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
        cv2.imwrite(str(IMAGES / "report.jpg"), shown, QUALITY)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw_report()
