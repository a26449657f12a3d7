"""Draw the pictures of the README, all of rendered photos.

docs/images/sample.jpg: photos of the built-in sample, their crack masks in red below
docs/images/report.jpg: the page that `damcrack demo` writes, where its cracks are decided on (needs Chromium)

python -m experiments.picture
"""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from damcrack.cli.inspecting import demo
from damcrack.sample.concrete import render_photo

IMAGES = Path("docs/images")
PHOTOS, SIZE_HW, SHOWN_HW = (0, 2, 3, 5), (896, 1120), (320, 400)
WINDOW = "1280,800"
OPTIONS = [cv2.IMWRITE_JPEG_QUALITY, 82]


def draw_sample() -> None:
    """Render, overlay, write."""
    columns = []
    for index in PHOTOS:
        photo = render_photo(seed=7, index=index, size_hw=SIZE_HW)
        marked = photo.rgb.copy()
        marked[cv2.dilate(photo.mask, np.ones((3, 3), np.uint8)) > 0] = (230, 30, 30)
        columns.append(
            np.vstack([cv2.resize(view, SHOWN_HW[::-1], interpolation=3) for view in (photo.rgb, marked)])
        )
    cv2.imwrite(str(IMAGES / "sample.jpg"), np.hstack(columns)[..., ::-1], OPTIONS)


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
        demo(Path(folder) / "demo")
        browser.get((Path(folder) / "demo/report.html").as_uri())
        next(one for one in browser.find_elements(By.TAG_NAME, "button") if one.text == "Decide").click()
        time.sleep(3)  # until the photo is drawn
        shown = cv2.imdecode(np.frombuffer(browser.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
        cv2.imwrite(str(IMAGES / "report.jpg"), shown, OPTIONS)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw_sample()
    draw_report()
