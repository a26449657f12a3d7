import html
import json
import re
import shutil
from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image

from damcrack.cracks.findings import Findings
from damcrack.files import InputError, read_csv
from damcrack.inspection.align import register_photos
from damcrack.inspection.compare import compare
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.matching import traced
from damcrack.inspection.survey_folder import FinishedSurvey
from damcrack.run import Run
from damcrack.storage.source import open_source
from surveys import decide, write_decisions
from walls import concrete, coverage, line, photo, rgb, write_darkness_detector

pytestmark = pytest.mark.slow

SIZE = (360, 500)
CENTRE = np.array([225.0, 140.0])
A = {"a.jpg": {}}


@cache
def wall(width=7.0, length=240, extra=False, seed=11, dim=False, factor=1.0):
    """A crack, `extra` another one; in dim light and out of focus, or from so much nearer."""
    ends = CENTRE + np.array([[-150, -60], [-150 + length * 0.94, -60 + length * 0.342]])
    covers = [coverage(SIZE, ends, width)]
    if extra:
        covers.append(coverage(SIZE, line(np.array([350.0, 290.0]), 8, 150), 7.0))
    grey = photo(concrete(SIZE, seed=seed), *covers)
    if dim:
        grey = np.clip(cv2.GaussianBlur(grey, (0, 0), 0.7) * 0.85 + 10, 0, 255).astype(np.uint8)
    return cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory, model):
    """Inspects walls by the names of their photos, each set of them once; a test that changes a survey copies it."""
    known = {}

    def survey(photos, onnx=model, **values):
        key = repr((photos, onnx, values))
        if key not in known:
            root = tmp_path_factory.mktemp("survey")
            (root / "in").mkdir()
            for name, how in photos.items():  # bytes of its own for each
                Image.fromarray(rgb(wall(**how))).save(root / "in" / name, quality=92, comment=name)
            config = InspectConfig(**values)
            inspect_photos([str(root / "in")], onnx, root / "out", config, open_source, Run())
            known[key] = root / "out"
        return known[key]

    return survey


@pytest.fixture(scope="module", autouse=True)
def registered_once():
    """Register each pair of pictures once: it takes seconds, and depends on nothing else."""
    known = {}

    def once(folders, findings):
        pictures = tuple((folder / "preview.jpg").read_bytes() for folder in folders)
        if pictures not in known:
            known[pictures] = register_photos(folders, findings)
        return known[pictures]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("damcrack.inspection.compare.register_photos", once)
        yield


def compared(old, new, out, pairs=None):
    """Compare; returns the rows of changes.csv and of pairs.csv, and the totals."""
    compare(old, new, out, pairs, Run())
    totals = json.loads((out / "compare.json").read_text())
    return read_csv(out / "changes.csv"), read_csv(out / "pairs.csv"), totals


def statuses(rows):
    """What became of the cracks of each photo."""
    return {
        name: sorted(row["status"] for row in rows if row["photo"] == name)
        for name in {row["photo"] for row in rows}
    }


@pytest.fixture(scope="module")
def changed(surveyed, tmp_path_factory):
    """Four walls a year later, and one that nobody photographed again."""
    before = {f"{name}.jpg": {} for name in ("same", "longer", "wider", "more", "gone")}
    after = {
        "same.jpg": {"dim": True},
        "longer.jpg": {"length": 265},
        "wider.jpg": {"width": 10.0},
        "more.jpg": {"extra": True},
    }
    out = tmp_path_factory.mktemp("changed") / "out"
    rows, _, totals = compared(surveyed(before, gsd_mm_per_px=0.5), surveyed(after, gsd_mm_per_px=0.5), out)
    return rows, totals, (out / "compare.html").read_text()


