"""The report on the paper's experiments: cells read and scored, claims decided, failures listed."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from damcrack.data.imageset import ImageSet, ImageSetWriter
from damcrack.evaluate.trained import TrainedModel
from damcrack.files import OUTPUT_MARKER, InputError, write_csv
from damcrack.run import Run
from damcrack.train.augment import normalise
from damcrack.train.decoded import shrink
from damcrack.train.networks import NETWORKS, build_network
from damcrack.train.weights import ModelInfo, load_model, save_model
from experiments.paper import report as paper
from experiments.paper.claims import Answers, Cell, ScoredTiles, Study, decide, holm, mean_interval, verdicts
from experiments.paper.pictures import examples, feature_maps, first_stages
from experiments.paper.report import main, read_cells, read_failures, report, score
from experiments.paper.tables import READING, document

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PX = 32
HISTORY = {"epoch": 1, "learning_rate": 0.1, "train_loss": 0.6, "train_accuracy": 0.95, "hard_loss": 0.4}
HISTORY |= {"soft_loss": "", "val_loss": 0.5, "val_accuracy": 0.9}
HISTORY |= dict.fromkeys(("temperature", "theta", "reversal_weight"), "")


def info(name: str, digest: str) -> ModelInfo:
    return ModelInfo(
        name=name,
        network="resnet18",
        classes=("no crack", "crack"),
        image_px=PX,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        data_digest=digest,
        init_sha256=None,
        teacher_sha256=None,
        best_epoch=1,
        config={},
    )


def write_cell(folder: Path, digest: str, seed: int, whole: bool = True) -> None:
    folder.mkdir(parents=True)
    network = build_network("resnet18", 2, seed) if whole else torch.nn.Linear(2, seed + 1)
    save_model(folder, info(folder.parts[-3], digest), network.state_dict(), {})
    write_csv(folder / "history.csv", list(HISTORY), [HISTORY])


def write_tiles(root: Path) -> ImageSet:
    """40 training, 12 validation and 20 test tiles, the test tiles of two sources."""
    random = np.random.default_rng(0)
    writer = ImageSetWriter(root)
    for number, split in enumerate(["train"] * 40 + ["val"] * 12 + ["test"] * 20):
        pixels = random.integers(0, 255, (PX, PX, 3), np.uint8)
        source = "wall" if split != "test" or number % 4 < 2 else "bridge"
        place = {"photo": f"{source}/{number // 5}", "source": source, "group": str(number // 5)}
        encoded = cv2.imencode(".jpg", pixels)[1].tobytes()
        writer.add(f"{number:04d}.jpg", encoded, label=number % 2, split=split, **place)
    writer.finish("tiles.csv", ("no crack", "crack"), (PX, PX))
    return ImageSet.open(root)


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods with two seeds each, a pretrained network, and one cell that failed."""
    root = tmp_path_factory.mktemp("study")
    tiles = write_tiles(root / "data/tiles")
    for method in ("resnet18-scratch", "resnet18-pretrained"):
        for seed in (0, 1):
            write_cell(root / f"models/finetune/{method}/40/{seed}", tiles.digest, seed + len(method))
    write_cell(root / "models/pretrain/resnet18/0", "natural", 0, whole=False)
    failed = root / ".damcrack/failed/0.json"
    failed.parent.mkdir(parents=True)
    why = "NonFiniteLossError: the loss was nan in epoch 2"
    failed.write_text(json.dumps({"out": "models/x", "error": why}))
    return root


def test_cells_are_named_by_their_folders(study_folder: Path) -> None:
    """Method, number of labels and seed come from the path, in order; pretraining has no number of labels."""
    found = read_cells(study_folder / "models", "finetune")
    names = [(cell.method, cell.labels, cell.seed) for cell in found]
    methods = ("resnet18-pretrained", "resnet18-scratch")
    assert names == [(method, 40, seed) for method in methods for seed in (0, 1)]
    assert [(cell.method, cell.labels) for cell in read_cells(study_folder / "models", "pretrain")] == [
        ("resnet18", None)
    ]


