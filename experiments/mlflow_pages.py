"""Open the views of an experiment on an MLflow server in a headless browser and keep what is seen.

    MLFLOW_TRACKING_URI=... MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=... \
        python -m experiments.mlflow_pages FOLDER

Writes FOLDER/VIEW.png for every view. Fails if a page shows an error, or a chart that the view promises is missing.
The picture in docs/mlflow.md was made by it after two runs of the graph on the built-in sample.
"""

import base64
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By

from damcrack.tracking.store import Store, experiment_name
from damcrack.tracking.views import VIEW, view_address

SIZE = (1600, 1300)
PATIENCE_S = 90
CROSSES = "[data-component-id='mlflow.assistant.chat_panel.close'], button[aria-label='Close']"
WRONG = ("Error loading", "Something went wrong", "Page Not Found")


def browser(folder: str) -> webdriver.Chrome:
    """A headless Chromium that sends the account with every request; in the address it would break the page's own."""
    options = webdriver.ChromeOptions()
    options.binary_location = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    flags = ["headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"]
    for flag in [*flags, f"user-data-dir={folder}", f"window-size={SIZE[0]},{SIZE[1]}"]:
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    account = ":".join(os.environ.get(f"MLFLOW_TRACKING_{word}", "") for word in ("USERNAME", "PASSWORD"))
    header = {"Authorization": "Basic " + base64.b64encode(account.encode()).decode()}
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": header})
    return driver


def promised(state: str) -> list[str]:
    """Titles of sections, which are on the page once its charts are drawn."""
    return [section["name"] for section in json.loads(json.loads(state)["state"])["compareRunSections"]]


def look(driver: webdriver.Chrome, address: str, titles: list[str], picture: Path) -> None:
    """Wait until the page shows its charts, and keep a picture."""
    driver.get(address)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        text = driver.find_element(By.TAG_NAME, "body").text
        drawn = driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot, svg.parcoords, .parcoords")
        if all(title in text for title in titles) and drawn:
            break
        if time.monotonic() > deadline or any(word in text for word in WRONG):
            driver.save_screenshot(str(picture))
            raise SystemExit(f"{address}: {titles} are not all there; see {picture}")
        time.sleep(0.5)
    for cross in driver.find_elements(By.CSS_SELECTOR, CROSSES):
        driver.execute_script("arguments[0].click()", cross)
    time.sleep(6)  # curves are fetched after the page
    driver.save_screenshot(str(picture))
    print(f"{picture}: {len(drawn)} charts, {titles}")


def main(folder: Path) -> None:
    """Look at every view."""
    server = os.environ["MLFLOW_TRACKING_URI"]
    experiment = Store(server).client.get_experiment_by_name(experiment_name())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(profile)
        try:
            for name, state in sorted(experiment.tags.items()):
                if name.startswith(f"{VIEW}damcrack-"):
                    view = name.removeprefix(VIEW)
                    address = view_address(server, experiment.experiment_id, view)
                    look(driver, address, promised(state), folder / f"{view}.png")
        finally:
            driver.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
