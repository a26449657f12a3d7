import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from damcrack.files import InputError, read_csv, write_csv, write_json
from damcrack.registry.champion import champion_before, history, roll_back, rollback_from
from damcrack.registry.evaluation_set import open_set, write_set
from damcrack.registry.gate import ScoredModel
from damcrack.registry.register import read_entry, register, why_register_again
from damcrack.run import Run
from detectors import CONFIG, TILE_PX, cut_tiles, draw_photos, write_evaluation, write_export

pytestmark = pytest.mark.slow

WEAK, FAIR, GOOD = 70, 90, 130  # detectors of lines darker than this; lines are 20 to 150


class Shelf:
    """A registry in memory; the write number `interrupt_at` is interrupted before anything is written."""

    def __init__(self, root):
        self.root, self.versions, self.log, self.aliases = root, [], [], {}
        self.num_writes, self.interrupt_at = 0, None

    def _write(self):
        self.num_writes += 1
        if self.num_writes == self.interrupt_at:
            raise KeyboardInterrupt

    def find(self, model_name, weights_sha256, onnx_sha256):
        return str(self.versions.index(onnx_sha256) + 1) if onnx_sha256 in self.versions else None

    def add(self, entry):
        self._write()
        sha256 = entry.tags["onnx_sha256"]
        if sha256 not in self.versions:
            self.versions.append(sha256)
            folder = self.root / str(len(self.versions))
            shutil.copytree(entry.export, folder)
            shutil.copy(entry.photos, folder / "photos.csv")
        return str(self.versions.index(sha256) + 1)

    def aliased(self, model_name, alias):
        return self.aliases.get(alias)

    def set_alias(self, model_name, alias, version):
        self._write()
        self.aliases[alias] = version

    def records(self, model_name):
        return self.log

    def write_record(self, model_name, record):
        self._write()
        self.log.append(record)

    def fetch(self, model_name, version):
        return self.root / version


@pytest.fixture(scope="module")
def wall(tmp_path_factory):
    """Photos and tiles, made once."""
    root = tmp_path_factory.mktemp("wall")
    draw_photos(root / "photos", num=24)
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
        return register(*inputs, config, shelf, None, run or Run(tmp_path / "scratch"))

    return registered


def champion(shelf):
    return shelf.aliases.get("champion")


def decision(summary):
    """The outcome, and the reason."""
    return summary["decision"].split(": ", 1)


def test_the_first_and_the_better_model_become_champion_and_no_other(put, shelf):
    """The first that passes the floors; not one that is equal within noise; one that sees more lines; not a worse one.

    The champion is loaded from the registry and scored again. Its numbers in the record are its own: were the
    challenger compared with itself, there would be no difference.
    """
    assert decision(put(FAIR))[0] == "promoted"
    assert champion(shelf) == shelf.aliases["challenger"] == "1"
    assert decision(put(FAIR + 1))[0] == "kept"
    assert (champion(shelf), shelf.aliases["challenger"]) == ("1", "2")
    assert decision(put(GOOD))[0] == "promoted"
    assert champion(shelf) == "3"
    record = shelf.log[-1]
    assert record["challenger"]["accuracy"] > record["champion"]["accuracy"] + 0.1
    assert record["gain"]["photos"]["low"] > 0 and record["gain"]["p"] < 1e-6
    assert decision(put(FAIR))[0] == "kept"
    assert (champion(shelf), shelf.aliases["challenger"]) == ("3", "1")
    record = shelf.log[-1]
    model = json.loads((shelf.root / "3/model.json").read_text())
    assert record["champion"]["weights_sha256"] == model["weights_sha256"]
    assert record["champion"]["accuracy"] > record["challenger"]["accuracy"] + 0.1
    assert record["gain"]["tiles"] < -0.1


def test_blind_model_is_refused(put, shelf):
    """Below a floor a model is registered with its reason, and is no champion even where there is none."""
    summary = put(WEAK, replace(CONFIG, min_wide_recall=0.9))
    assert decision(summary)[0] == "refused"
    assert champion(shelf) is None and shelf.log[-1]["decision"] == "refused"


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_output_is_the_same_again_and_in_another_registry(put, shelf, tmp_path):
    """The same files are one version with the same output bytes, and the champion is not compared with itself."""
    put(GOOD)
    first = files_in(tmp_path / "out")
    names = {path.name for path in first}
    assert names >= {"register.json", "photos.csv", "card.md", "card.html", "tiles.csv"}
    assert decision(put(GOOD))[0] == "kept"
    assert len(shelf.versions) == len(shelf.log) == 1
    assert files_in(tmp_path / "out") == first
    shelf.log.clear()
    shelf.aliases.clear()
    put(FAIR)
    put(GOOD)
    assert files_in(tmp_path / "out") == first


