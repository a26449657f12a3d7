"""The file of decisions, and which finding of which survey a decision fits."""

import json
from dataclasses import replace

import numpy as np
import pytest

from damcrack.cracks.findings import Block, Findings
from damcrack.files import InputError
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.decisions import Decision, as_json, read_decisions
from damcrack.inspection.matching import Finding, asked, matched
from damcrack.inspection.survey_folder import FinishedSurvey
from surveys import all_findings, cracked, decide, inspect, save, write_decisions


def drawn(points, kind="crack", **values):
    line = np.array(points)
    box = (*line.min(axis=0).tolist(), *(line.max(axis=0) + 1).tolist())
    return Finding(kind, box, (line,) if kind == "crack" else (), 0.9, **values)


def on(finding, status="accepted", **values):
    return Decision("a.jpg", "0" * 64, finding.kind, finding.box_xyxy, finding.lines, status, **values)


def test_a_file_comes_back_as_it_was_written(tmp_path):
    """Every field, markup in a note included."""
    one = on(
        drawn([[5, 5], [90, 40]]),
        "rejected",
        label="joint",
        severity="severe",
        note="<b>&",
        who="A",
        when="2026",
    )
    (back,) = read_decisions(write_decisions(tmp_path / "d.json", [one]))
    assert as_json([back]) == as_json([one])


def test_half_a_character_stops_no_report(tmp_path):
    """A note that ends within an emoji stays a text that can be written."""
    one = on(drawn([[5, 5], [90, 40]]), note="wet \ud83d")
    (back,) = read_decisions(write_decisions(tmp_path / "d.json", [one]))
    assert back.note.encode().startswith(b"wet ")


GOOD = {"format": "damcrack decisions", "version": 1, "decisions": []}
ONE = {"kind": "crack", "status": "accepted", "box_px": [0, 0, 5, 5]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        "\ud800",
        json.dumps(GOOD | {"version": 2}),
        json.dumps(GOOD | {"version": None}),
        json.dumps(GOOD | {"format": "other"}),
        json.dumps(GOOD | {"decisions": {}}),
        json.dumps(GOOD | {"decisions": [1]}),
        json.dumps(GOOD | {"decisions": [{name: ONE[name] for name in ("kind", "status")}]}),
        *(
            json.dumps(GOOD | {"decisions": [ONE | wrong]})
            for wrong in (
                {"box_px": [0, 0, 5, "5"]},
                {"box_px": [0, 0, 5, 10**9]},
                {"box_px": [0, 0, 5, 1e3]},
                {"status": "maybe"},
                {"status": ["x"]},
                {"note": "x" * 9999},
                {"lines_px": 3},
                {"lines_px": {}},
            )
        ),
    ],
)
def test_damaged_and_foreign_files_are_refused(tmp_path, content):
    """Whatever is wrong with them, in one sentence."""
    (tmp_path / "d.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError) as refused:
        read_decisions(tmp_path / "d.json")
    assert "\n" not in str(refused.value)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    """64 MB are more than any survey needs."""
    with (tmp_path / "d.json").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(InputError):
        read_decisions(tmp_path / "d.json")


@pytest.mark.parametrize("other", [{"status": "rejected"}, {"label": "joint"}])
def test_one_finding_decided_both_ways_is_refused(tmp_path, other):
    """The same place cannot be accepted and rejected, nor be a crack and a joint."""
    one = on(drawn([[5, 5], [90, 40]]))
    with pytest.raises(InputError, match="lies in both"):
        read_decisions(write_decisions(tmp_path / "d.json", [one, replace(one, **other)]))


def test_the_same_geometry_keeps_its_decision():
    """Nothing to confirm where nothing moved; a rejected parallel crack beside it stays rejected."""
    one, other = drawn([[0, 0], [300, 0]]), drawn([[0, 20], [300, 20]])
    found, lost = matched([other, one], [on(one), on(other, "rejected")])
    assert [(each.status, each.carried) for _, each in found] == [("rejected", False), ("accepted", False)]
    assert lost == []


def test_a_moved_crack_carries_its_decision_to_be_confirmed():
    """Another model traces the same crack longer and a little beside."""
    old, new = drawn([[0, 0], [300, 0]]), drawn([[10, 3], [700, 3]])
    (((_, carried),), lost) = matched([new], [on(old)])
    assert carried.carried
    assert carried.box_xyxy == new.box_xyxy
    assert lost == []


def test_a_decision_elsewhere_fits_nothing():
    """It is handed back, not lost."""
    old, new = drawn([[0, 0], [300, 0]]), drawn([[0, 60], [300, 60]])
    found, lost = matched([new], [on(old)])
    assert found == [(new, None)]
    assert len(lost) == 1


def test_the_later_of_two_decisions_counts():
    """When two fit equally well."""
    old = drawn([[0, 0], [300, 0]])
    (((_, one),), _) = matched([old], [on(old, when="2026-02"), on(old, when="2026-01", note="early")])
    assert one.note == ""


def test_what_is_asked_is_a_short_list_with_the_best_first(tmp_path):
    """Convincing lines, fainter ones only beside a crack, then few blocks close to certain; the rest is counted."""
    save(tmp_path / "in/a.jpg", cracked((340, 450), (225, 170, 20, 260, 6.0)))
    (folder,) = FinishedSurvey.read(inspect(tmp_path)).folders.values()
    known = Findings.read(folder)
    (crack,) = known.cracks
    short = replace(crack, length_px=45.0, width_max_px=crack.width_max_px / 2, confidence=0.4)
    faint = replace(short, crack_prob=0.36, confidence=0.0)
    probs = [0.99, 0.97, 0.95, 0.93, 0.6]
    blocks = [Block(10_000 + 224 * at, 0, 10_224 + 224 * at, 224, prob) for at, prob in enumerate(probs)]
    for verdict, lines in (("crack", [crack, short]), ("unsure", [crack])):
        found, more = asked(replace(known, verdict=verdict, cracks=[crack, short, faint], blocks=blocks))
        assert [one.crack for one in found if one.crack] == lines
        assert [one.evidence for one in found[len(lines) :]] == probs[:3]
        assert more == 3 - len(lines) + 1


def test_decisions_survive_another_model(tmp_path):
    """The same photo bytes, inspected with other values: the crack keeps its decision, by its place."""
    save(tmp_path / "in/a.jpg", cracked((340, 450), (225, 170, 20, 260, 8.0)))
    ((known, finding),) = all_findings(inspect(tmp_path))
    decision = decide(known, finding, "accepted")
    config = InspectConfig(scales=(1.0,))
    ((again, moved),) = all_findings(inspect(tmp_path, "again", config, temperature=3.0))
    assert again.sha256 == known.sha256
    (((_, found),), lost) = matched([moved], [decision])
    assert found.status == "accepted"
    assert lost == []
