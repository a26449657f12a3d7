import json
import shutil
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from damcrack.files import InputError, read_csv, write_csv, write_json
from damcrack.registry.contest import Contestant
from damcrack.registry.frozen import open_set
from damcrack.registry.register import check_export, register
from damcrack.registry.settle import Gate, Move, Reign, previous, roll_back
from damcrack.run import SilentRun
from detectors import CONFIG, TILE_PX, cut_tiles, draw_photos, write_evaluation, write_export

WEAK, FAIR, GOOD = 70, 90, 130  # detectors of lines darker than this; lines are 20 to 150


class Shelf:
    """A registry in memory: what the protocol asks, and a hook for what others do meanwhile."""

    def __init__(self, root):
        self.root, self.versions, self.line, self.notes, self.aliases = root, [], [], {}, {}
        self.meanwhile = lambda: None

    def add(self, entry):
        if entry.onnx_sha256 not in self.versions:
            self.versions.append(entry.onnx_sha256)
            folder = self.root / str(len(self.versions))
            shutil.copytree(entry.export, folder)
            shutil.copy(entry.photos, folder / "photos.csv")
            shutil.copytree(entry.card, folder / "card")
        return str(self.versions.index(entry.onnx_sha256) + 1)

    def reign(self, model_name, must_exist=True):
        return Reign(self.line[-1].version if self.line else None, len(self.line))

    def moves(self, model_name):
        return self.line

    def succeed(self, model_name, reign, version, how, record):
        self.meanwhile()
        if len(self.line) != reign.move:
            return False
        self.line.append(Move(len(self.line) + 1, version, reign.version, how, record["reason"], record))
        self.note(model_name, version, record)
        return True

    def fetch(self, model_name, version):
        return self.root / version

    def note(self, model_name, version, record):
        self.notes.setdefault(version, []).append(record)

    def point(self, model_name, alias, version):
        self.aliases[alias] = version


@pytest.fixture(scope="module")
def wall(tmp_path_factory):
    """Photos and tiles, made once."""
    root = tmp_path_factory.mktemp("wall")
    draw_photos(root / "photos")
    cut_tiles(root / "photos", root / "tiles")
    return root


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "shelf")


@pytest.fixture
def put(wall, shelf, tmp_path):
    """Register a detector; return the stage's summary."""

    def registered(threshold, config=CONFIG, run=None, **about):
        export = write_export(tmp_path / f"export-{threshold}", threshold, **about)
        evaluation = write_evaluation(tmp_path / f"evaluation-{threshold}", export)
        inputs = wall / "photos", wall / "tiles", evaluation, export, tmp_path / "out"
        return register(*inputs, config, shelf, None, run or SilentRun(tmp_path / "scratch"))

    return registered


def champion(shelf):
    return shelf.reign("crack").version


def test_first_model_becomes_champion(put, shelf):
    """Champion missing: the first model that passes the floors is promoted."""
    assert put(FAIR)["decision"].startswith("promoted: there was no champion")
    assert champion(shelf) == shelf.aliases["challenger"] == "1"


def test_better_model_takes_over(put, shelf):
    """A detector that sees more of the lines is promoted, with the numbers of both in its record."""
    put(FAIR)
    assert put(GOOD)["decision"].startswith("promoted: better by")
    assert champion(shelf) == "2"
    record = shelf.notes["2"][-1]
    assert record["challenger"]["accuracy"] > record["champion"]["accuracy"] + 0.1
    assert record["gain"]["photos"]["low"] > 0 and record["gain"]["p"] < 1e-6


def test_champion_wins_against_a_worse_challenger(put, shelf):
    """The champion that is loaded from the registry is scored anew, beats the challenger, and stays.

    Its numbers in the record are its own: were the challenger compared with itself, there would be no difference.
    """
    put(GOOD)
    assert put(FAIR)["decision"].startswith("kept: not shown to be better")
    assert champion(shelf) == "1" and shelf.aliases["challenger"] == "2"
    record = shelf.notes["2"][-1]
    model = json.loads((shelf.root / "1/model.json").read_text())
    assert record["champion"]["weights_sha256"] == model["weights_sha256"]
    assert record["champion"]["accuracy"] > record["challenger"]["accuracy"] + 0.1
    assert record["gain"]["tiles"] < -0.1


