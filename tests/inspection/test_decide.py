"""The whole way of an engineer: decide by keyboard in a real browser, save, write the report to sign, print it."""

import base64
import json
import shutil
import subprocess
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from damcrack.inspection.printing import find_browser
from damcrack.inspection.signed import TitleBlock, report
from damcrack.run import Run
from surveys import all_findings, cracked, decide, inspect, save, write_decisions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="needs Chromium, Chrome or Edge"),
]
DPI = 150


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Twelve findings in three photos, landscape and portrait."""
    root = tmp_path_factory.mktemp("decide")
    rows = [(300, 80 + 130 * place, 5 * place, 300, 6.0) for place in range(4)]
    save(root / "in/a.jpg", cracked((600, 800), *rows))
    save(root / "in/b.jpg", cracked((600, 800), *rows, seed=1))
    save(root / "in/tall.jpg", cracked((800, 600), *rows, seed=2))
    return inspect(root)


@pytest.fixture
def page(browser, survey):
    """The survey's page, as if nobody had opened it before."""
    browser.set_window_size(1200, 900)
    browser.get((survey / "report.html").as_uri())
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    return browser


@pytest.fixture
def one_crack(tmp_path):
    """A survey of one photo with one finding."""
    save(tmp_path / "in/a.jpg", cracked((340, 450), (225, 170, 20, 260, 6.0)))
    return inspect(tmp_path)


def press(page, *keys):
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(page).send_keys(key).perform()


def text(page, selector):
    return page.find_element("css selector", selector).text


def classes(page):
    return [
        each.get_attribute("class") for each in page.find_elements("css selector", "#sheet [data-finding]")
    ]


def saved(page, downloads):
    for old in downloads.iterdir():
        old.unlink()
    page.find_element("css selector", "#save").click()
    for _ in range(100):
        if (downloads / "decisions.json").is_file():
            return downloads / "decisions.json"
        time.sleep(0.1)
    raise AssertionError("nothing was saved")


def load(page, path):
    page.find_element("css selector", "#load-file").send_keys(str(path))
    time.sleep(0.5)


