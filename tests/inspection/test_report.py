"""The report in a real browser: what an engineer does with it, and that nothing leaves the page."""

import json
import time
from pathlib import Path

import pytest

from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.run import Run
from damcrack.storage.source import open_source
from surveys import cracked, inspect, save

pytestmark = pytest.mark.slow
SIZE = (500, 680)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The report of five photos, three with cracks of different width, and one that was set aside."""
    root = tmp_path_factory.mktemp("report")
    for number, width in enumerate((12.0, 5.0, 8.0)):
        save(root / f"in/{number}.jpg", cracked(SIZE, (340, 250, 25 * number, 300, width), seed=number))
    save(root / "in/3.jpg", cracked(SIZE, seed=3))
    (root / "in/broken.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "in/notes.txt").write_text("no photo")
    return inspect(root) / "report.html"


@pytest.fixture
def opened(browser, page):
    browser.set_window_size(1200, 900)
    browser.get(page.as_uri())
    return browser


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def the(browser, selector):
    (element,) = find(browser, selector)
    return element


def num_shown(browser):
    return sum(card.is_displayed() for card in find(browser, ".card"))


def values(browser, key):
    column = {"evidence": 2, "length": 3, "width": 4, "widest": 5}[key]
    cells = find(browser, f"#finding-table tbody td:nth-child({column})")
    return [float(cell.text.removesuffix(" px").removesuffix(" %")) for cell in cells]


def scale_of(browser):
    return browser.execute_script(
        "return new DOMMatrix(getComputedStyle(document.getElementById('sheet')).transform).a"
    )


def test_nothing_leaves_the_page_and_nothing_fails(opened, requested):
    """Every request is the page itself or data inside it; the console is empty."""
    requested()  # what the browser did before
    opened.refresh()
    find(opened, ".card")[0].click()
    time.sleep(0.5)
    the(opened, "#close").click()
    urls = requested()
    assert urls
    assert not [url for url in urls if not url.startswith(("file:", "data:"))]
    assert opened.get_log("browser") == []


def test_photos_are_filtered_by_verdict(opened):
    """The buttons show those with cracks, those without, and all."""
    assert num_shown(opened) == 4
    the(opened, '[data-show="no crack"]').click()
    assert num_shown(opened) == 1
    the(opened, '[data-show="crack"]').click()
    assert num_shown(opened) == 3
    the(opened, '[data-show="all"]').click()
    assert num_shown(opened) == 4


def test_layers_are_toggled(opened):
    """Findings are shown, all blocks with their probabilities only when asked for; each by its own box."""
    find(opened, ".card")[0].click()
    for box, layer, shown in (("#show-cracks", ".cracks", True), ("#show-blocks", ".blocks", False)):
        for is_shown in (shown, not shown, shown):
            part = the(opened, f"#sheet {layer}")
            display = opened.execute_script("return getComputedStyle(arguments[0]).display", part)
            assert (display != "none") == is_shown
            the(opened, box).click()
    assert find(opened, "#sheet .blocks text")
    assert find(opened, "#sheet polyline")
    the(opened, "#close").click()


@pytest.mark.parametrize("times", [0, 3, 7])
def test_lines_keep_their_width_when_zoomed(opened, times):
    """One and a half pixels of the screen, at every zoom."""
    find(opened, ".card")[0].click()
    for _ in range(times):
        the(opened, "#zoom-in").click()
    line = find(opened, "#sheet polyline")[0]
    width = opened.execute_script("return parseFloat(getComputedStyle(arguments[0]).strokeWidth)", line)
    assert width * scale_of(opened) == pytest.approx(1.5, rel=0.02)
    the(opened, "#close").click()


def test_photos_are_shown_whole_and_sharp(opened):
    """The picture in the page is the photo at full size: nothing is blurred, with a finding or without."""
    for card in find(opened, ".card"):
        card.click()
        time.sleep(0.3)
        image = the(opened, "#sheet img")
        assert image.get_property("naturalWidth") == SIZE[1]
        the(opened, "#close").click()


def test_zoom_reaches_the_pixel_and_comes_back(opened):
    """Buttons and wheel zoom, dragging pans, fit shows all again."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    find(opened, ".card")[0].click()
    fitted = scale_of(opened)
    the(opened, "#zoom-in").click()
    assert scale_of(opened) == pytest.approx(1.5 * fitted, rel=1e-3)
    stage = the(opened, "#stage")
    ActionChains(opened).scroll_from_origin(ScrollOrigin.from_element(stage), 0, -1200).perform()
    time.sleep(0.3)
    assert scale_of(opened) > 4
    image = the(opened, "#sheet img")
    assert opened.execute_script("return getComputedStyle(arguments[0]).imageRendering", image) == "pixelated"
    assert image.get_property("naturalWidth") == SIZE[1]
    before = opened.execute_script("return document.getElementById('sheet').style.transform")
    ActionChains(opened).click_and_hold(stage).move_by_offset(60, 30).release().perform()
    assert opened.execute_script("return document.getElementById('sheet').style.transform") != before
    the(opened, "#fit").click()
    assert scale_of(opened) == pytest.approx(fitted, rel=1e-3)
    the(opened, "#close").click()


