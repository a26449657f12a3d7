import csv
import html
import json
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from damcrack.cracks.findings import Findings
from damcrack.files import InputError
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

SIZE = (520, 700)
CENTRE = np.array([330.0, 260.0])


def wall(width=7.0, length=240, extra=False, seed=11):
    ends = CENTRE + np.array([[-150, -60], [-150 + length * 0.94, -60 + length * 0.342]])
    covers = [coverage(SIZE, ends, width)]
    if extra:
        covers.append(coverage(SIZE, line(np.array([480.0, 420.0]), 8, 150), 7.0))
    return photo(concrete(SIZE, seed=seed), *covers)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_darkness_detector(tmp_path_factory.mktemp("model") / "model.onnx")


def survey(folder, photos, model, **values):
    """Inspect photos by name, kept as lightly compressed JPEGs of bytes of their own."""
    (folder / "in").mkdir(parents=True)
    for name, grey in photos.items():
        Image.fromarray(rgb(grey)).save(folder / "in" / name, quality=92, comment=name)
    inspect_photos([str(folder / "in")], model, folder / "out", InspectConfig(**values), open_source, Run())
    return folder / "out"


def rows_of(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def compared(tmp_path_factory, model):
    """Four walls: as it was under other light, a longer and a wider crack, a new one; and one photo without partner."""
    root = tmp_path_factory.mktemp("surveys")
    same = np.clip(cv2.GaussianBlur(wall(), (0, 0), 0.7) * 0.85 + 10, 0, 255).astype(np.uint8)
    before = {
        "same.jpg": wall(),
        "longer.jpg": wall(),
        "wider.jpg": wall(),
        "more.jpg": wall(),
        "gone.jpg": wall(),
    }
    after = {
        "same.jpg": same,
        "longer.jpg": wall(length=265),
        "wider.jpg": wall(width=10.0),
        "more.jpg": wall(extra=True),
    }
    old, new = (
        survey(root / name, photos, model, gsd_mm_per_px=0.5)
        for name, photos in (("old", before), ("new", after))
    )
    summary = compare(old, new, root / "compared", None, Run())
    return root / "compared", summary


def test_each_change_is_found_where_it_is(compared):
    """Other light is no change; growth in length, in width and a new crack are."""
    statuses = {}
    for row in rows_of(compared[0] / "changes.csv"):
        statuses.setdefault(row["photo"], []).append(row["status"])
    assert {photo: sorted(found) for photo, found in statuses.items()} == {
        "same.jpg": ["unchanged"],
        "longer.jpg": ["grown"],
        "wider.jpg": ["grown"],
        "more.jpg": ["new", "unchanged"],
    }


def test_changes_are_measured(compared):
    """25 px longer, 3 px wider, in pixels and in millimetres."""
    rows = {row["photo"]: row for row in rows_of(compared[0] / "changes.csv") if row["status"] == "grown"}
    assert float(rows["longer.jpg"]["length_change_px"]) == pytest.approx(25, abs=8)
    assert float(rows["wider.jpg"]["width_change_px"]) == pytest.approx(3, abs=0.7)
    assert float(rows["wider.jpg"]["width_change_mm"]) == pytest.approx(1.5, abs=0.35)


def test_totals_and_page_agree(compared):
    """The page is whole, needs no network, and names the photo without partner."""
    totals = json.loads((compared[0] / "compare.json").read_text())
    assert (totals["new"], totals["grown"], totals["vanished"], totals["not_registered"]) == (1, 2, 0, 0)
    assert totals["only_old"] == ["gone.jpg"]
    page = (compared[0] / "compare.html").read_text()
    assert "gone.jpg" in page
    assert "https://" not in page
    assert page.count("<img") == 8
    rows = {row["crack"]: row for row in rows_of(compared[0] / "changes.csv")}
    shown = re.findall(r'<th scope="row" class="path">(.*?)</th>(.*?)</tr>', page, re.S)
    assert len(shown) == 3
    for crack, cells in shown:
        values = [float(one) for one in re.findall(r"<td>(\d[\d.]*) mm</td>", cells)]
        names = ("length_mm", "length_change_mm", "width_mm", "width_change_mm")
        assert values == pytest.approx(
            [abs(float(rows[crack][name])) for name in names if rows[crack][name]], abs=0.51
        )


def test_other_walls_are_not_compared(tmp_path, model):
    """Photos of different places: no change is claimed, the reason is told."""
    old = survey(tmp_path / "old", {"a.jpg": wall()}, model)
    new = survey(tmp_path / "new", {"a.jpg": wall(seed=77)}, model)
    compare(old, new, tmp_path / "compared", None, Run())
    (pair,) = rows_of(tmp_path / "compared/pairs.csv")
    assert pair["problem"]
    assert {row["status"] for row in rows_of(tmp_path / "compared/changes.csv")} == {"unclear"}


def test_pairs_may_be_named(tmp_path, model):
    """Where cameras count on, a table says which photo is which."""
    old = survey(tmp_path / "old", {"DSC1.jpg": wall()}, model)
    new = survey(tmp_path / "new", {"DSC9.jpg": wall()}, model)
    with pytest.raises(InputError, match=r"no photo of one survey has its name.*--pairs"):
        compare(old, new, tmp_path / "compared", None, Run())
    (tmp_path / "pairs.csv").write_text("old,new\nDSC1.jpg,DSC9.jpg\n")
    compare(old, new, tmp_path / "compared", tmp_path / "pairs.csv", Run())
    assert [row["status"] for row in rows_of(tmp_path / "compared/changes.csv")] == ["unchanged"]
    (tmp_path / "pairs.csv").write_text("old,new\nDSC1.jpg,DSC8.jpg\n")
    with pytest.raises(InputError, match="DSC8"):
        compare(old, new, tmp_path / "compared", tmp_path / "pairs.csv", Run())


def test_an_unfinished_survey_is_refused(tmp_path):
    """It must have been ended first."""
    (tmp_path / "old").mkdir()
    with pytest.raises(InputError, match="not a finished survey"):
        compare(tmp_path / "old", tmp_path / "old", tmp_path / "out", None, Run())


def test_surveys_of_different_models_or_rules_are_refused(tmp_path, model):
    """Each finds other cracks, which are no change of the wall; where the page puts its limit does not matter."""
    old = survey(tmp_path / "old", {"a.jpg": wall()}, model)
    other = write_darkness_detector(tmp_path / "other.onnx", temperature=2.0)
    for name, values in (("model", {}), ("rules", {"threshold": 0.4}), ("scales", {"scales": (1.0,)})):
        new = survey(tmp_path / name, {"a.jpg": wall()}, other if name == "model" else model, **values)
        with pytest.raises(InputError, match="expected the same"):
            compare(old, new, tmp_path / "compared", None, Run())
        assert not (tmp_path / "compared").exists()
    new = survey(tmp_path / "same", {"a.jpg": wall()}, model, page_mb=1.0)
    compare(old, new, tmp_path / "compared", None, Run())


def scaled(factor):
    """The wall from nearer: everything is `factor` times as large."""
    return cv2.resize(wall(), None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


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
def test_scales_that_do_not_fit_give_no_millimetres(tmp_path, model, old_gsd, new_gsd, in_mm, problem):
    """From nearer with its own scale nothing has changed; scales that contradict the photos are said."""
    old = survey(tmp_path / "old", {"a.jpg": wall()}, model, gsd_mm_per_px=old_gsd)
    new = survey(tmp_path / "new", {"a.jpg": scaled(1.5)}, model, gsd_mm_per_px=new_gsd)
    compare(old, new, tmp_path / "compared", None, Run())
    (row,), (pair,) = (rows_of(tmp_path / f"compared/{name}.csv") for name in ("changes", "pairs"))
    assert row["status"] == "unchanged"
    assert bool(row["width_change_mm"]) == in_mm
    if in_mm:
        assert abs(float(row["width_change_mm"])) < 0.25
        assert float(row["length_mm"]) == pytest.approx(120, rel=0.05)
    assert bool(pair["scale_problem"]) == problem
    totals = json.loads((tmp_path / "compared/compare.json").read_text())
    assert totals["scale_problems"] == problem
    page = html.unescape((tmp_path / "compared/compare.html").read_text())
    assert (pair["scale_problem"] in page) or not problem


def test_names_pair_in_any_case_and_tables_in_any_spelling(tmp_path, model):
    """Another disk, another case; a photo has one partner; what others put into a survey is left alone."""
    old = survey(tmp_path / "old", {"Wehr.JPG": wall(), "b.jpg": wall(seed=12)}, model)
    new = survey(tmp_path / "new", {"wehr.jpg": wall(), "b.jpg": wall(seed=12)}, model)
    (old / "photos/.DS_Store").write_bytes(b"x")
    (new / "photos/more").mkdir()
    compare(old, new, tmp_path / "compared", None, Run())
    pairs = rows_of(tmp_path / "compared/pairs.csv")
    assert [(row["old"], row["new"]) for row in pairs] == [("b.jpg", "b.jpg"), ("Wehr.JPG", "wehr.jpg")]
    (tmp_path / "pairs.csv").write_text("Old;New\nWEHR.jpg ;.\\wehr.JPG\nWehr.JPG;wehr.jpg\n")
    compare(old, new, tmp_path / "named", tmp_path / "pairs.csv", Run())
    assert [(row["old"], row["new"]) for row in rows_of(tmp_path / "named/pairs.csv")] == [
        ("Wehr.JPG", "wehr.jpg")
    ]
    assert json.loads((tmp_path / "named/compare.json").read_text())["only_new"] == ["b.jpg"]
    for table in ("old,new\nwehr.jpg,b.jpg\nb.jpg,b.jpg\n", "old,new\n", "old,new\nc.jpg,b.jpg\n"):
        (tmp_path / "pairs.csv").write_text(table)
        with pytest.raises(InputError):
            compare(old, new, tmp_path / "refused", tmp_path / "pairs.csv", Run())


def test_a_survey_without_its_faint_lines_is_refused(tmp_path, model):
    """Without them every crack would be new."""
    old = survey(tmp_path / "old", {"a.jpg": wall()}, model)
    new = survey(tmp_path / "new", {"a.jpg": wall()}, model)
    next(old.rglob("possible.png")).unlink()
    with pytest.raises(InputError, match="possible"):
        compare(old, new, tmp_path / "compared", None, Run())


def test_a_survey_of_another_version_is_refused(tmp_path, model):
    """With a sentence, whatever is missing in it."""
    old = survey(tmp_path / "old", {"a.jpg": wall()}, model)
    for name, content in (("survey.json", "{}"), ("survey.json", "{"), ("findings.json", "{}")):
        (path,) = old.rglob(name)
        kept = path.read_bytes()
        path.write_text(content)
        with pytest.raises(InputError, match="this version"):
            compare(old, old, tmp_path / "out", None, Run())
        path.write_bytes(kept)


def test_what_a_person_rejected_is_no_change(tmp_path, model):
    """Rejected in the new survey, called a joint in the old one: neither new nor vanished; the accepted crack stays."""
    old = survey(tmp_path / "old", {"a.jpg": wall(extra=True), "b.jpg": wall()}, model)
    new = survey(tmp_path / "new", {"a.jpg": wall(), "b.jpg": wall(extra=True)}, model)

    def statuses(name):
        compare(old, new, tmp_path / name, None, Run())
        rows = rows_of(tmp_path / name / "changes.csv")
        return {
            photo: sorted(row["status"] for row in rows if row["photo"] == photo)
            for photo in ("a.jpg", "b.jpg")
        }

    assert statuses("before") == {"a.jpg": ["unchanged", "vanished"], "b.jpg": ["new", "unchanged"]}
    for root, name, values in ((old, "a.jpg", ("accepted", "joint")), (new, "b.jpg", ("rejected", "crack"))):
        known = Findings.read(FinishedSurvey.read(root).folders[name])
        short, long = sorted(traced(known), key=lambda one: one.crack.length_px)
        status, label = values
        write_decisions(
            root / "decisions.json",
            [decide(known, short, status, label=label), decide(known, long, "accepted")],
        )
    assert statuses("after") == {"a.jpg": ["rejected", "unchanged"], "b.jpg": ["rejected", "unchanged"]}
    totals = json.loads((tmp_path / "after/compare.json").read_text())
    assert (totals["new"], totals["vanished"], totals["rejected"]) == (0, 0, 2)
    assert "2 that were rejected" in (tmp_path / "after/compare.html").read_text()
