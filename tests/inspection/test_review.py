"""Decisions as labels for the next training."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from damcrack.files import InputError, read_csv
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.decisions import Decision
from damcrack.inspection.review import block_labels, take_back
from damcrack.run import Run
from damcrack.storage.source import open_source
from surveys import all_findings, cracked, decide, inspect, save, write_decisions

SIZE = (448, 560)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Two photos with two cracks each, far apart."""
    root = tmp_path_factory.mktemp("review")
    for number in range(2):
        save(
            root / f"in/{number}.jpg",
            cracked(SIZE, (280, 60, 5, 400, 6.0), (280, 390, 0, 400, 6.0), seed=number),
        )
    return inspect(root)


def of_photo(survey, name):
    found = [pair for pair in all_findings(survey) if pair[0].photo == name and pair[1].kind == "crack"]
    return sorted(found, key=lambda pair: pair[1].box_xyxy[1])


def test_decisions_label_the_blocks_that_hold_them(survey, tmp_path):
    """Accepted cracks give crack tiles, rejected findings no-crack tiles, cut from the photo; a photo is one group."""
    top, bottom = of_photo(survey, "0.jpg")
    file = write_decisions(tmp_path / "d.json", [decide(*top, "accepted"), decide(*bottom, "rejected")])
    take_back(survey, tmp_path / "out", file)
    positive, negative = (sorted((tmp_path / "out" / name).iterdir()) for name in ("Positive", "Negative"))
    assert len(positive) >= 3
    assert len(negative) >= 3
    assert {path.name.split("-")[2] for path in positive} == {"00000.jpg"}
    assert all(int(path.name.split("-")[2][:5]) > 200 for path in negative)
    original = np.asarray(Image.open(survey.parent / "in/0.jpg"))
    for path in (*positive, *negative):
        x0, y0 = (int(part) for part in path.stem.split("-")[1:])
        tile = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        assert tile.shape == (112, 112, 3)
        assert cv2.PSNR(tile, original[y0 : y0 + 112, x0 : x0 + 112]) > 38
    groups = read_csv(tmp_path / "out/groups.csv")
    assert len(groups) == len(positive) + len(negative)
    assert {row["group"] for row in groups} == {top[0].sha256[:12]}


def test_photos_that_are_stored_smaller_are_named(tmp_path, monkeypatch):
    """Their blocks cannot be cut; the decisions on them are not dropped without a word."""
    for name, width in (("small.jpg", SIZE[1]), ("large.jpg", SIZE[1] + 112)):
        save(tmp_path / "in" / name, cracked((SIZE[0], width), (280, 60, 5, 400, 6.0), seed=width))
    survey = inspect(tmp_path)
    both = [decide(*of_photo(survey, name)[0], "accepted") for name in ("small.jpg", "large.jpg")]
    monkeypatch.setattr("damcrack.inspection.review.DETAIL_PX", SIZE[1])
    summary = take_back(survey, tmp_path / "taken", write_decisions(tmp_path / "d.json", both))
    assert "large.jpg" in summary["too large"]
    assert "small.jpg" not in summary["too large"]
    assert list((tmp_path / "taken/Positive").iterdir())


def test_joints_and_stains_are_no_cracks(survey, tmp_path):
    """Accepted as what they are."""
    top, _ = of_photo(survey, "0.jpg")
    labels = block_labels(top[0], [decide(*top, "accepted", label="joint")])
    assert set(labels.values()) == {"no crack"}


def test_what_is_to_be_confirmed_is_no_label(survey, tmp_path):
    """A carried decision is somebody's word on another photo."""
    one = replace(decide(*of_photo(survey, "0.jpg")[0], "accepted"), carried=True)
    with pytest.raises(InputError):
        take_back(survey, tmp_path / "out", write_decisions(tmp_path / "d.json", [one]))
    assert not (tmp_path / "out").exists()


def block_decision(known, box, status):
    return Decision(known.photo, known.sha256, "block", box, (), status)


def test_the_same_block_judged_both_ways_is_refused(survey, tmp_path):
    """As a block without a crack by one model's survey, as a crack that crosses it by the next one's."""
    known, crack = of_photo(survey, "0.jpg")[0]
    (box, *_) = block_labels(known, [decide(known, crack, "accepted")])
    shifted = (box[0] + 20, box[1] + 10, box[2] + 20, box[3] + 10)
    accepted = block_decision(known, box, "accepted")
    for both in (
        (decide(known, crack, "accepted"), block_decision(known, box, "rejected")),
        (accepted, block_decision(known, box, "rejected")),
        (accepted, block_decision(known, shifted, "rejected")),
    ):
        with pytest.raises(InputError, match="lies in both"):
            take_back(survey, tmp_path / "out", write_decisions(tmp_path / "d.json", both))
    assert not (tmp_path / "out").exists()


def test_a_crack_is_not_asked_twice_by_the_next_model(tmp_path):
    """Accepted once, then the survey is repeated with another model: one label, one group."""
    save(tmp_path / "in/a.jpg", cracked(SIZE, (280, 200, 0, 400, 6.0)))
    first = inspect(tmp_path, "one")
    file = write_decisions(tmp_path / "d.json", [decide(*of_photo(first, "a.jpg")[0], "accepted")])
    second = inspect(tmp_path, "two", InspectConfig(scales=(1.0,)), temperature=2.0)
    for survey, name in ((first, "x"), (second, "y")):
        take_back(survey, tmp_path / name, file)
    names = [sorted(path.name for path in (tmp_path / name / "Positive").iterdir()) for name in ("x", "y")]
    assert names[0] == names[1] != []


def test_labelled_tiles_are_taken_in_by_the_graph(survey, tmp_path):
    """The photos stage reads the new source as ready tiles with their labels, one group for their photo."""
    from damcrack.data.imageset import ImageSet
    from damcrack.data.photos import photos
    from damcrack.data.snapshot import snapshot
    from damcrack.params import read_params, stage_config

    top, bottom = of_photo(survey, "0.jpg")
    file = write_decisions(tmp_path / "d.json", [decide(*top, "accepted"), decide(*bottom, "rejected")])
    take_back(survey, tmp_path / "source", file)
    sources = {"review": str(tmp_path / "source")}
    snapshot(sources, tmp_path / "listed.csv", open_source, Run())
    values = read_params(Path(__file__).parents[2] / "params.yaml")
    settings = stage_config(values, "photos", None, {"sources": sources, "min_side_px": 64})
    photos(tmp_path / "listed.csv", tmp_path / "photos", settings, open_source, Run(tmp_path / "scratch"))
    taken = ImageSet.open(tmp_path / "photos/ready")
    assert sorted(set(taken.labels)) == [0, 1]
    assert len({row["group"] for row in taken.rows}) == 1


def test_an_undecided_finding_keeps_its_blocks_from_being_negative(survey):
    """A rejected block that nobody has looked at for the crack in it gives no label."""
    known, crack = of_photo(survey, "1.jpg")[0]
    (box, *_) = block_labels(known, [decide(known, crack, "accepted")])
    beside = (box[0] + 20, box[1], box[2] + 20, box[3])
    assert block_labels(known, [block_decision(known, beside, "rejected")]).get(beside) is None
    rejected = [block_decision(known, beside, "rejected"), decide(known, crack, "rejected")]
    assert block_labels(known, rejected)[box] == "no crack"
