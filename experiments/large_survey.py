"""A survey of many photos: how long its page takes to write and to open, and whether the inspection's memory grows.

    python -m experiments.large_survey                          # page of 2,000 photos, about 3 minutes on two cores
    python -m experiments.large_survey --memory 500 2000        # inspects so many small photos, 10 minutes more

The page: rendered photos of 1600x1200 are inspected, and their folders repeated under other names until there are
enough; their traced lines are repeated in other places until a photo has as many as those of real surveys. Times of the
browser (Chromium without a window, median of the visits) are from its performance API, from the start of navigation;
`first finding open` is the first frame after a click on Decide that comes as soon as the page takes one.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from damcrack.cracks.detector import SHIPPED, OnnxDetector
from damcrack.cracks.findings import Findings
from damcrack.cracks.measure import Crack
from damcrack.cracks.photo import Rules, moved
from damcrack.data.photo import encode_mask
from damcrack.files import sha256_bytes
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.exports import survey_files
from damcrack.inspection.matching import asked
from damcrack.inspection.report import Page, model_card
from damcrack.inspection.survey_folder import FinishedSurvey
from damcrack.sample.concrete import encode_photo, render_photo
from experiments.commands import browser, command, table

RENDERED, SIZE_HW, SMALL_HW = 5, (1200, 1600), (300, 400)
TIMES = """
const [page] = performance.getEntriesByType("navigation");
const paint = performance.getEntriesByName("first-contentful-paint")[0];
const decides = performance.getEntriesByName("decides")[0];
return { paint: paint?.startTime, loaded: page.domContentLoadedEventEnd, decides: decides?.startTime };
"""
# The click that opens the first finding, as soon as the page takes it, and the frame that shows it.
CLICK = """
addEventListener("DOMContentLoaded", () => {
  document.getElementById("start").click();
  requestAnimationFrame(() => setTimeout(() => performance.mark("decides")));
});
"""


def render(folder: Path, num: int, size_hw: tuple[int, int]) -> None:
    """Write rendered photos; of more than a few the content repeats, the bytes do not."""
    folder.mkdir()
    rendered = [render_photo(1, number, size_hw).rgb for number in range(min(num, RENDERED))]
    for number in range(num):
        (folder / f"{number:05d}.jpg").write_bytes(encode_photo(rendered[number % RENDERED], number))


def repeated(survey: Path, num: int, num_lines: int) -> list[Path]:
    """Folders of `num` photos, those of the survey in turn, with `num_lines` traced lines each."""
    known = list(FinishedSurvey.read(survey).folders.values())
    rng, folders = np.random.default_rng(0), list[Path]()
    for number in range(num):
        source = known[number % len(known)]
        findings = Findings.read(source)
        cracks = [_elsewhere(findings, crack, rng) for crack in (findings.cracks * num_lines)[:num_lines]]
        folder = survey / "photos" / f"copy-{number:05d}"
        folder.mkdir()
        for name in ("preview.jpg", "detail.jpg"):
            os.link(source / name, folder / name)
        mask = np.zeros((findings.height_px, findings.width_px), np.uint8)
        for crack in cracks:
            cv2.polylines(mask, [line.astype(np.int32) for line in crack.lines], False, 1, 3)
        (folder / "mask.png").write_bytes(encode_mask(mask))
        name = f"{number:05d}.jpg"
        place = 7.0 + 1e-5 * (number % 50), 46.0 + 1e-5 * (number // 50)
        replace(findings, photo=name, sha256=sha256_bytes(name.encode()), lon_lat=place, cracks=cracks).write(
            folder
        )
        folders.append(folder)
    return folders


def _elsewhere(findings: Findings, crack: Crack, rng: np.random.Generator) -> Crack:
    x0, y0, x1, y1 = crack.box_xyxy
    x = int(rng.integers(-x0, findings.width_px - x1 + 1))
    return moved(crack, x, int(rng.integers(-y0, findings.height_px - y1 + 1)))


def peak_mib(photos: Path, out: Path) -> float:
    """Peak memory of `damcrack inspect` in a process of its own."""
    code = (
        "from damcrack.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print([l.split()[1] for l in open('/proc/self/status') if 'VmHWM' in l][0])"
    )
    command = [sys.executable, "-c", code, "inspect", str(photos), "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024


def opening(page: Path, visits: int) -> dict[str, float]:
    """Seconds until something is painted, until the program has run, and until the first finding is open."""
    found = []
    for _ in range(visits):
        with browser("1400,1000") as opened:
            opened.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": CLICK})
            before_s = _cpu_s(opened.service.process.pid)
            opened.get(page.as_uri())
            time.sleep(1)
            cpu_s = _cpu_s(opened.service.process.pid) - before_s
            found.append({**opened.execute_script(TIMES), "cpu": 1000 * cpu_s})
    return {name: statistics.median(one[name] for one in found) / 1000 for name in found[0]}


def _cpu_s(pid: int) -> float:
    """Seconds that a process and those below it have computed so far."""
    stats = dict[int, list[str]]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            stats[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    ours = {pid}
    while more := {one for one, stat in stats.items() if int(stat[1]) in ours} - ours:
        ours |= more
    return sum(int(stats[one][11]) + int(stats[one][12]) for one in ours & stats.keys()) / os.sysconf(
        "SC_CLK_TCK"
    )


def page(root: Path, num: int, num_lines: int, visits: int) -> str:
    """Markdown: the page of so many photos, written and opened."""
    render(root / "photos", RENDERED, SIZE_HW)
    peak_mib(root / "photos", root / "survey")
    folders = repeated(root / "survey", num, num_lines)
    config, detector = InspectConfig(), OnnxDetector.load(SHIPPED)
    rules, out = Rules.of(config), root / "survey" / "large.html"
    files = root / "files"
    files.mkdir()
    card = model_card(detector.contract, detector.sha256)
    started = time.process_time()
    # As `damcrack inspect` does at its end.
    with (
        survey_files(files, [], rules.join_px) as add,
        Page(num, lambda folder: folder / "detail.jpg") as shown,
    ):
        for folder in folders:
            findings = Findings.read(folder)
            add(folder, findings)
            shown.add(folder, findings)
        shown.write(
            out, f"{num} photos", [], rules, card, detector.tile_px, config.page_mb, root / "none.json"
        )
    written_s = time.process_time() - started
    num_findings = sum(len(asked(Findings.read(folder))[0]) for folder in folders)
    seconds = opening(out, visits)
    rows = {
        "photos": f"{num:,}",
        "findings": f"{num_findings:,}",
        "tables, GeoJSON, COCO and page written, CPU s": f"{written_s:.1f}",
        "page, MB": f"{out.stat().st_size / 1e6:.1f}",
        "first paint, s": f"{seconds['paint']:.2f}",
        "DOMContentLoaded, s": f"{seconds['loaded']:.2f}",
        "first finding open, s": f"{seconds['decides']:.2f}",
        "all processes of the browser, CPU s": f"{seconds['cpu']:.2f}",
    }
    return table(["page", "value"], 1, rows.items())


def memory(root: Path, nums: Sequence[int]) -> str:
    """Markdown: peak memory of inspections of so many small photos."""
    peaks = dict[str, str]()
    for num in nums:
        render(root / f"photos-{num}", num, SMALL_HW)
        peaks[f"{num:,}"] = f"{peak_mib(root / f'photos-{num}', root / f'survey-{num}'):.0f}"
    return table(["photos of 400x300", "peak memory, MiB"], 1, peaks.items())


def main() -> None:
    """Measure and print Markdown."""
    parser = command("large_survey", __doc__)
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--lines", type=int, default=15, help="traced lines of each photo")
    parser.add_argument("--visits", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=(), help="numbers of photos to inspect")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"Machine: {cores} CPU cores, Python {platform.python_version()}.\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(page(Path(folder), options.num, options.lines, options.visits), flush=True)
        if options.memory:
            print(f"\n{memory(Path(folder), options.memory)}", flush=True)


if __name__ == "__main__":
    main()
