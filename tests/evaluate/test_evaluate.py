import base64
import json
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from damcrack.data.imageset import ImageSet, ImageSetWriter
from damcrack.evaluate.config import EvaluateConfig
from damcrack.evaluate.evaluate import evaluate
from damcrack.evaluate.figures import draw_samples
from damcrack.evaluate.page import KINDS, choose_tiles
from damcrack.evaluate.scored import (
    HeldOutTiles,
    Results,
    Scored,
    TileClassifier,
    predict_logits,
    score_baselines,
)
from damcrack.evaluate.trained import read_models
from damcrack.files import InputError, read_csv, write_csv
from damcrack.run import Run
from damcrack.train.decoded import decode_set
from damcrack.train.networks import build_network
from damcrack.train.weights import ModelInfo, load_model, save_model

pytestmark = pytest.mark.slow

CONFIG = EvaluateConfig(worst_tiles=6, worst_photos=3)
NASTY = "walls/<script>alert(1)</script> & $x$.jpg"


class RecordingRun(Run):
    def __init__(self, scratch):
        super().__init__(scratch)
        self.said, self.values, self.files, self.data = [], {}, [], []

    def say(self, line):
        self.said.append(line)

    def metrics(self, values, step=None):
        self.values |= values

    def artifact(self, path):
        self.files.append(path.name)

    def dataset(self, name, digest, source, role):
        self.data.append((name, role))


def write_tiles(root, splits, sources=("walls", "tunnel")):
    rng = np.random.default_rng(3)
    with_crack = rng.integers(0, 2, len(splits))
    with_crack[:2] = with_crack[-2:] = (0, 1)
    writer = ImageSetWriter(root)
    for number, (split, crack) in enumerate(zip(splits, with_crack.tolist(), strict=True)):
        pixels = rng.integers(90, 200, (64, 64, 3), dtype=np.uint8)
        if crack:
            cv2.line(pixels, (0, 10), (63, int(rng.integers(64))), (30, 30, 30), 2)
        source = sources[number % len(sources)]
        writer.add(
            f"{number:04d}.jpg",
            cv2.imencode(".jpg", pixels)[1].tobytes(),
            label=crack,
            split=split,
            photo=NASTY if source == "walls" else f"tunnel/{number % 3}.jpg",
            source=source,
            x0_px=64 * number,
            y0_px=0,
            crack_fraction=0.02 * crack,
        )
    writer.finish("tiles.csv", ("no crack", "crack"), (64, 64))
    return ImageSet.open(root)


def info_of(name, digest, best_epoch=2, **more):
    values = {"init_sha256": None, "teacher_sha256": None, "config": {"seed": 0, "trainable": "all"}}
    constants = {"image_px": 32, "mean": (0.5,) * 3, "std": (0.2,) * 3, "classes": ("no crack", "crack")}
    return ModelInfo(
        name=name,
        network="resnet18",
        data_digest=digest,
        best_epoch=best_epoch,
        **constants,
        **{**values, **more},
    )