def test_each_change_is_found_where_it_is(changed):
    """Other light is no change; 25 px more length, 3 px more width and a new crack are."""
    rows, totals, _ = changed
    assert statuses(rows) == {
        "same.jpg": ["unchanged"],
        "longer.jpg": ["grown"],
        "wider.jpg": ["grown"],
        "more.jpg": ["new", "unchanged"],
    }
    grown = {row["photo"]: row for row in rows if row["status"] == "grown"}
    assert float(grown["longer.jpg"]["length_change_px"]) == pytest.approx(25, abs=8)
    assert float(grown["wider.jpg"]["width_change_px"]) == pytest.approx(3, abs=0.7)
    assert float(grown["wider.jpg"]["width_change_mm"]) == pytest.approx(1.5, abs=0.35)
    assert (totals["new"], totals["grown"], totals["vanished"], totals["not_registered"]) == (1, 2, 0, 0)
    assert totals["only_old"] == ["gone.jpg"]


def test_the_page_shows_the_same_numbers(changed):
    """It is whole, needs no network, and names the photo without partner."""
    rows, _, page = changed
    assert "gone.jpg" in page
    assert "https://" not in page
    assert page.count("<img") == 8
    by_crack = {row["crack"]: row for row in rows}
    shown = re.findall(r'<th scope="row" class="path">(.*?)</th>(.*?)</tr>', page, re.S)
    assert len(shown) == 3
    for crack, cells in shown:
        values = [float(one) for one in re.findall(r"<td>(\d[\d.]*) mm</td>", cells)]
        names = ("length_mm", "length_change_mm", "width_mm", "width_change_mm")
        expected = [abs(float(by_crack[crack][name])) for name in names if by_crack[crack][name]]
        assert values == pytest.approx(expected, abs=0.51)


def test_other_walls_are_not_compared(surveyed, tmp_path):
    """Photos of different places: no change is claimed, the reason is given."""
    rows, (pair,), _ = compared(surveyed(A), surveyed({"a.jpg": {"seed": 77}}), tmp_path / "compared")
    assert pair["problem"]
    assert {row["status"] for row in rows} == {"unclear"}


def test_pairs_may_be_named(surveyed, tmp_path):
    """Where cameras count on, a table says which photo is which."""
    old, new, table = surveyed(A), surveyed({"DSC9.jpg": {}}), tmp_path / "pairs.csv"
    with pytest.raises(InputError, match=r"no photo of one survey has its name.*--pairs"):
        compare(old, new, tmp_path / "compared", None, Run())
    table.write_text("old,new\na.jpg,DSC9.jpg\n")
    assert statuses(compared(old, new, tmp_path / "compared", table)[0]) == {"DSC9.jpg": ["unchanged"]}
    table.write_text("old,new\na.jpg,DSC8.jpg\n")
    with pytest.raises(InputError, match="DSC8"):
        compare(old, new, tmp_path / "compared", table, Run())


def test_surveys_of_different_models_or_rules_are_refused(surveyed, tmp_path):
    """Each finds other cracks, which are no change of the wall; where the page puts its limit does not matter."""
    other = write_darkness_detector(tmp_path / "other.onnx", temperature=2.0)
    for values in ({"onnx": other}, {"threshold": 0.4}, {"scales": (1.0,)}):
        with pytest.raises(InputError, match="expected the same"):
            compare(surveyed(A), surveyed(A, **values), tmp_path / "compared", None, Run())
        assert not (tmp_path / "compared").exists()
    compare(surveyed(A), surveyed(A, page_mb=1.0), tmp_path / "compared", None, Run())


@pytest.mark.parametrize(
    ("old_gsd", "new_gsd", "in_mm", "problem"),
    [
        (0.5, 0.5 / 1.5, True, False),
        (0.5, 0.5, False, True),
        (None, 0.5 / 1.5, True, True),
        (0.5, None, False, True),
        (None, None, False, False),
    ],
)
def test_scales_that_do_not_fit_give_no_millimetres(surveyed, tmp_path, old_gsd, new_gsd, in_mm, problem):
    """From nearer with its own scale nothing has changed; scales that contradict the photos are said."""
    old = surveyed(A, gsd_mm_per_px=old_gsd)
    new = surveyed({"a.jpg": {"factor": 1.5}}, gsd_mm_per_px=new_gsd)
    (row,), (pair,), totals = compared(old, new, tmp_path / "compared")
    assert row["status"] == "unchanged"
    assert bool(row["width_change_mm"]) == in_mm
    if in_mm:
        assert abs(float(row["width_change_mm"])) < 0.25
        assert float(row["length_mm"]) == pytest.approx(120, rel=0.05)
    assert bool(pair["scale_problem"]) == problem
    assert totals["scale_problems"] == problem
    page = html.unescape((tmp_path / "compared/compare.html").read_text())
    assert (pair["scale_problem"] in page) or not problem


