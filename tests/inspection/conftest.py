"""What the tests of this room share: the detector that needs no training, and a real browser without a window."""

import shutil

import pytest

from walls import write_darkness_detector

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_darkness_detector(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Where the browser puts what a page saves."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, downloads):
    """Chromium with its console and network log."""
    if not (BROWSER and DRIVER):
        pytest.skip("needs chromium and chromedriver on the PATH")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chrome')}"):
        options.add_argument(option)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def requested(browser):
    """Gives the addresses that the browser asked for since the last call."""
    return lambda: [
        one["message"].split('"url":"')[1].split('"')[0]
        for one in browser.get_log("performance")
        if "Network.requestWillBeSent" in one["message"] and '"url":"' in one["message"]
    ]