def test_photos_that_trained_the_champion_are_left_out(put, shelf, tmp_path):
    """A version carries the photos that trained it; neither it nor its challenger is scored on them."""
    put(FAIR)
    chosen = open_set(tmp_path / "out/evaluation-set")
    loaded = ScoredModel.load("version 1", shelf.root / "1", chosen, Run())
    rows = read_csv(tmp_path / "out/photos.csv")
    assert loaded.trained_on == {row["sha256"] for row in rows}
    known = sorted(set(chosen.column("photo_sha256")))[:5]
    more = [rows[0] | {"sha256": sha256} for sha256 in known]
    write_csv(shelf.root / "1/photos.csv", tuple(rows[0]), [*rows, *more])
    put(GOOD)
    judged = shelf.log[-1]["evaluation_set"]
    left_out = int(np.isin(chosen.column("photo_sha256"), known).sum())
    assert judged["num_tiles_left_out"] == left_out > 0
    assert judged["num_photos"] == len(set(chosen.truth.photo_N.tolist())) - 5


def test_model_evaluated_on_its_training_photos_is_refused(put, shelf, wall, tmp_path):
    """An evaluation set of photos that trained the model decides nothing; the card says that its numbers flatter."""
    (tmp_path / "tiles").mkdir()
    shutil.copytree(wall / "tiles", tmp_path / "tiles", dirs_exist_ok=True)
    path = tmp_path / "tiles/tiles.csv"
    path.write_text(
        path.read_text().replace(",test,", ",x,").replace(",train,", ",test,").replace(",x,", ",train,")
    )
    (tmp_path / "seen").mkdir()
    write_set(wall / "photos", tmp_path / "tiles", tmp_path / "seen", Run())
    seen = str(tmp_path / "seen")
    with pytest.raises(InputError, match="evaluation_sha256 is null"):
        put(FAIR, replace(CONFIG, evaluation_set=seen))
    digest = open_set(tmp_path / "seen").digest
    summary = put(FAIR, replace(CONFIG, evaluation_set=seen, evaluation_sha256=digest))
    assert decision(summary)[0] == "refused" and shelf.log[-1]["checks"][0]["found"] == 0
    assert "used to train or select this model" in (tmp_path / "out/card/card.md").read_text()


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
    with pytest.raises(InputError, match=rf"takes tiles of 64 px .* holds tiles of {TILE_PX} px"):
        put(FAIR, tile_px=64)
    assert shelf.versions == [] and not (tmp_path / "out").exists()


def test_champion_of_other_tiles_is_refused(put, shelf, tmp_path):
    """So is a champion with another input contract, which stays champion."""
    put(FAIR)
    write_export(shelf.root / "1", FAIR, tile_px=64)
    with pytest.raises(InputError, match=r"champion crack version 1 takes tiles of 64 px .*rollback"):
        put(GOOD)
    assert champion(shelf) == "1"


@pytest.mark.parametrize("file", ["model.onnx", "weights.safetensors"])
def test_changed_file_is_refused(put, shelf, tmp_path, file):
    """A file that is not the one that model.json names never reaches the registry."""
    export = write_export(tmp_path / "export", FAIR)
    evaluation = write_evaluation(tmp_path / "evaluation", export)
    (export / file).write_bytes(b"changed")
    with pytest.raises(InputError, match=rf"{file} has sha256 .* expects"):
        read_entry(evaluation / "metrics.json", export, tmp_path, "crack")


def test_evaluation_of_other_weights_is_refused(tmp_path):
    """Scores of other weights do not go with a model."""
    export = write_export(tmp_path / "export", FAIR)
    evaluation = write_evaluation(tmp_path / "evaluation", write_export(tmp_path / "other", GOOD))
    with pytest.raises(InputError, match=r"evaluated dynamic with weights"):
        read_entry(evaluation / "metrics.json", export, tmp_path, "crack")


def test_experiment_that_was_not_evaluated(tmp_path):
    """The message names the experiments that there are."""
    export = write_export(tmp_path / "export", FAIR)
    evaluation = write_evaluation(tmp_path / "evaluation", export)
    write_json(export / "model.json", json.loads((export / "model.json").read_text()) | {"name": "vgg"})
    with pytest.raises(InputError, match=r"no experiment 'vgg'.*only dynamic"):
        read_entry(evaluation / "metrics.json", export, tmp_path, "crack")