def test_names_pair_in_any_case_and_tables_in_any_spelling(surveyed, tmp_path):
    """Another disk, another case; a photo has one partner; what others put into a survey is left alone."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(surveyed({"Wehr.JPG": {}, "b.jpg": {"seed": 12}}), old)
    shutil.copytree(surveyed({"wehr.jpg": {}, "b.jpg": {"seed": 12}}), new)
    (old / "photos/.DS_Store").write_bytes(b"x")
    (new / "photos/more").mkdir()
    pairs = compared(old, new, tmp_path / "compared")[1]
    assert [(row["old"], row["new"]) for row in pairs] == [("b.jpg", "b.jpg"), ("Wehr.JPG", "wehr.jpg")]
    table = tmp_path / "pairs.csv"
    table.write_text("Old;New\nWEHR.jpg ;.\\wehr.JPG\nWehr.JPG;wehr.jpg\n")
    _, (pair,), totals = compared(old, new, tmp_path / "named", table)
    assert (pair["old"], pair["new"]) == ("Wehr.JPG", "wehr.jpg")
    assert totals["only_new"] == ["b.jpg"]
    for content in ("old,new\nwehr.jpg,b.jpg\nb.jpg,b.jpg\n", "old,new\n", "old,new\nc.jpg,b.jpg\n"):
        table.write_text(content)
        with pytest.raises(InputError):
            compare(old, new, tmp_path / "refused", table, Run())


def test_a_damaged_survey_is_refused(surveyed, tmp_path):
    """Unfinished, of another version, or without its faint lines, when every crack would be new."""
    with pytest.raises(InputError, match="not a finished survey"):
        compare(tmp_path, tmp_path, tmp_path / "compared", None, Run())
    old = tmp_path / "old"
    shutil.copytree(surveyed(A), old)
    for name, content in (("survey.json", "{}"), ("survey.json", "{"), ("findings.json", "{}")):
        (path,) = old.rglob(name)
        whole = path.read_bytes()
        path.write_text(content)
        with pytest.raises(InputError, match="this version"):
            compare(old, old, tmp_path / "compared", None, Run())
        path.write_bytes(whole)
    next(old.rglob("possible.png")).unlink()
    with pytest.raises(InputError, match="possible"):
        compare(old, surveyed(A), tmp_path / "compared", None, Run())


def test_what_a_person_rejected_is_no_change(surveyed, tmp_path):
    """Rejected in the new survey, called a joint in the old one: neither new nor vanished; the accepted crack stays."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(surveyed({"a.jpg": {"extra": True}, "b.jpg": {}}), old)
    shutil.copytree(surveyed({"a.jpg": {}, "b.jpg": {"extra": True}}), new)
    rows = compared(old, new, tmp_path / "before")[0]
    assert statuses(rows) == {"a.jpg": ["unchanged", "vanished"], "b.jpg": ["new", "unchanged"]}
    for root, name, status, label in (
        (old, "a.jpg", "accepted", "joint"),
        (new, "b.jpg", "rejected", "crack"),
    ):
        known = Findings.read(FinishedSurvey.read(root).folders[name])
        short, long = sorted(traced(known), key=lambda one: one.crack.length_px)
        decisions = [decide(known, short, status, label=label), decide(known, long, "accepted")]
        write_decisions(root / "decisions.json", decisions)
    rows, _, totals = compared(old, new, tmp_path / "after")
    assert statuses(rows) == {"a.jpg": ["rejected", "unchanged"], "b.jpg": ["rejected", "unchanged"]}
    assert (totals["new"], totals["vanished"], totals["rejected"]) == (0, 0, 2)
    assert "2 that were rejected" in (tmp_path / "after/compare.html").read_text()