def test_a_failed_cell_does_not_lose_the_others(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report has tables of what is there and the reason of what is not, and a page that needs no network.

    The command does the same, scores nothing again, and ends in an error that names what is missing.
    """
    run, out = Run(study_folder / ".damcrack"), tmp_path / "out"
    markdown, failures = report(study_folder, out, "<b>Header</b>", run)
    assert failures == {"models/x": "NonFiniteLossError: the loss was nan in epoch 2"}
    assert "the loss was nan in epoch 2" in markdown
    assert re.search(
        r"^\| resnet18-scratch \| [\d.]+ ± [\d.]+ \| 94.93 \|.* \| 2 \|$", markdown, re.MULTILINE
    )
    assert "nan" not in markdown.replace("was nan", "")
    names = {path.name for path in out.iterdir()}
    assert names == {OUTPUT_MARKER, "results.md", "results.html", "figures", "cells.csv", "verdicts.csv"}
    page = (out / "results.html").read_text()
    assert page.count("<table>") >= 3 and page.count('<img src="data:image/png;base64,') >= 2
    assert "&lt;b&gt;Header" in page
    assert 'src="http' not in page and "<link" not in page and "<script" not in page

    monkeypatch.setattr(paper, "load_model", None)
    with pytest.raises(SystemExit, match="models/x"):
        main(["--cells", str(study_folder), "--out", str(out), "--markdown", str(tmp_path / "tables.md")])
    written = (tmp_path / "tables.md").read_text()
    assert written.partition("## ")[2] == markdown.partition("## ")[2]
    assert written == (out / "results.md").read_text()


def test_answers_are_calibrated_on_the_cells_own_validation_tiles(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 labels eight are for validation: calibration sees those, not all twelve, and no test tile."""
    tiles = ImageSet.open(study_folder / "data/tiles")
    cell = read_cells(study_folder / "models", "finetune")[0]
    monkeypatch.setattr(paper, "fit_temperature", lambda logits_NC, labels_N: float(len(labels_N)))
    ((_, own),) = score([cell], tiles, Run(tmp_path))
    assert own.temperature == 8
    assert own.logits_NC.shape == (20, 2)
    ((_, of_all),) = score([Cell(cell.method, None, 0, cell.model)], tiles, Run(tmp_path / "other"))
    assert of_all.temperature == 12
    np.testing.assert_allclose(own.logits_NC, of_all.logits_NC, rtol=1e-5, atol=1e-5)


def test_nothing_to_report_is_refused(tmp_path: Path) -> None:
    """Without cells the message says how to make them."""
    with pytest.raises(InputError, match="make paper"):
        report(tmp_path, tmp_path / "out", "", Run(tmp_path))


def synthetic(accuracies: dict[str, float], num: int = 2000, seeds: int = 3) -> Study:
    """Cells whose verdicts are right with a given chance, on tiles of 100 photos."""
    random = np.random.default_rng(5)
    labels = random.integers(0, 2, num)
    tiles = ScoredTiles(labels, np.full(num, "wall"), np.arange(num) // 20)
    answered = []
    for method, accuracy in accuracies.items():
        history = ({"train_accuracy": 0.9, **EMPTY},)
        model = TrainedModel("finetune", Path(method), info(method, "d"), history, method)
        for seed in range(seeds):
            right = random.random(num) < accuracy
            margin = np.where(right, 1.0, -1.0) * (2 * labels - 1)
            answered.append((Cell(method, 100, seed, model), Answers(np.stack([-margin, margin], 1), 1.0)))
    return Study(tiles, answered, ("wall",), {"otsu_threshold": np.zeros(num, np.int64)})


EMPTY = {"val_accuracy": 0.8, "hard_loss": 0.1, "val_loss": 0.1, "temperature": None}


@pytest.mark.parametrize(
    ("worse", "better", "words"),
    [
        (0.80, 0.90, "confirmed"),
        (0.90, 0.80, "the other way round"),
        (0.90, 0.905, "not decidable"),
        (1.0, 1.0, "no difference"),
    ],
)
def test_the_interval_decides_a_claim(worse: float, better: float, words: str) -> None:
    """Ten points apart is confirmed or the opposite, half a point is not decidable, the same answers are the same."""
    study = synthetic({"resnet18-scratch": worse, "resnet18-pretrained": better})
    verdict = verdicts(study).iloc[0]
    assert verdict.verdict == words
    assert verdict.seeds == 3
    assert verdict.low <= verdict.difference <= verdict.high
    assert verdict.difference == pytest.approx(better - worse, abs=0.02)


def test_one_seed_of_a_method_is_compared_on_that_seed_only() -> None:
    """Seeds are paired; without a common seed there is no verdict."""
    study = synthetic({"resnet18-scratch": 0.8, "resnet18-pretrained": 0.9})
    one = [pair for pair in study.answered if pair[0].method == "resnet18-pretrained" or pair[0].seed == 2]
    assert verdicts(replace(study, answered=one)).seeds.tolist() == [1]
    none = [pair for pair in one if pair[0].method == "resnet18-scratch" or pair[0].seed != 2]
    assert len(verdicts(replace(study, answered=none))) == 0


def test_seeds_are_averaged() -> None:
    """Mean and deviation are those of the seeds' accuracies; a seed without the number does not count."""
    study = synthetic({"resnet18-scratch": 0.8})
    each = [(answers.predicted == study.tiles.labels).mean() for _, answers in study.answered]
    found = study.over_seeds("resnet18-scratch", 100, "accuracy wall")
    assert found is not None
    assert (found.mean, found.std) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert study.over_seeds("absent", 100, "accuracy wall") is None
    study.numbers["some"] = [0.5, math.nan, math.nan]
    assert study.over_seeds("resnet18-scratch", 100, "some") == mean_interval(np.array([0.5]))
    assert study.over_seeds("resnet18-scratch", 100, "agreement") is None  # there is no teacher


def test_verdict_without_an_interval_is_not_decidable() -> None:
    """One photo gives no interval."""
    study = synthetic({"resnet18-scratch": 0.8, "resnet18-pretrained": 0.9}, num=20)
    verdict = verdicts(study).iloc[0]
    assert math.isnan(verdict.low) and verdict.verdict == decide(math.nan, math.nan) == "not decidable"


def test_document_is_whole_without_pretraining_or_unseen_sources() -> None:
    """What is not there leaves its table empty, not the page broken."""
    study = synthetic({"resnet18-scratch": 0.8})
    text = document(study, [], {}, "Header.")
    share = (study.tiles.labels == 0).mean()
    assert f"| otsu_threshold (no network) | {100 * share:.2f} |" in text


def test_failures_are_those_outputs_that_are_still_missing(study_folder: Path) -> None:
    """A record counts while its output is absent, also one that a cache brings; no folder is no failure."""
    assert list(read_failures(study_folder, study_folder / ".damcrack")) == ["models/x"]
    assert read_failures(study_folder, study_folder / "nowhere") == {}
    (study_folder / "models/x").mkdir()
    assert read_failures(study_folder, study_folder / ".damcrack") == {}
    (study_folder / "models/x").rmdir()


@given(st.lists(st.integers(0, 20).map(lambda step: step / 40), max_size=6), st.integers(1, 39))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, step):
    """At each level the adjusted p-values name the hypotheses that Holm's steps reject, one after another."""
    alpha, rejected, waiting = step / 40 + 1e-9, set(), set(range(len(p_values)))
    while waiting:
        smallest = min(waiting, key=lambda i: p_values[i])
        if p_values[smallest] > alpha / len(waiting):
            break
        waiting.remove(smallest)
        rejected.add(smallest)
    adjusted = holm(np.array(p_values))
    assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected
    assert np.all((adjusted >= p_values) & (adjusted <= 1))


def test_holm_of_a_worked_example():
    """Factors M, M - 1, ... in ascending order, never below the one before, at most 1."""
    found = holm(np.array([0.01, 0.04, 0.03, 0.005, 0.9]))
    np.testing.assert_allclose(found, [0.04, 0.09, 0.09, 0.025, 0.9], rtol=1e-12)


@pytest.mark.parametrize(("num_seeds", "t"), [(2, 12.706), (5, 2.776), (31, 2.042)])
def test_mean_interval_is_students(num_seeds, t):
    """The mean plus or minus the tabulated t times its standard error."""
    values = np.random.default_rng(num_seeds).normal(0.9, 0.02, num_seeds)
    mean, std = np.mean(values), np.std(values, ddof=1)
    half = t * std / math.sqrt(num_seeds)
    assert mean_interval(values) == pytest.approx((mean, std, mean - half, mean + half), abs=1e-4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9], (0.9, math.nan, math.nan, math.nan)),  # one seed has no spread
        ([0.5, 0.5], (0.5, 0.0, 0.5, 0.5)),
    ],
)
def test_mean_interval_of_few_seeds(values, expected):
    """What so few seeds cannot tell is NaN."""
    assert mean_interval(np.array(values)) == pytest.approx(expected, nan_ok=True)