def write_model(folder, info, seed, val_accuracy, whole=True):
    folder.mkdir(parents=True)
    network = build_network("resnet18", 2, seed) if whole else torch.nn.Linear(2, seed + 1)
    small = torch.nn.Linear(1, 1).state_dict()
    info = save_model(folder, info, network.state_dict(), small)
    taught = {"temperature": 4.1, "theta": 0.1, "reversal_weight": 0.5} if info.teacher_sha256 else {}
    rows = [
        {"epoch": epoch, "learning_rate": 0.1, "train_loss": 0.6, "train_accuracy": 0.95, "hard_loss": 0.4}
        | {"soft_loss": "", "val_loss": 0.5, "val_accuracy": val_accuracy - 0.1 * (epoch != 2)}
        | {"temperature": "", "theta": "", "reversal_weight": ""}
        | taught
        for epoch in (1, 2, 3)
    ]
    write_csv(folder / "history.csv", list(rows[0]), rows)
    return info


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tiles of three splits, one pretrained and one distilled network, two fine-tuned, one of other tiles."""
    root = tmp_path_factory.mktemp("evaluate")
    splits = ["train"] * 20 + ["val"] * 6 + ["test"] * 21
    tiles, models = write_tiles(root / "tiles", splits), root / "models"
    write_model(models / "pretrain/resnet18", info_of("resnet18", "many"), 0, 0.7, whole=False)
    taught = info_of("dynamic", "many", teacher_sha256="t" * 64, config={"temperature": {"kind": "dynamic"}})
    distilled = write_model(models / "distill/dynamic", taught, 1, 0.75, whole=False)
    scratch = info_of("resnet18-scratch", tiles.digest)
    write_model(models / "finetune/resnet18-scratch", scratch, 2, 0.8)
    dynamic = replace(scratch, name="resnet18-dynamic", init_sha256=distilled.weights_sha256)
    write_model(models / "finetune/resnet18-dynamic", dynamic, 3, 0.9)
    write_model(models / "finetune/stranger", info_of("stranger", "other tiles"), 4, 0.99, whole=False)
    return root


@pytest.fixture(scope="module")
def evaluated(world):
    run = RecordingRun(world / "scratch")
    summary = evaluate(world / "tiles", world / "models", world / "results", CONFIG, run)
    metrics = json.loads((world / "results/metrics.json").read_text())
    return world / "results", metrics, run, summary


def test_metrics_are_those_of_the_predictions_file(evaluated):
    """predictions.csv, scored with scikit-learn, gives the numbers of metrics.json."""
    out, metrics, _, _ = evaluated
    rows = read_csv(out / "predictions.csv")
    for name, scores in metrics["experiments"].items():
        own = [row for row in rows if row["experiment"] == name]
        labels = np.array([int(row["label"]) for row in own])
        probs = np.array([float(row["crack_prob"]) for row in own])
        predicted = probs > 0.5
        assert scores["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
        assert scores["confusion"] == reference.confusion_matrix(labels, predicted, labels=[0, 1]).tolist()
        assert scores["auroc"] == pytest.approx(reference.roc_auc_score(labels, probs))
        assert scores["f1"] == pytest.approx(reference.f1_score(labels, predicted))


def test_only_test_tiles_are_scored(evaluated, world):
    """Each experiment has one prediction for each tile of the test split, and none for another."""
    out, metrics, run, _ = evaluated
    tiles = ImageSet.open(world / "tiles")
    expected = [tiles.rows[row]["key"] for row in tiles.where("test")]
    rows = read_csv(out / "predictions.csv")
    for name in metrics["experiments"]:
        assert [row["key"] for row in rows if row["experiment"] == name] == expected
    assert metrics["evaluation_set"]["split"] == "test"
    assert run.data == [("tiles", "test")]


def test_model_of_other_tiles_is_left_out_with_a_reason(evaluated):
    """A model that was trained on other tiles has no scores; the page, the metrics and the run say why."""
    out, metrics, run, _ = evaluated
    assert set(metrics["experiments"]) == {"resnet18-scratch", "resnet18-dynamic"}
    assert set(metrics["left_out"]) == {"stranger"}
    assert any("stranger" in line for line in run.said)
    assert "stranger" in (out / "results.html").read_text()


def test_validation_chooses_and_history_is_reported(evaluated):
    """The chosen experiment is the best on validation; accuracies and gap are of the best epoch."""
    _, metrics, run, summary = evaluated
    assert metrics["chosen"] == "resnet18-dynamic"
    assert "chosen" in str(summary["resnet18-dynamic"])
    scores = metrics["experiments"]["resnet18-dynamic"]
    assert (scores["best_epoch"], scores["val_accuracy"]) == (2, 0.9)
    assert scores["train_val_gap"] == pytest.approx(0.05)
    assert metrics["pretraining"]["distill/dynamic"]["final_temperature"] == 4.1
    assert run.values["resnet18-dynamic/accuracy"] == scores["accuracy"]


def test_papers_numbers_stand_where_network_and_start_agree(evaluated):
    """Tables 1 and 2 put the paper's accuracy next to its counterpart."""
    out, _, _, _ = evaluated
    cracks = {row["experiment"]: row for row in read_csv(out / "table2.csv")}
    assert cracks["resnet18-dynamic"]["start"] == "distilled, dynamic T"
    assert cracks["resnet18-dynamic"]["paper_accuracy"] == "0.9985"
    assert cracks["resnet18-scratch"]["paper_accuracy"] == "0.9493"
    pretraining = {row["model"]: row for row in read_csv(out / "table1.csv")}
    assert pretraining["pretrain/resnet18"]["paper_val_accuracy"] == "0.7941"
    assert pretraining["distill/dynamic"]["paper_val_accuracy"] == "0.8252"