def test_missing_metrics(tmp_path):
    """Without an evaluation the message says what to run."""
    with pytest.raises(InputError, match=r"metrics\.json is missing; run"):
        read_entry(tmp_path / "metrics.json", tmp_path, tmp_path, "crack")


@pytest.mark.parametrize(
    "changed",
    [
        {"model_name": ""},
        {"model_name": "a/b"},
        {"model_name": "a:b"},
        {"model_name": "o'hara"},
        {"min_accuracy": 1.5},
        {"evaluation_sha256": "abc"},
    ],
)
def test_config_refuses(changed):
    """Names that MLflow's model addresses cannot hold, and values out of range, are refused."""
    with pytest.raises(ValueError, match=r"model_name|min_accuracy|evaluation_sha256"):
        replace(CONFIG, **changed)


def recorded(*decisions):
    """Records of (version, decision, champion before)."""
    names = ("version", "decision", "champion_before")
    return [dict(zip(names, one, strict=True), reason="") for one in decisions]


P, R, K = "promoted", "rolled back", "kept"


@pytest.mark.parametrize(
    ("decisions", "champion", "expected"),
    [
        ([], None, None),
        ([("1", P, None)], "1", None),
        ([("1", P, None), ("2", P, "1")], "2", "1"),
        ([("1", P, None), ("2", P, "1"), ("3", K, "2")], "2", "1"),
        ([("1", P, None), ("2", P, "1"), ("1", R, "2")], "1", None),
        ([("1", P, None), ("2", P, "1"), ("3", P, "2"), ("2", R, "3")], "2", "1"),
        ([("1", P, None), ("2", P, "1"), ("1", R, "2"), ("3", P, "1")], "3", "1"),
        ([("1", P, None), ("5", R, "1")], "5", "1"),
        # interrupted before the alias moved
        ([("1", P, None), ("2", P, "1"), ("3", P, "2")], "2", "1"),
        ([("1", P, None), ("2", P, "1"), ("1", R, "2")], "2", "1"),
        # rolled back, made champion again by name
        ([("1", P, None), ("2", P, "1"), ("1", R, "2"), ("2", R, "1")], "2", "1"),
        # alias set by hand, or deleted
        ([("1", P, None)], "2", "1"),
        ([("1", P, None), ("2", P, "1"), ("3", K, "4")], "4", "2"),
        ([("1", P, None)], None, "1"),
        ([("1", P, None), ("2", P, "1")], None, "2"),
    ],
)
def test_the_champion_before(decisions, champion, expected):
    """Going back never returns to what was rolled back, and what never became champion does not count."""
    assert champion_before(recorded(*decisions), champion) == expected


@pytest.mark.parametrize(
    ("decisions", "champion", "expected"),
    [
        ([("1", P, None)], "1", [("1", P, "1")]),
        ([("1", P, None), ("2", P, "1")], "1", [("1", P, "1"), ("2", P, "1")]),
        ([("1", P, None), ("2", K, "1")], "1", [("1", P, "1"), ("2", K, "1")]),
        ([("1", P, None)], "7", [("1", P, "1"), ("7", "unrecorded", "7")]),
        ([], "7", [("7", "unrecorded", "7")]),
        ([("3", K, "7")], "7", [("7", "unrecorded", "7"), ("3", K, "7")]),
        ([("1", P, None), ("3", K, "2")], "2", [("1", P, "1"), ("2", "unrecorded", "2"), ("3", K, "2")]),
    ],
)
def test_history_knows_the_champion_after_each_decision(decisions, champion, expected):
    """The champion after a decision is what the next one found; a change that no record explains has its own step."""
    steps = history(recorded(*decisions), champion)
    assert [(step.version, step.decision, step.after) for step in steps] == expected
    assert [step.before for step in steps] == [None, *(step.after for step in steps[:-1])]


def test_rollback_and_its_reason(put, shelf):
    """The champion before is champion again, the reason is recorded, and there is nothing further back.

    The other one stays away, however good its scores are, until somebody makes it champion by name.
    """
    put(FAIR)
    put(GOOD)
    record = roll_back("crack", "missed a crack at block 12", None, shelf)
    assert champion(shelf) == "1" and record["champion_before"] == "2"
    assert shelf.log[-1]["reason"] == "missed a crack at block 12"
    for reason in ("again", " "):
        with pytest.raises(InputError):
            roll_back("crack", reason, None, shelf)
    assert len(shelf.log) == 3 and champion(shelf) == "1"
    outcome, reason = decision(put(GOOD))
    assert outcome == "refused" and "missed a crack" in reason
    assert champion(shelf) == "1"
    roll_back("crack", "the photo was of another dam", "2", shelf)
    assert champion(shelf) == "2" and decision(put(GOOD))[0] == "kept"