def test_feature_maps_are_the_networks_own_activations(tmp_path: Path) -> None:
    """Each shown channel is that of a plain forward pass, upsampled; the four strongest, in order."""
    folder = tmp_path / "m/resnet18/40/0"
    write_cell(folder, "0" * 64, seed=2)
    tiles = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    network, info = load_model(folder)
    small = shrink(torch.from_numpy(tiles).permute(0, 3, 1, 2), 32)
    images = normalise(small, torch.tensor(info.mean), torch.tensor(info.std))
    with torch.no_grad():
        stem = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        plain = [stem, network.layer1(stem), network.layer2(network.layer1(stem))]
    for stage, expected in zip(feature_maps(folder, tiles), plain, strict=True):
        strength = expected.abs().mean(dim=(0, 2, 3)).numpy()
        assert strength[stage.channels].tolist() == sorted(strength, reverse=True)[:4]
        assert stage.maps_NKHW.shape == (3, 4, 64, 64)
        large = interpolate(expected[:, stage.channels], size=(64, 64), mode="bilinear").numpy()
        low, high = (
            f(expected[:, stage.channels].numpy(), axis=(0, 2, 3), keepdims=True) for f in (np.min, np.max)
        )
        np.testing.assert_allclose(stage.maps_NKHW, (large - low) / (high - low), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "pixel_channels"),
    [*((name, None) for name in NETWORKS), ("resnet18", 16), ("efficientnet_lite0", 16)],
)
def test_every_network_has_three_stages_to_show(name, pixel_channels):
    """Residual networks show stem and stages, plain ones their poolings, in the order of the forward pass.

    Under a pixel head they are the same three of the encoder.
    """
    with torch.device("meta"):
        network = build_network(name, 2, 0, pixel_channels)
    places = [list(network.modules()).index(module) for module in first_stages(network).values()]
    assert len(places) == 3
    assert places == sorted(places)


def test_examples_are_the_most_confident_of_their_kinds() -> None:
    """Two found cracks, one true negative, one error; fewer where a kind does not occur."""
    labels = np.array([1, 1, 1, 0, 0, 1, 0])
    margins = np.array([1.0, 3.0, 2.0, -1.0, -2.0, -0.5, 0.7])
    answers = Answers(np.stack([np.zeros(7), margins], axis=1), 1.0)
    assert examples(labels, answers).tolist() == [1, 2, 4, 6]
    assert examples(answers.predicted, answers).tolist() == [1, 2, 4]


@pytest.mark.parametrize("page", ["results.md", "results-gpu.md"])
def test_committed_pages_have_the_form_of_the_command(page: str) -> None:
    """Reading guide and headings of the tables are those that the report would write today."""
    text = (ROOT / "docs" / page).read_text()
    written = document(synthetic({"resnet18-scratch": 0.8}), [], {}, "Header.")
    assert READING in text
    for head in re.findall(
        r"^## (?:The|Table 1).*|^\| (?:pretraining|method \| n) .*", written, re.MULTILINE
    ):
        assert head in text