def test_ten_findings_by_keyboard_become_a_signed_report(page, requested, survey, downloads, tmp_path):
    """Accepted, rejected, classed, with severity and note; saved; the report counts exactly these; so does its PDF."""
    from selenium.webdriver.common.keys import Keys

    requested()  # what the browser did before
    page.find_element("css selector", "#who").send_keys("A. Engineer", Keys.TAB)
    press(page, "j")
    assert any("chosen" in each for each in classes(page))
    press(page, "a", "s", "s", "j")  # 1: moderate crack
    press(page, "r", "j")  # 2
    press(page, "2", "j")  # 3: joint
    press(page, "a", "n", *"<b>wet</b>", Keys.ESCAPE, "j")  # 4
    for _ in range(5):  # 5 to 9
        press(page, "a", "j")
    press(page, "a", "z", "r")  # 10: taken back, then rejected
    assert text(page, "#panel-progress") == "10 of 12 decided"
    press(page, Keys.ESCAPE)
    assert text(page, "#progress-text") == "10 of 12 decided"
    file = saved(page, downloads)
    decided = [one for one in json.loads(file.read_text())["decisions"] if one["status"] != "undecided"]
    assert len(decided) == 10
    assert sorted(one["status"] for one in decided) == ["accepted"] * 8 + ["rejected"] * 2
    assert {one["who"] for one in decided} == {"A. Engineer"}
    assert [one["severity"] for one in decided if one["severity"]] == ["moderate"]
    assert [one["note"] for one in decided if one["note"]] == ["<b>wet</b>"]

    block = TitleBlock(structure="Left spillway", inspector="A. Engineer")
    report(survey, tmp_path / "signed", block, Run(), file)
    html = (tmp_path / "signed/report.html").read_text()
    assert html.count('class="accepted-finding"') == 8
    assert html.count('class="rejected-finding"') == 2
    assert "<b>wet" not in html
    assert "&lt;b&gt;wet&lt;/b&gt;" in html
    pdf = (tmp_path / "signed/report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    report(survey, tmp_path / "again.pdf", block, Run(), file)
    assert (tmp_path / "again.pdf").read_bytes().startswith(b"%PDF-")
    assert not [url for url in requested() if not url.startswith(("file:", "data:", "blob:"))]
    assert page.get_log("browser") == []


def test_decisions_outlive_the_page_and_show_at_once(page):
    """Overlay, list and progress change with the key; closing and opening loses nothing; undo takes back."""
    press(page, "j", "a")
    assert any("accepted" in each and "chosen" in each for each in classes(page))
    assert len(page.find_elements("css selector", "#finding-table tr.accepted")) == 1
    page.refresh()
    assert text(page, "#progress-text") == "1 of 12 decided"
    press(page, "j")  # the first that is undecided
    press(page, "r", "z")
    assert text(page, "#panel-progress") == "1 of 12 decided"


def test_a_note_outlives_a_reload_while_it_is_typed(page):
    """Without leaving its field."""
    press(page, "j", "n", *"wet below")
    page.refresh()
    press(page, "j")
    assert page.find_element("css selector", "#note").get_property("value") == "wet below"


def test_the_mouse_decides_too(page):
    """In the list and in the viewer."""
    page.find_element("css selector", '#finding-table [data-decide="rejected"]').click()
    assert text(page, "#progress-text") == "1 of 12 decided"
    page.find_element("css selector", '[data-status="rejected"]').click()
    assert len(page.find_elements("css selector", "#finding-table tbody tr")) == 1
    page.find_element("css selector", "#finding-table .thumb").click()
    page.find_element("css selector", '#panel [value="stain"]').click()
    assert "accepted" in text(page, "#facts") and "stain" in text(page, "#facts")
    page.find_element("css selector", "#close").click()


def test_a_saved_file_is_loaded_back(page, survey, downloads):
    """By place; a crack that moved a little is to be confirmed, and confirming counts."""
    press(page, "j", "a", "j", "r")
    press(page, "\ue00c")
    file = saved(page, downloads)
    values = json.loads(file.read_text())
    values["decisions"] = [one for one in values["decisions"] if one["status"] == "accepted"]
    (one,) = values["decisions"]
    x0, y0, x1, y1 = one["box_px"]
    one["box_px"] = [x0, y0, x1 + 200, y1 + 3]
    one["lines_px"] = [[[x + 3, y + 2] for x, y in line] for line in one["lines_px"]]
    file.write_text(json.dumps(values))
    page.execute_script("localStorage.clear()")
    page.refresh()
    load(page, file)
    assert text(page, "#progress-text") == "0 of 12 decided"
    assert "to be confirmed" in text(page, "#finding-table")
    press(page, "j", "a")
    assert text(page, "#panel-progress") == "1 of 12 decided"
    press(page, "\ue00c")


def test_two_windows_of_one_page_share_their_decisions(page):
    """What one of them decides, the other one shows, and stores with its own."""
    first = page.current_window_handle
    url = page.current_url
    page.switch_to.new_window("tab")
    page.get(url)
    press(page, "j", "a")
    second = page.current_window_handle
    page.switch_to.window(first)
    press(page, "j", "j", "r")
    assert text(page, "#panel-progress") == "2 of 12 decided"
    page.switch_to.window(second)
    page.close()
    page.switch_to.window(first)
    page.refresh()
    assert text(page, "#progress-text") == "2 of 12 decided"


def test_what_is_in_no_file_yet_outlives_a_survey_that_grows(browser, one_crack, tmp_path):
    """The page with one more photo has the decisions of the page without; those that were saved came by the file."""
    page = one_crack / "report.html"
    browser.get(page.as_uri())
    press(browser, "j", "a")
    save(tmp_path / "in/b.jpg", cracked((340, 450), (225, 170, 20, 260, 6.0), seed=1))
    inspect(tmp_path)
    browser.get(page.as_uri())
    assert text(browser, "#progress-text") == "1 of 2 decided"
    assert text(browser, "#message")
    browser.find_element("css selector", "#save").click()
    browser.refresh()
    assert text(browser, "#progress-text") == "1 of 2 decided"
    assert not text(browser, "#message")


def test_the_longest_note_widens_no_report(browser, survey, tmp_path):
    """One word of 4,000 characters fits a phone and the paper."""
    known, finding = all_findings(survey)[0]
    file = write_decisions(tmp_path / "d.json", [decide(known, finding, "accepted", note="x" * 4000)])
    report(survey, tmp_path / "out", TitleBlock(), Run(), file)
    browser.get((tmp_path / "out/report.html").as_uri())
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    width = browser.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 390


@pytest.mark.parametrize("kind", ["damaged", "version", "other survey", "other file", "markup", "huge"])
def test_bad_files_change_nothing(page, tmp_path, survey, kind):
    """A sentence, no decision, no error; markup in a note is text."""
    known, finding = all_findings(survey)[0]
    one = decide(known, finding, "accepted", note="<img src=x onerror=alert(1)>")
    path = write_decisions(tmp_path / "d.json", [one])
    content = json.loads(path.read_text())
    if kind == "version":
        content["version"] = 7
    if kind == "other survey":
        content["decisions"][0]["sha256"] = "0" * 64
    if kind == "other file":
        content = {"type": "FeatureCollection", "features": []}
    written = json.dumps(content)
    path.write_text(written[:-9] if kind == "damaged" else written + " " * (65 * 2**20 * (kind == "huge")))
    load(page, path)
    assert text(page, "#message")
    assert text(page, "#progress-text") == f"{int(kind == 'markup')} of 12 decided"
    assert page.get_log("browser") == []


def test_decisions_beside_the_survey_are_in_its_next_page(browser, one_crack, tmp_path):
    """Written into the page, a script in a note stays a note."""
    decision = decide(*all_findings(one_crack)[0], "accepted", note="</script><b>")
    write_decisions(one_crack / "decisions.json", [decision])
    inspect(tmp_path)
    browser.get((one_crack / "report.html").as_uri())
    assert text(browser, "#progress-text") == "1 of 1 decided"
    press(browser, "j")
    assert browser.find_element("css selector", "#note").get_property("value") == "</script><b>"
    assert browser.get_log("browser") == []


@pytest.fixture(scope="module", params=[(600, 900), (900, 600), (1600, 500)])
def thick(request, tmp_path_factory):
    """The survey of a photo with one thick crack, and the photo's size."""
    if shutil.which("pdftoppm") is None:
        pytest.skip("needs pdftoppm")
    root, (height, width) = tmp_path_factory.mktemp("thick"), request.param
    crack = (width / 2, height / 2, 30, 0.7 * min(request.param), 24.0)
    save(root / "in/a.jpg", cracked(request.param, crack, inside=5))
    return inspect(root), height, width


@pytest.mark.parametrize("landscape", [False, True])
def test_lines_lie_on_the_photo_in_print(browser, thick, tmp_path, landscape):
    """On the rendered PDF the drawn line runs in the middle of the dark crack, to the pixel of the photo."""
    survey, height, width = thick
    browser.get((survey / "report.html").as_uri())
    paper = {"landscape": landscape, "printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
    printed = browser.execute_cdp_cmd("Page.printToPDF", {**paper, "preferCSSPageSize": True})
    (tmp_path / "a.pdf").write_bytes(base64.b64decode(printed["data"]))
    shift_px, whole = _agreement(tmp_path, width, height)
    assert shift_px < 1
    assert whole == pytest.approx(width / height, rel=0.01)


@pytest.mark.parametrize("thick", [(600, 900), (900, 600)], indirect=True)
def test_lines_lie_on_the_photo_in_the_signed_pdf(thick, tmp_path):
    """The same of what `damcrack report` prints."""
    survey, height, width = thick
    file = write_decisions(tmp_path / "d.json", [decide(*all_findings(survey)[0], "accepted")])
    report(survey, tmp_path / "a.pdf", TitleBlock(), Run(), file)
    shift_px, whole = _agreement(tmp_path, width, height)
    assert shift_px < 1
    assert whole == pytest.approx(width / height, rel=0.01)


def _agreement(folder, width, height):
    """How far the drawn line lies from the middle of the crack, in pixels of the photo; the printed photo's shape."""
    subprocess.run(["pdftoppm", "-r", str(DPI), str(folder / "a.pdf"), str(folder / "page")], check=True)
    pages = [np.asarray(Image.open(path)).astype(np.int16) for path in sorted(folder.glob("page-*.ppm"))]
    # The photo is the largest piece that is not paper.
    boxes = [max(_pieces(page), key=lambda box: box[4]) for page in pages]
    at = max(range(len(pages)), key=lambda number: boxes[number][4])
    left, top, wide, high, _ = boxes[at]
    photo = pages[at][top : top + high, left : left + wide]
    coloured = photo.max(axis=2) - photo.min(axis=2) > 60
    dark = (photo.mean(axis=2) < 70) | coloured
    _, labels, stats, _ = cv2.connectedComponentsWithStats(dark.astype(np.uint8))
    crack = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    drawn = np.argwhere(coloured & crack).astype(float)
    middle = np.argwhere(crack).astype(float)
    # Both are symmetric around one line: compare them across it, in the inner half of its length.
    centre, along = middle.mean(axis=0), np.array([np.sin(np.pi / 6), np.cos(np.pi / 6)])
    across = np.array([along[1], -along[0]])
    inner = [one[np.abs((one - centre) @ along) < 0.25 * min(wide, high)] for one in (drawn, middle)]
    offsets = [float(((one - centre) @ across).mean()) for one in inner]
    assert len(inner[0]) > 50
    return abs(offsets[0] - offsets[1]) * width / wide, wide / high


def _pieces(page):
    inked = (page.min(axis=2) < 235).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(inked)
    return [tuple(int(value) for value in row) for row in stats[1:]] or [(0, 0, 0, 0, 0)]