@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_interrupted_promotion(put, shelf, tmp_path, write):
    """Whatever write it is killed before, the old champion stays, and the same command promotes the same version.

    `damcrack registered` does not take the record of a promotion for a promotion.
    """
    put(FAIR)
    shelf.interrupt_at = shelf.num_writes + write  # version, alias challenger, record, alias champion
    with pytest.raises(KeyboardInterrupt):
        put(GOOD)
    assert champion(shelf) == "1"
    assert decision(put(GOOD))[0] == "promoted" and len(shelf.versions) == 2
    assert shelf.aliases == {"champion": "2", "challenger": "2"}
    assert champion_before(shelf.log, "2") == "1"
    assert shelf.num_writes == shelf.interrupt_at + 4
    assert why_register_again(tmp_path / "out", shelf) is None
    shelf.aliases["champion"] = "1"  # as it is if the last write is missing
    assert "interrupted" in why_register_again(tmp_path / "out", shelf)


@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_interrupted_first_promotion(put, shelf, write):
    """So it is where there was no champion, whom no other model replaces without a comparison."""
    shelf.interrupt_at = write
    with pytest.raises(KeyboardInterrupt):
        put(FAIR)
    assert champion(shelf) is None
    if write == 4:
        with pytest.raises(InputError, match=r"rollback"):
            put(GOOD)
    assert decision(put(FAIR))[0] == "promoted" and champion(shelf) == "1"


def test_missing_alias_is_not_a_missing_champion(put, shelf):
    """Without the alias nothing is promoted, not even the version that lost it; a rollback names a champion again."""
    put(FAIR)
    put(GOOD)
    del shelf.aliases["champion"]
    for threshold in (WEAK, GOOD):
        with pytest.raises(InputError, match="rollback"):
            put(threshold)
    assert len(shelf.versions) == 2 and champion(shelf) is None
    assert roll_back("crack", "alias was lost", None, shelf)["version"] == champion(shelf) == "2"


@pytest.mark.parametrize("write", [1, 2])
def test_interrupted_rollback(put, shelf, write):
    """The champion stays until the alias moves, and the repetition goes back to the same version."""
    put(FAIR)
    put(GOOD)
    shelf.interrupt_at = shelf.num_writes + write  # record, alias champion
    with pytest.raises(KeyboardInterrupt):
        roll_back("crack", "missed a crack", None, shelf)
    assert champion(shelf) == "2" and decision(put(GOOD))[0] == "kept"
    assert roll_back("crack", "missed a crack", None, shelf)["version"] == champion(shelf) == "1"
    assert rollback_from(shelf.log, "2") is not None


def test_rollback_to_a_changed_model_is_refused(put, shelf):
    """The way back is checked too: a champion whose file was changed does not come back."""
    put(FAIR)
    put(GOOD)
    path = shelf.root / "1/model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"model\.onnx"):
        roll_back("crack", "it missed a crack", None, shelf)
    assert champion(shelf) == "2"


class Keeping(Run):
    """A run that keeps the texts of its files."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def artifact(self, path):
        self.kept[path.name] = path.read_text()


def test_card_tells_what_the_set_says(put, tmp_path):
    """The card's counts by width and source are those of the evaluation set, and its hashes those of the files.

    Card and decision record reach the run as whole files.
    """
    run = Keeping()
    put(FAIR, run=run)
    text = (tmp_path / "out/card/card.md").read_text()
    chosen = open_set(tmp_path / "out/evaluation-set")
    crack, width = chosen.truth.labels_N == 1, chosen.truth.width_px_N
    for low, high in ((2, 4), (8, 16)):
        number = int((crack & (width >= low) & (width < high)).sum())
        assert number
        (row,) = (line for line in text.splitlines() if f"{low} to {high} px" in line)
        assert row.split("|")[4] == f" {number} "
    assert f"| wall | evaluation | {len(set(chosen.column('photo')))} | {len(crack)} |" in text
    assert json.loads((tmp_path / f"export-{FAIR}/model.json").read_text())["onnx_sha256"] in text
    html = (tmp_path / "out/card/card.html").read_text()
    assert html.count("data:image/") == 1
    assert "<script" not in html and "http" not in html.split("</style>")[1]
    assert run.kept["card.html"] == html and html.startswith("<!doctype html>")
    assert json.loads(run.kept["decision.json"])["decision"] == "promoted"