def test_photos_and_sources_add_up(evaluated):
    """Tiles and errors of photos and of sources add up to those of the experiment."""
    out, metrics, _, _ = evaluated
    for name, scores in metrics["experiments"].items():
        (_, fp), (fn, _) = scores["confusion"]
        rows = [row for row in read_csv(out / "photos.csv") if row["experiment"] == name]
        assert sum(int(row["num_tiles"]) for row in rows) == metrics["evaluation_set"]["num_tiles"]
        assert sum(int(row["false_positives"]) for row in rows) == fp
        assert sum(int(row["false_negatives"]) for row in rows) == fn
        right = sum(source["accuracy"] * source["num_tiles"] for source in scores["by_source"].values())
        assert right / metrics["evaluation_set"]["num_tiles"] == pytest.approx(scores["accuracy"])


def test_page_needs_no_network_and_trusts_no_name(evaluated):
    """The page loads nothing from outside, and a photo's name cannot become markup."""
    out, _, run, _ = evaluated
    page = (out / "results.html").read_text()
    assert not re.findall(r"https?://", page)
    assert not re.search(r"<(script|link|iframe)\b|@import|\bsrc=\"(?!data:)", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x$.jpg" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "results.html" in run.files
    assert "roc.png" in run.files


def test_same_inputs_give_the_same_bytes(evaluated, world, tmp_path):
    """A second evaluation writes every file alike, figures and page included."""
    out, _, _, _ = evaluated
    evaluate(world / "tiles", world / "models", tmp_path / "again", CONFIG, Run(world / "scratch"))
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert len(files) > 10
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name


def test_reduced_tiles_score_like_raw_ones(world):
    """The detector gives the same logits for raw tiles and for tiles that were reduced when decoded."""
    network, info = load_model(world / "models/finetune/resnet18-scratch")
    raw, reduced = (decode_set(world / "tiles", px, world / "scratch/decoded") for px in (None, 32))
    assert (raw.image_px, reduced.image_px) == (64, 32)
    rows, detector = raw.rows_of["test"], TileClassifier(network, info)
    assert np.array_equal(
        predict_logits(detector, raw.images_NHWC, rows), predict_logits(detector, reduced.images_NHWC, rows)
    )


def test_baseline_rules_come_from_training_tiles_alone(world):
    """Other labels on the scored tiles change the baselines' scores and not their rules."""
    data = HeldOutTiles.choose(ImageSet.open(world / "tiles"))
    turned = replace(data, labels=1 - data.labels)
    pairs = zip(*(score_baselines(each, Run(world)) for each in (data, turned)), strict=True)
    for found, other in pairs:
        for part in ("level", "sign", "cut", "train_accuracy"):
            assert found.scores[part] == other.scores[part]
        assert found.scores["accuracy"] == pytest.approx(1 - other.scores["accuracy"])
        assert np.array_equal(found.predicted, other.predicted)


def test_page_says_how_often_brightness_alone_gives_a_false_alarm(evaluated):
    """Each baseline and the chosen network have their share of tiles without a crack that they call a crack."""
    out, metrics, _, _ = evaluated
    table = (out / "results.html").read_text().split("False alarms of thresholds")[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr")[2:]]
    assert set(metrics["baselines"]) == {"global_threshold", "otsu_threshold", "adaptive_threshold"}
    judges = [*metrics["baselines"].values(), metrics["experiments"][metrics["chosen"]]]
    for (_, _, count, share, *_), scores in zip(rows, judges, strict=True):
        (tn, fp), _ = scores["confusion"]
        assert count == f"{fp} of {tn + fp}"
        assert share == f"<strong>{100 * fp / (tn + fp):.2f}</strong>"


def results_of(world, probs=None):
    """Results of one experiment with random crack probabilities on the test tiles, all four kinds among them."""
    data = HeldOutTiles.choose(ImageSet.open(world / "tiles"))
    model = next(m for m in read_models(world / "models", "finetune") if m.name == "resnet18-scratch")
    probs = np.random.default_rng(9).random(len(data.rows)) if probs is None else probs
    scored = Scored(model, "scratch", probs, (probs > 0.5).astype(np.int64))
    baselines = score_baselines(data, Run(world))
    return Results(data, [scored], baselines, [], {"chosen": model.name})


def test_samples_are_the_most_confident_of_each_kind_in_turns(world):
    """Samples are of their kind, begin with its most confident tile, and show a second photo before one photo twice."""
    results = results_of(world)
    shown = choose_tiles(results, worst_tiles=4)
    probs, labels = results.chosen.probs, results.data.labels
    photos = results.data.column("photo")
    assert sum(map(len, shown.ranked.values())) == len(labels)
    for kind, numbers in shown.samples.items():
        truth, verdict = KINDS[kind]
        all_of_kind = np.flatnonzero((labels == truth) & ((probs > 0.5) == verdict))
        assert set(numbers.tolist()) <= set(all_of_kind.tolist())
        assert numbers[0] == all_of_kind[np.abs(probs[all_of_kind] - 0.5).argmax()]
        assert len(set(photos[numbers])) == min(len(set(photos[all_of_kind])), len(numbers))
    assert sum(map(len, shown.errors.values())) <= 4


def test_a_network_without_error_shows_none(world):
    """Where a kind does not occur its row is empty and nothing stands in for it."""
    labels = results_of(world).data.labels
    shown = choose_tiles(results_of(world, np.where(labels == 1, 0.9, 0.1)), worst_tiles=4)
    assert [*map(len, shown.errors.values())] == [0, 0]
    assert [len(numbers) for numbers in shown.samples.values()][2:] == [0, 0]
    assert draw_samples(results_of(world), shown).png


def test_figures_are_on_the_page_and_among_the_files(evaluated):
    """Every figure is a PNG file, and on the page with an alternative text."""
    out, _, run, _ = evaluated
    page = (out / "results.html").read_text()
    names = [path.stem for path in (out / "figures").iterdir()]
    assert len(names) == 7 and "sample_detections" in names
    for name in names:
        assert f"{name}.png" in run.files
        png = (out / "figures" / f"{name}.png").read_bytes()
        assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) is not None
        figure = page.split(f'<figure id="{name}">')[1].split("</figure>")[0]
        assert base64.b64encode(png).decode() in figure
        assert re.search(r'alt="[^"]{40,}"', figure)


def test_validation_split_serves_where_there_is_no_test_split(world, tmp_path):
    """Without test tiles the validation tiles are scored and the page says so; nothing else is needed."""
    tiles = write_tiles(tmp_path / "tiles", ["train"] * 6 + ["val"] * 5, sources=("walls",))
    folder = tmp_path / "models/finetune/only"
    shutil.copytree(world / "models/finetune/resnet18-scratch", folder)
    description = json.loads((folder / "model.json").read_text()) | {"data_digest": tiles.digest}
    (folder / "model.json").write_text(json.dumps(description))
    run = RecordingRun(tmp_path / "scratch")
    evaluate(tmp_path / "tiles", tmp_path / "models", tmp_path / "out", CONFIG, run)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["evaluation_set"] | {"digest": ""} == {
        "digest": "",
        "split": "val",
        "num_tiles": 5,
        "num_crack": sum(tiles.labels[6:]),
    }
    assert run.data == [("tiles", "validation")]
    assert "validation tiles" in (tmp_path / "out/results.html").read_text()


def test_no_usable_model_is_refused(world, tmp_path):
    """Where all models are of other tiles there is an error, and nothing is written."""
    shutil.copytree(world / "models/finetune/stranger", tmp_path / "models/finetune/stranger")
    with pytest.raises(InputError, match="none trained on"):
        evaluate(world / "tiles", tmp_path / "models", tmp_path / "out", CONFIG, Run(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("old", "new"), [("0.95", "x"), ("0.95", ""), ("val_accuracy", "accuracy")])
def test_a_damaged_history_is_named(world, tmp_path, old, new):
    """A word, a hole and another column."""
    folder = tmp_path / "models/finetune/resnet18-scratch"
    shutil.copytree(world / "models/finetune/resnet18-scratch", folder)
    path = folder / "history.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=r"history\.csv is damaged"):
        evaluate(world / "tiles", tmp_path / "models", tmp_path / "out", CONFIG, Run(tmp_path))


def test_damaged_weights_leave_no_results(world, tmp_path):
    """A model whose weights are not those of its description is refused, and nothing is written."""
    folder = tmp_path / "models/finetune/resnet18-scratch"
    shutil.copytree(world / "models/finetune/resnet18-scratch", folder)
    with (folder / "weights.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match="damaged"):
        evaluate(world / "tiles", tmp_path / "models", tmp_path / "out", CONFIG, Run(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("field", [{"worst_tiles": -1}, {"worst_photos": -1}])
def test_senseless_values_are_refused(field):
    """Values that mean nothing are refused by the name of their field."""
    with pytest.raises(ValueError, match=next(iter(field))):
        replace(CONFIG, **field)