def test_hardly_different_model_is_kept(put, shelf):
    """Two grey levels more find a few lines more: equal within noise."""
    put(FAIR)
    assert put(FAIR + 1)["decision"].startswith("kept")
    assert champion(shelf) == "1"


def test_blind_model_is_refused(put, shelf):
    """Below a floor a model is registered with its reason, and is no champion even where there is none."""
    summary = put(WEAK, replace(CONFIG, min_wide_recall=0.9))
    assert summary["decision"].startswith("refused: recall on")
    assert champion(shelf) is None and shelf.notes["1"][-1]["decision"] == "refused"


def test_registering_again_changes_nothing(put, shelf, tmp_path):
    """The same files are one version with the same output bytes, and the champion is not compared with itself."""
    put(FAIR)
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert put(FAIR)["decision"] == "kept: it is the champion already"
    assert len(shelf.versions) == len(shelf.line) == len(shelf.notes["1"]) == 1
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == files


def test_output_does_not_depend_on_the_registry(put, shelf, tmp_path):
    """The same inputs give the same output in an empty registry and in one with a champion."""
    put(GOOD)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    shelf.line.clear()
    put(FAIR)
    put(GOOD)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == first
    assert set(first) >= {"register.json", "photos.csv", "card.md", "card.html", "tiles.csv"}


def test_photos_that_trained_the_champion_are_left_out(put, shelf):
    """A champion that was trained on photos of the set is not judged on them, nor is the challenger."""
    put(FAIR)
    frozen = open_set(shelf.root.parent / "out/evaluation-set")
    known = sorted(set(frozen.column("photo_sha256")))[:5]
    rows = read_csv(shelf.root / "1/photos.csv")
    more = [rows[0] | {"sha256": sha256} for sha256 in known]
    write_csv(shelf.root / "1/photos.csv", tuple(rows[0]), [*rows, *more])
    put(GOOD)
    judged = shelf.notes["2"][-1]["evaluation_set"]
    left_out = int(np.isin(frozen.column("photo_sha256"), known).sum())
    assert judged["num_tiles_left_out"] == left_out > 0
    assert judged["num_photos"] == len(set(frozen.truth.photo_N.tolist())) - 5


def test_model_judged_on_what_chose_it_is_refused(put, shelf, wall, tmp_path):
    """An evaluation set of photos that trained the model decides nothing; the card says that its numbers flatter."""
    from damcrack.registry.frozen import write_set

    (tmp_path / "tiles").mkdir()
    shutil.copytree(wall / "tiles", tmp_path / "tiles", dirs_exist_ok=True)
    path = tmp_path / "tiles/tiles.csv"
    path.write_text(
        path.read_text().replace(",test,", ",x,").replace(",train,", ",test,").replace(",x,", ",train,")
    )
    (tmp_path / "seen").mkdir()
    write_set(wall / "photos", tmp_path / "tiles", tmp_path / "seen", SilentRun())
    seen = str(tmp_path / "seen")
    with pytest.raises(InputError, match="evaluation_sha256 is null"):
        put(FAIR, replace(CONFIG, evaluation_set=seen))
    digest = open_set(tmp_path / "seen").digest
    summary = put(FAIR, replace(CONFIG, evaluation_set=seen, evaluation_sha256=digest))
    assert summary["decision"].startswith("refused: photos 0, asked 10 or more")
    assert "of photos that trained or chose this model" in (tmp_path / "out/card/card.md").read_text()


def test_promotion_that_comes_second_is_decided_anew(put, shelf):
    """Somebody else's better model is promoted between our comparison and our move: we compare with that one."""
    put(WEAK)
    put(GOOD)  # version 2, champion
    shelf.line.pop()

    def other():
        shelf.meanwhile = lambda: None
        shelf.succeed("crack", Reign("1", 1), "2", "promoted", {"reason": "theirs"})

    shelf.meanwhile = other
    summary = put(FAIR)
    assert summary["decision"].startswith("kept")
    assert champion(shelf) == "2"
    assert shelf.notes["3"][-1]["champion_before"] == "2"