def test_the_table_sorts_both_ways(opened):
    """Most evidence first at the beginning; a heading sorts by its column, again the other way."""
    assert values(opened, "evidence") == sorted(values(opened, "evidence"), reverse=True)
    assert len(values(opened, "widest")) == 3
    for reverse in (True, False):
        the(opened, '[data-sort="widest"]').click()
        assert values(opened, "widest") == sorted(values(opened, "widest"), reverse=reverse)
    the(opened, '[data-sort="photo"]').click()
    names = [one.text for one in find(opened, "#finding-table .path")]
    assert names == sorted(names, reverse=True)


def test_lengths_of_photos_without_a_scale_sort_below_all_millimetres(browser, model, tmp_path):
    """However many pixels they have: no number of pixels is more than a millimetre."""
    for name, length in (("a.jpg", 380), ("b.jpg", 300), ("c.jpg", 340)):
        save(tmp_path / "in" / name, cracked(SIZE, (340, 250, 20, length, 8.0)))
    given, table = [str(tmp_path / "in")], {"b.jpg": 0.1}
    inspect_photos(given, model, tmp_path / "out", InspectConfig(), open_source, Run(), table)
    browser.get((tmp_path / "out/report.html").as_uri())
    the(browser, '[data-sort="length"]').click()
    assert [one.text for one in find(browser, "#finding-table .path")] == ["b.jpg", "a.jpg", "c.jpg"]


@pytest.mark.parametrize("width", [360, 1200])
def test_a_link_to_a_section_shows_its_heading(opened, width):
    """What stays at the top of the window does not cover it."""
    opened.set_window_size(width, 700)
    the(opened, 'nav a[href="#findings"]').click()
    time.sleep(0.3)
    below = opened.execute_script(
        "const [one, bar] = ['findings', 'desk'].map((id) => document.getElementById(id).getBoundingClientRect());"
        "return one.bottom - bar.bottom"
    )
    opened.set_window_size(1200, 900)
    assert below > 20


def test_a_findings_picture_opens_it_in_its_photo(opened):
    """The crack is marked and fills the view."""
    find(opened, "#finding-table .thumb")[0].click()
    assert len(find(opened, "#sheet .chosen")) == 1
    box = the(opened, "#sheet .chosen").rect
    stage = the(opened, "#stage").rect
    assert box["width"] > 0.3 * stage["width"] or box["height"] > 0.3 * stage["height"]
    the(opened, "#close").click()


def test_keys_work_in_the_viewer(opened):
    """Arrow keys go to the next finding and back, escape closes."""
    from selenium.webdriver.common.keys import Keys

    find(opened, "#finding-table .thumb")[0].click()
    first = the(opened, "#place").text
    opened.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert the(opened, "#place").text != first
    opened.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert the(opened, "#place").text == first
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert the(opened, "#viewer").get_attribute("open") is None


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_the_page_fits_every_width(opened, width):
    """No sideways scrolling of the page, from a phone to a wall screen."""
    opened.set_window_size(width, 800)
    wider = opened.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wider <= 0


def test_printing_shows_every_photo_with_a_finding(opened):
    """Each with its lines; the printed document has pictures that the screen does not."""
    opened.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert len(find(opened, "#print figure polyline")) >= 3
    opened.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert not find(opened, "#print figure polyline")
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 50_000


def test_thumbnails_come_with_the_view(opened):
    """The pictures of the cards are in the page, and shown once they are near; all of them are printed."""
    opened.set_window_size(1200, 300)
    opened.refresh()
    shown = "return [...document.querySelectorAll('.card img')].filter((one) => one.naturalWidth).length"
    assert opened.execute_script(shown) == 0
    the(opened, "#photos").location_once_scrolled_into_view  # noqa: B018
    time.sleep(0.5)
    assert opened.execute_script(shown) == 4
    opened.set_window_size(1200, 900)


def test_a_page_alone_shows_what_is_in_it(opened, page, tmp_path):
    """Copied without its folder it still shows the photos with findings at full size."""
    (tmp_path / "alone.html").write_bytes(page.read_bytes())
    opened.get((tmp_path / "alone.html").as_uri())
    find(opened, "#finding-table .thumb")[0].click()
    time.sleep(0.3)
    assert the(opened, "#sheet img").get_property("naturalWidth") == SIZE[1]
    assert opened.get_log("browser") == []
    the(opened, "#close").click()


def test_set_aside_photos_are_on_the_page(opened, page):
    """With their reason, and that nothing is known of them."""
    assert "broken.jpg" in the(opened, "#set-aside ~ .wide").text
    totals = json.loads(page.with_name("survey.json").read_text())["totals"]
    assert totals["num_set_aside"] == 1
    assert the(opened, '.lead a[href="#set-aside"]').text.split()[0] == "1"
