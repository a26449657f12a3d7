"""The report to sign: what it counts, where it writes, and decisions of an older survey."""

import json
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from damcrack.cli.main import cli
from damcrack.files import InputError
from damcrack.inspection import signed
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.decisions import read_decisions
from damcrack.inspection.signed import TitleBlock, report
from damcrack.run import Run
from surveys import all_findings, cracked, decide, inspect, save, write_decisions

SIZE = (500, 700)


@pytest.fixture(autouse=True)
def no_browser(monkeypatch):
    """Printing is tested where a browser is."""
    monkeypatch.setattr(signed, "find_browser", lambda: None)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Four cracks in one photo and one in another."""
    root = tmp_path_factory.mktemp("signed")
    rows = [(350, 60 + 120 * place, 0, 200 + 50 * place, 4.0 + 2 * place) for place in range(4)]
    save(root / "in/a.jpg", cracked(SIZE, *rows))
    save(root / "in/b.jpg", cracked(SIZE, (350, 250, 20, 300, 6.0), seed=1))
    return inspect(root, config=InspectConfig(gsd_mm_per_px=0.5))


def cells(html, name):
    return [
        re.findall("<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(f"<tr {name}.*?</tr>", html, re.S)
    ]


def test_only_accepted_findings_are_counted(survey, tmp_path):
    """Totals by class with length, widest and severity; rejected ones stand in the annex, open ones are counted."""
    found = [pair for pair in all_findings(survey) if pair[0].photo == "a.jpg"]
    found.sort(key=lambda pair: pair[1].box_xyxy[1])
    decided = [
        decide(*found[0], "accepted", severity="minor"),
        decide(*found[1], "accepted", severity="severe", note="=1+1 <script>"),
        decide(*found[2], "accepted", label="joint"),
        decide(*found[3], "rejected", note="shadow"),
    ]
    file = write_decisions(tmp_path / "d.json", decided)
    report(survey, tmp_path / "out", TitleBlock(structure="Wall <1>"), Run(), file)
    html = (tmp_path / "out/report.html").read_text()
    (crack, joint) = (cells(html, f'data-class="{name}"')[0] for name in ("crack", "joint"))
    assert crack[1] == "2"
    assert float(crack[3].split()[0]) == pytest.approx(0.5 * (200 + 250), abs=5)
    assert float(crack[4].split()[0]) == pytest.approx(0.5 * 6, abs=0.5)
    assert "1 minor" in crack[2] and "1 severe" in crack[2]
    assert joint[1] == "1"
    assert len(cells(html, 'class="rejected-finding"')) == 1
    numbers = [one[1] for one in cells(html, 'class="accepted-finding"')]
    assert sorted(numbers) == sorted(f"#{finding.crack.number}" for _, finding in found[:3])
    assert re.search(r"<strong>1 finding not decided", html)
    assert "<script>" not in html
    assert "Wall &lt;1&gt;" in html
    (picture,) = (tmp_path / "out/photos").iterdir()
    assert picture.stem in [folder.name for folder in (survey / "photos").glob("a-*")]
    assert cv2.imread(str(picture)).shape == (*SIZE, 3)  # whole, as it is no larger than print needs


def test_the_same_inputs_give_the_same_bytes(survey, tmp_path):
    """No clock, no random name."""
    file = write_decisions(tmp_path / "d.json", [decide(*one, "accepted") for one in all_findings(survey)])
    for name in ("one", "other"):
        report(survey, tmp_path / name, TitleBlock(), Run(), file)
    one, other = ((tmp_path / name / "report.html").read_bytes() for name in ("one", "other"))
    assert one == other


def test_a_title_block_of_another_encoding_stops_no_report(survey, tmp_path):
    """As a terminal that is not UTF-8 hands it over."""
    file = write_decisions(tmp_path / "d.json", [])
    report(survey, tmp_path / "out", TitleBlock(structure="F\udcfcrsten"), Run(), file)
    assert "rsten" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_notes_and_severity_alone_decide_nothing(survey, tmp_path):
    """Such a finding is still open."""
    file = write_decisions(
        tmp_path / "d.json", [decide(*all_findings(survey)[0], "undecided", note="look again")]
    )
    summary = report(survey, tmp_path / "out", TitleBlock(), Run(), file)
    assert re.findall(r"\d+", str(summary["findings"])) == ["0", "0", "5"]


@pytest.mark.parametrize("fault", ["no decisions", "no survey", "other survey", "no browser"])
def test_what_cannot_be_reported_is_refused(survey, tmp_path, fault):
    """With nothing written."""
    one = decide(*all_findings(survey)[0], "accepted")
    if fault == "other survey":
        one = replace(one, sha256="1" * 64)
    file = write_decisions(tmp_path / "d.json", [one])
    given = tmp_path / "none.json" if fault == "no decisions" else file
    out = tmp_path / ("a.pdf" if fault == "no browser" else "out")
    with pytest.raises(InputError):
        report(tmp_path if fault == "no survey" else survey, out, TitleBlock(), Run(), given)
    assert not out.exists()


def test_a_pdf_of_somebody_else_is_not_replaced(tmp_path):
    """One of ours is."""
    from damcrack.inspection.printing import MARK, check_place

    (tmp_path / "ours.pdf").write_bytes(b"%PDF-" + MARK)
    check_place(tmp_path / "ours.pdf")
    (tmp_path / "other.pdf").write_bytes(b"%PDF- mine")
    with pytest.raises(InputError):
        check_place(tmp_path / "other.pdf")


def test_decisions_without_a_finding_are_listed(survey, tmp_path):
    """What was accepted under another model and is not found any more does not vanish silently."""
    known, finding = all_findings(survey)[0]
    gone = decide(known, finding, "accepted", note="seen in 2025")
    gone = replace(gone, box_xyxy=(600, 400, 690, 490), lines=(np.array([[600, 400], [690, 490]]),))
    file = write_decisions(tmp_path / "d.json", [gone])
    summary = report(survey, tmp_path / "out", TitleBlock(), Run(), file)
    assert "without a finding" in summary
    assert "seen in 2025" in (tmp_path / "out/report.html").read_text()


@pytest.mark.slow
def test_decisions_are_carried_to_the_same_wall_a_year_later(tmp_path):
    """Another photo of the wall, moved and with one crack more: the old decision comes over, to be confirmed."""
    wall = cracked(SIZE, (300, 200, 20, 300, 7.0), blur=0.4)
    later = cracked(SIZE, (300, 200, 20, 300, 7.0), (400, 420, -10, 250, 7.0), blur=0.4)
    shift = np.float32([[1, 0, 30], [0, 1, -20]])
    moved = cv2.warpAffine(later, shift, SIZE[::-1], borderMode=cv2.BORDER_REFLECT)
    save(tmp_path / "old-in/a.jpg", wall)
    save(tmp_path / "new-in/a.jpg", moved)
    old, new = inspect(tmp_path, "old", photos="old-in"), inspect(tmp_path, "new", photos="new-in")
    ((known, finding),) = all_findings(old)
    write_decisions(
        old / "decisions.json", [decide(known, finding, "accepted", severity="minor", note="since 2019")]
    )
    summary = report(new, tmp_path / "out", TitleBlock(), Run(), previous=old)
    assert re.findall(r"\d+", str(summary["findings"])) == ["0", "0", "2"]
    (carried,) = read_decisions(tmp_path / "out/decisions.json")
    assert (carried.carried, carried.note, carried.severity) == (True, "since 2019", "minor")
    found = [one for _, one in all_findings(new)]
    assert carried.box_xyxy in [one.box_xyxy for one in found]
    assert carried.box_xyxy[1] < 300  # the old crack, not the new one


def test_an_own_decision_overrides_that_of_an_older_survey(survey, tmp_path):
    """Also where another model had drawn its box a pixel larger."""
    shutil.copytree(survey, tmp_path / "old")
    found = all_findings(survey)
    write_decisions(tmp_path / "old/decisions.json", [decide(*one, "accepted") for one in found])
    own = decide(*found[0], "rejected")
    x0, y0, x1, y1 = own.box_xyxy
    file = write_decisions(tmp_path / "d.json", [replace(own, box_xyxy=(x0, y0, x1 + 1, y1))])
    summary = report(survey, tmp_path / "out", TitleBlock(), Run(), file, tmp_path / "old")
    assert re.findall(r"\d+", str(summary["findings"])) == ["0", "1", str(len(found) - 1)]


@pytest.mark.slow
def test_a_pair_that_does_not_fit_carries_nothing(tmp_path):
    """A photo of another wall under the same name."""
    save(tmp_path / "old-in/a.jpg", cracked(SIZE, (350, 250, 20, 300, 6.0), seed=1))
    save(tmp_path / "new-in/a.jpg", cracked(SIZE, (350, 250, 20, 300, 6.0), seed=2))
    old, new = inspect(tmp_path, "old", photos="old-in"), inspect(tmp_path, "new", photos="new-in")
    write_decisions(old / "decisions.json", [decide(*all_findings(old)[0], "accepted")])
    report(new, tmp_path / "out", TitleBlock(), Run(), previous=old)
    assert read_decisions(tmp_path / "out/decisions.json") == []


def test_the_command_writes_the_report_and_refuses_in_one_sentence(survey, tmp_path):
    """Title block from its options; a missing file of decisions is no traceback."""
    file = write_decisions(tmp_path / "d.json", [decide(*all_findings(survey)[0], "accepted")])
    given = ["report", str(survey), "--out", str(tmp_path / "out"), "--structure", "Left wall"]
    done = CliRunner().invoke(cli, [*given, "--decisions", str(file)])
    assert done.exit_code == 0, done.output
    assert "Left wall" in (tmp_path / "out/report.html").read_text()
    assert json.loads((tmp_path / "out/decisions.json").read_text())["version"] == 1
    failed = CliRunner().invoke(cli, ["report", str(survey), "--out", str(tmp_path / "none")])
    assert failed.exit_code != 0
    assert not (tmp_path / "none").exists()