def test_changed_champion_is_refused_and_nothing_moves(put, shelf):
    """Champion unloadable: the sentence names it and the file and the way back; no version is made."""
    put(FAIR)
    path = shelf.root / "1/model.onnx"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        InputError, match=r"champion crack version 1 cannot be loaded: .*model\.onnx.*rollback"
    ):
        put(GOOD)
    assert len(shelf.versions) == 1 and champion(shelf) == "1"


def test_changed_evaluation_set_is_refused(put, shelf):
    """An evaluation set that is not the agreed one decides nothing, and nothing is registered."""
    with pytest.raises(InputError, match=r"has digest \w+, expected 0{12}: it was changed"):
        put(FAIR, replace(CONFIG, evaluation_sha256="0" * 64))
    assert shelf.versions == []


def test_model_of_other_tiles_is_refused(put, shelf, tmp_path):
    """A model with another input contract is not compared: both sizes are named."""
    with pytest.raises(InputError, match=rf"is judged on tiles of 64 px .* holds tiles of {TILE_PX} px"):
        put(FAIR, tile_px=64)
    assert shelf.versions == [] and not (tmp_path / "out").exists()


def test_champion_of_other_tiles_is_refused(put, shelf, tmp_path):
    """So is a champion with another input contract, which stays champion."""
    put(FAIR)
    write_export(shelf.root / "1", FAIR, tile_px=64)
    with pytest.raises(
        InputError, match=r"champion crack version 1 is judged on tiles of 64 px .*nothing was moved"
    ):
        put(GOOD)
    assert champion(shelf) == "1"


def test_decision_and_card_are_kept_with_the_run(put):
    """The decision record and the card reach the run as whole files."""

    class Keeping(SilentRun):
        kept: ClassVar = {}

        def artifact(self, path):
            self.kept[path.name] = path.read_text()

    run = Keeping()
    put(FAIR, run=run)
    assert json.loads(run.kept["decision.json"])["decision"] == "promoted"
    assert run.kept["card.html"].startswith("<!doctype html>")


@pytest.mark.parametrize("file", ["model.onnx", "weights.safetensors"])
def test_changed_file_is_refused(put, shelf, tmp_path, file):
    """A file that is not the one that model.json names never reaches the registry."""
    export = write_export(tmp_path / "export", FAIR)
    evaluation = write_evaluation(tmp_path / "evaluation", export)
    (export / file).write_bytes(b"changed")
    with pytest.raises(InputError, match=rf"{file} has sha256 .* expects"):
        check_export(evaluation / "metrics.json", export)


def test_evaluation_of_other_weights_is_refused(tmp_path):
    """Scores of other weights do not go with a model."""
    export = write_export(tmp_path / "export", FAIR)
    evaluation = write_evaluation(tmp_path / "evaluation", write_export(tmp_path / "other", GOOD))
    with pytest.raises(InputError, match=r"judged dynamic with weights"):
        check_export(evaluation / "metrics.json", export)


def test_experiment_that_was_not_evaluated(tmp_path):
    """The message names the experiments that there are."""
    export = write_export(tmp_path / "export", FAIR)
    evaluation = write_evaluation(tmp_path / "evaluation", export)
    write_json(export / "model.json", json.loads((export / "model.json").read_text()) | {"name": "vgg"})
    with pytest.raises(InputError, match=r"no experiment 'vgg'.*only dynamic"):
        check_export(evaluation / "metrics.json", export)


def test_missing_metrics(tmp_path):
    """Without an evaluation the message says what to run."""
    with pytest.raises(InputError, match=r"metrics\.json is missing; run"):
        check_export(tmp_path / "metrics.json", tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"model_name": ""},
        {"model_name": "a/b"},
        {"model_name": "a:b"},
        {"min_accuracy": 1.5},
        {"evaluation_sha256": "abc"},
    ],
)
def test_config_refuses(changed):
    """Names that MLflow's model addresses cannot hold, and values out of range, are refused."""
    with pytest.raises(ValueError, match="allowed is"):
        replace(CONFIG, **changed)


def moves(*steps):
    return [Move(number, version, None, how, "", {}) for number, (version, how) in enumerate(steps, 1)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], None),
        ([("1", "promoted")], None),
        ([("1", "promoted"), ("2", "promoted")], "1"),
        ([("1", "promoted"), ("2", "promoted"), ("1", "brought back")], None),
        ([("1", "promoted"), ("2", "promoted"), ("3", "promoted"), ("2", "brought back")], "1"),
        ([("1", "promoted"), ("2", "promoted"), ("1", "brought back"), ("3", "promoted")], "1"),
        ([("1", "promoted"), ("2", "moved by hand")], "1"),
        ([("1", "promoted"), ("5", "brought back")], "1"),
    ],
)
def test_the_champion_before(steps, expected):
    """Going back never returns to what was gone back from."""
    assert previous(moves(*steps)) == expected


def test_rollback_and_its_reason(put, shelf):
    """The champion before is champion again, the reason is kept, and there is nothing further back."""
    put(FAIR)
    put(GOOD)
    record = roll_back("crack", "missed a crack at block 12", None, shelf)
    assert champion(shelf) == "1" and record["champion_before"] == "2"
    assert shelf.notes["1"][-1]["reason"] == "missed a crack at block 12"
    with pytest.raises(InputError, match="no earlier champion"):
        roll_back("crack", "again", None, shelf)
    with pytest.raises(InputError, match="--reason is empty"):
        roll_back("crack", " ", None, shelf)
    assert len(shelf.line) == 3


def test_withdrawn_version_is_not_promoted_again(put, shelf):
    """What was gone back from stays away, however good its numbers are, until somebody brings it back by name."""
    put(FAIR)
    put(GOOD)
    roll_back("crack", "missed a crack", None, shelf)
    assert shelf.notes["2"][-1]["decision"] == "withdrawn"
    assert "was withdrawn in move 3 (missed a crack)" in put(GOOD)["decision"]
    assert champion(shelf) == "1"
    roll_back("crack", "the photo was of another dam", "2", shelf)
    assert champion(shelf) == "2" and put(GOOD)["decision"] == "kept: it is the champion already"


def test_rollback_to_a_changed_model_is_refused(put, shelf):
    """The way back is checked too: a champion whose file was changed does not come back."""
    put(FAIR)
    put(GOOD)
    path = shelf.root / "1/model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"model\.onnx"):
        roll_back("crack", "it missed a crack", None, shelf)
    assert champion(shelf) == "2"


def test_slow_model_is_refused(put, shelf, wall):
    """A latency budget that no model can keep refuses it, with the milliseconds that were measured."""
    assert put(FAIR, replace(CONFIG, max_latency_ms=1e-6))["decision"].startswith("refused: milliseconds")


def test_card_tells_what_the_set_says(put, shelf, tmp_path):
    """The card's counts by width and source are those of the evaluation set, and its hashes those of the files."""
    put(FAIR)
    text = (tmp_path / "out/card/card.md").read_text()
    frozen = open_set(tmp_path / "out/evaluation-set")
    crack, width = frozen.truth.labels_N == 1, frozen.truth.width_px_N
    for low, high in ((2, 4), (8, 16)):
        number = int((crack & (width >= low) & (width < high)).sum())
        assert number and f"| {low} to {high} px |" in text
        assert (
            next(line for line in text.splitlines() if f"{low} to {high} px" in line).split("|")[4]
            == f" {number} "
        )
    assert f"| wall | evaluation | {len(set(frozen.column('photo')))} | {len(crack)} |" in text
    assert json.loads((tmp_path / f"export-{FAIR}/model.json").read_text())["onnx_sha256"] in text
    html = (tmp_path / "out/card/card.html").read_text()
    assert (
        html.count("data:image/") == 2 and "<script" not in html and "http" not in html.split("</style>")[1]
    )


def test_contestant_knows_what_trained_it(put, shelf, tmp_path):
    """A version carries the photos that trained it, so that a later gate can leave them out."""
    put(FAIR)
    frozen = open_set(tmp_path / "out/evaluation-set")
    loaded = Contestant.load("version 1", shelf.root / "1", frozen)
    assert loaded.trained_on == {row["sha256"] for row in read_csv(tmp_path / "out/photos.csv")}
    gate = Gate("crack", CONFIG, frozen, shelf, SilentRun())
    assert gate.champion(Reign(None, 0)) is None
