"""The measurement on unseen sources, on small synthetic ones; once on real photos where they are."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn

from damcrack.cracks.pixel_scores import count_pixels
from damcrack.data.config import PhotosConfig
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.files import InputError, read_csv
from damcrack.inspection.config import InspectConfig
from damcrack.run import Run
from damcrack.storage.source import open_source
from damcrack.train.networks import build_network
from damcrack.train.weights import ModelInfo, save_model
from detectors import write_export
from experiments import left_out
from experiments.commands import DATA_VARIABLE
from experiments.students.__main__ import copy_photos
from experiments.unseen import rows, scorers
from experiments.unseen.__main__ import main
from experiments.unseen.measure import FULL, HALF, Score, block_scores, blocks_xyxy, by_row, count, measure
from experiments.unseen.pages import draw, markdown, write_pictures
from experiments.unseen.rows import auroc, block_measures, drawn_weights, f1, pooled, summary
from experiments.unseen.scorers import BASELINES, in_windows, onnx_score, torch_score
from experiments.unseen.sources import WALLS, read_photos

pytestmark = pytest.mark.slow

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals take most of the time."""
    monkeypatch.setattr(rows, "NUM_DRAWS", 20)


COLUMNS = ("path", "label", "mask", "group")


def wall(side_px: int, crack_at: int | None) -> tuple[Pixels, Pixels]:
    """A grey photo whose blue channel is bright on the true crack, a line of 3 px, so that a score can read it."""
    mask = np.zeros((side_px, side_px), np.uint8)
    if crack_at is not None:
        cv2.line(mask, (crack_at, 0), (crack_at, side_px), 255, 3)
    rgb = np.full((side_px, side_px, 3), 128, np.uint8)
    rgb[..., 2] = mask
    return rgb, mask


def truth(rgb: Pixels) -> npt.NDArray[np.float32]:
    """The perfect score of `wall`."""
    return (rgb[..., 2] > 127).astype(np.float32)


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


class Data:
    """A folder of sources that tests fill."""

    def __init__(self, root: Path) -> None:
        self.root, self.rows = root, list[dict[str, str]]()

    def photo(self, source: str, name: str, crack_at: int | None, side_px: int = 448) -> None:
        rgb, mask = wall(side_px, crack_at)
        save(self.root / source / "images" / f"{name}.png", rgb)
        save(self.root / source / "masks" / f"{name}.png", mask)
        self.listed(f"{source}/images/{name}.png", f"{source}/masks/{name}.png")

    def tile(self, source: str, name: str, cracked: bool) -> None:
        path = f"{source}/{'Positive' if cracked else 'Negative'}/{name}.png"
        save(self.root / path, wall(224, 100 if cracked else None)[0])
        self.listed(path, "")

    def listed(self, path: str, mask: str) -> None:
        self.rows.append({"path": path, "label": "", "mask": mask, "group": Path(path).stem})
        with (self.root / "MANIFEST.csv").open("w", newline="") as file:
            rows = csv.DictWriter(file, COLUMNS)
            rows.writeheader()
            rows.writerows(self.rows)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path / "data")


def results_of(data: Data, score: Score, sources: Sequence[str] = ()) -> dict[str, object]:
    return summary(by_row(measure(read_photos(data.root, sources), score)))


def three_cracked(data: Data, source: str = "deepcrack") -> None:
    for number in range(3):
        data.photo(source, f"crack-{number}", 100 + 10 * number)


def test_a_perfect_score_gets_one_everywhere(data: Data) -> None:
    """Blocks, pixels and centre lines of a score that is the mask."""
    three_cracked(data)
    row = results_of(data, truth)["sources"]["deepcrack"]
    assert (row["cracked_blocks"], row["clean_blocks"], row["against"]) == (6, 6, "own")
    assert {name: one["value"] for name, one in row["blocks"].items()} == {
        "auroc": 1, "average_precision": 1, "accuracy": 1, "f1": 1, "false_alarms_at_recall": 0
    }  # fmt: skip
    assert {name: one["value"] for name, one in row["pixels"].items()} == dict.fromkeys(
        ("precision", "recall", "f1", "cliou"), 1
    )


def test_an_inverted_score_gets_nothing(data: Data) -> None:
    """Clean blocks above cracked ones, no crack pixel found."""
    three_cracked(data)

    def inverted(rgb: Pixels) -> npt.NDArray[np.float32]:
        """Each block on its own: 1 where the block has no crack at all."""
        probs = np.ones(rgb.shape[:2], np.float32)
        for x0, y0, x1, y1 in blocks_xyxy(probs.shape).tolist():
            probs[y0:y1, x0:x1] = 1 - truth(rgb[y0:y1, x0:x1]).max()
        return probs

    row = results_of(data, inverted)["sources"]["deepcrack"]
    assert row["blocks"]["auroc"]["value"] == row["blocks"]["f1"]["value"] == 0
    assert row["pixels"]["f1"]["value"] == row["pixels"]["cliou"]["value"] == 0


def test_a_line_beside_the_true_one_counts_within_the_tolerance(data: Data) -> None:
    """One pixel beside keeps F1 and clIoU at 1; ten pixels beside keep nothing."""
    three_cracked(data)

    def shifted(by_px: int) -> Score:
        return lambda rgb: np.roll(truth(rgb), by_px, axis=1)

    near, far = (results_of(data, shifted(by_px))["sources"]["deepcrack"]["pixels"] for by_px in (1, 10))
    assert near["f1"]["value"] == near["cliou"]["value"] == 1
    assert far["f1"]["value"] == far["cliou"]["value"] == 0


def test_counts_agree_with_those_of_the_case_study() -> None:
    """At 2 px the pixels near each other are those of `cracks.scores`."""
    rng = np.random.default_rng(0)
    found, true = (cv2.dilate((rng.random((90, 120)) > 0.99).astype(np.uint8), np.ones((3, 3))) for _ in "ab")
    ours, theirs = count(found, true, 2), count_pixels(found, true)
    names = ("found", "found_near_true", "true", "true_near_found")
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]


def test_centre_line_iou_of_half_a_line() -> None:
    """Half of a line found, and as much found elsewhere: clIoU = hit / (hit + missed + false), about 1 / 3."""
    true, found = (np.zeros((220, 220), np.uint8) for _ in "ab")
    true[10:210, 50] = 1
    found[10:110, 50] = found[10:110, 150] = 1
    counts = count(found, true, 2)
    assert (counts.line_hit, counts.line_missed, counts.line_false) == (
        104,
        96,
        100,
    )  # 4 px of tolerance at the end


def test_blocks_with_a_little_crack_are_left_out(data: Data) -> None:
    """Fewer crack pixels than count, but some: neither cracked nor clean."""
    rgb, mask = wall(448, None)
    mask[5, 5:15] = 255
    save(data.root / "cfd/images/a.png", rgb)
    save(data.root / "cfd/masks/a.png", mask)
    data.listed("cfd/images/a.png", "cfd/masks/a.png")
    (one,) = measure(read_photos(data.root), truth)
    assert one.labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("size_hw", "num"),
    [
        ((224, 224), 1),  # as small as a block
        ((256, 256), 1),  # small photos are one block
        ((448, 448), 4),
        ((320, 480), 6),  # the last row and column are shifted inward
        ((200, 500), 1),  # too flat for a block
    ],
)
def test_blocks_cover_the_photo(size_hw: tuple[int, int], num: int) -> None:
    """Every pixel lies in a block."""
    boxes, covered = blocks_xyxy(size_hw), np.zeros(size_hw, bool)
    for x0, y0, x1, y1 in boxes.tolist():
        covered[y0:y1, x0:x1] = True
    assert len(boxes) == num and covered.all()


def test_a_blocks_score_is_that_of_its_most_confident_pixels() -> None:
    """0.3 % of 224 x 224 pixels are 151; a larger bright spot changes nothing, a smaller one is diluted."""
    probs = np.zeros((224, 224), np.float32)
    probs.ravel()[:151] = 0.8
    assert block_scores(probs, blocks_xyxy(probs.shape))[0] == pytest.approx(0.8)
    probs.ravel()[75:151] = 0
    assert block_scores(probs, blocks_xyxy(probs.shape))[0] == pytest.approx(0.8 * 75 / 151)


def test_sources_of_cracks_alone_are_measured_against_the_walls(data: Data) -> None:
    """Small photos without clean blocks of their own; clean walls say so and count false alarms."""
    for number in range(2):
        data.photo("masonry240", f"{number}", 100, side_px=224)
        data.photo(WALLS, f"{number}", None)
    results = results_of(data, truth)
    row = results["sources"]["masonry240"]
    assert (row["against"], row["clean_blocks_against"], row["auroc_against_walls"]) == (WALLS, 8, 1)
    assert "no cracked blocks" in results["sources"][WALLS]["note"]
    assert results["false_alarms"]["share_of_photos"]["value"] == 0
    assert results["overall"]["blocks"]["auroc"]["value"] == results["mean_auroc"]["value"] == 1


def test_false_alarms_count_photos_and_blocks(data: Data) -> None:
    """One of two clean photos has a bright corner: half of the photos, half a block a photo."""
    data.photo(WALLS, "quiet", None)
    data.photo(WALLS, "loud", None)
    rgb = wall(448, None)[0]
    rgb[:50, :50, 2] = 255
    save(data.root / WALLS / "images/loud.png", rgb)
    alarms = results_of(data, truth)["false_alarms"]
    assert (alarms["share_of_photos"]["value"], alarms["blocks_per_photo"]["value"]) == (0.5, 0.5)


@pytest.mark.parametrize(("source", "crack_at", "reason"), [
    (WALLS, None, "no cracked blocks"),
    ("phinet", 100, "no clean blocks"),
])  # fmt: skip
def test_one_class_alone_is_explained(data: Data, source: str, crack_at: int | None, reason: str) -> None:
    """A source that cannot be measured has a sentence in its line, and the page is written."""
    data.photo(source, "a", crack_at)
    results = results_of(data, truth)
    assert reason in results["sources"][source]["note"]
    assert reason in markdown({"truth": {"seconds": 1.0, **results}})


def test_ready_tiles_have_lines_of_their_own(data: Data) -> None:
    """Labels are the folders'; the limit holds for each class, spread evenly."""
    for number in range(5):
        data.tile("metu-tiles", f"{number}", cracked=True)
        data.tile("metu-tiles", f"{number}", cracked=False)
    photos = read_photos(data.root, max_per_source=3)
    assert [photo.file.stem for photo in photos] == ["0", "2", "4"] * 2
    others = read_photos(data.root, max_per_source=3, not_among=3)
    assert [photo.file.stem for photo in others] == ["1", "3"] * 2
    results = summary(by_row(measure(photos, truth)))
    assert results["tiles"]["metu-tiles"]["blocks"]["accuracy"]["value"] == 1
    assert results["tiles"]["metu-tiles"]["against"] == "own"
    assert (results["sources"], results["mean_auroc"], results["overall"]) == ({}, None, None)


def test_asphalt_has_a_mean_of_its_own(data: Data) -> None:
    """Road sources count in one mean, all others in the other; a part without sources has none."""
    for number in range(3):
        for source, crack_at in (("deepcrack", 100), ("cfd", 100), (WALLS, None)):
            data.photo(source, f"{number}", crack_at)
    results = summary(by_row(measure(read_photos(data.root, ("deepcrack", WALLS)), truth)))
    assert results["concrete"]["mean_auroc"]["value"] == 1 and results["asphalt"]["mean_auroc"] is None
    results = summary(by_row(measure(read_photos(data.root, ("cfd", WALLS)), truth)))
    assert results["asphalt"]["mean_auroc"]["value"] == 1 and results["concrete"]["mean_auroc"] is None


def test_clean_walls_are_not_added_to_ready_tiles(data: Data) -> None:
    """Tiles have both classes; however few they are, they are measured among themselves."""
    data.tile("metu-tiles", "0", cracked=True)
    data.tile("metu-tiles", "0", cracked=False)
    data.photo(WALLS, "a", None)
    assert results_of(data, truth)["tiles"]["metu-tiles"]["clean_blocks_against"] == 1


def test_large_photos_are_measured_at_two_sizes(data: Data) -> None:
    """`hires` has a line at half size and one at full size; both count the same crack."""
    for number in range(2):
        data.photo("hires", f"{number}", 100, side_px=896)
    results = results_of(data, truth)
    assert list(results["sources"]) == [HALF, FULL]
    assert [results["sources"][name]["cracked_blocks"] for name in (HALF, FULL)] == [4, 8]
    assert results["overall"]["cracked_blocks"] == 4
    assert results["sources"][HALF]["pixels"]["f1"]["value"] == 1


def _no_mask(data: Data) -> None:
    data.photo("cfd", "a", 100)
    data.listed("cfd/images/b.png", "")


def _other_size(data: Data) -> None:
    data.photo("cfd", "a", 100)
    save(data.root / "cfd/masks/a.png", wall(300, 100)[1])


def _gone(data: Data) -> None:
    data.photo("cfd", "a", 100)
    (data.root / "cfd/images/a.png").unlink()


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (_no_mask, ("cfd/images/b.png", "names no mask", "expected one")),
        (_other_size, ("cfd/masks/a.png", "300 x 300", "expected 448 x 448")),
        (_gone, ("cfd/images/a.png", "No such file")),
    ],
)
def test_unusable_sources_are_named(
    data: Data, break_it: Callable[[Data], None], words: Sequence[str]
) -> None:
    """The file, what was found and what was expected."""
    break_it(data)
    with pytest.raises(InputError) as caught:
        results_of(data, truth)
    assert all(word in str(caught.value) for word in words)


def test_scores_of_another_size_are_refused(data: Data) -> None:
    """A detector whose map is not scaled to the photo."""
    data.photo("cfd", "a", 100)
    with pytest.raises(InputError, match=r"a\.png: scores of shape \(224, 224\), expected \(448, 448\)"):
        results_of(data, lambda rgb: truth(rgb)[::2, ::2])


def test_unknown_sources_are_named(data: Data) -> None:
    """A misspelt source stops before anything is scored."""
    data.photo("cfd", "a", 100)
    with pytest.raises(InputError, match="no photos of cdf"):
        read_photos(data.root, ["cdf"])


def test_intervals_draw_whole_groups() -> None:
    """Things of one group come equally often, and a single group has no interval."""
    weights = drawn_weights(np.array(["a", "a", "b", "c"]))
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert drawn_weights(np.array(["a", "a"])).shape == (0, 2)


def test_measures_with_whole_weights_are_those_of_repeated_blocks(data: Data) -> None:
    """The bootstrap's weights mean what repeating the blocks means."""
    rng = np.random.default_rng(1)
    labels, scores = (rng.random(60) > 0.5).astype(float), rng.random(60).round(1)
    weights = rng.integers(0, 4, 60)
    once = np.ones(int(weights.sum()))
    for one in (auroc, f1):
        assert one(labels, scores, weights.astype(float)) == pytest.approx(
            one(labels.repeat(weights), scores.repeat(weights), once)
        )


def test_intervals_hold_the_value(data: Data) -> None:
    """A score that is wrong now and then: the interval is around its AUROC."""
    for number in range(8):
        data.photo("deepcrack", f"{number}", 100)
    rng = np.random.default_rng(0)
    results = list(measure(read_photos(data.root), lambda rgb: truth(rgb) * rng.random(), None))
    measures, draws = block_measures(pooled(results))
    one = measures["f1"]
    assert len(draws) and one["low"] < one["value"] < one["high"]


def test_windows_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that looks 40 px around gives the same in windows as at once; odd sizes come back as they were."""
    rgb = np.random.default_rng(0).integers(0, 256, (501, 703, 3), np.uint8)

    def map_of(window: Pixels) -> npt.NDArray[np.float32]:
        grey = cv2.blur(window[..., 0].astype(np.float32), (81, 81))
        return cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)

    whole = in_windows(map_of, rgb)
    monkeypatch.setattr(scorers, "WINDOW_PX", 320)
    assert whole.shape == rgb.shape[:2]
    np.testing.assert_allclose(in_windows(map_of, rgb), whole, atol=1e-3)


def test_an_export_is_measured_at_the_photos_own_size(tmp_path: Path) -> None:
    """The detector finds a dark line; each cell of 2 x 2 px fills its pixels, also of odd sizes; a speck is none."""
    rgb, line = np.full((75, 61, 3), 200, np.uint8), np.zeros((75, 61), bool)
    line[10:12, 10:50] = True
    rgb[line] = 0
    rgb[40:42, 20:22] = 0
    probs = onnx_score(write_export(tmp_path, 100), InspectConfig(scales=(1.0,)))(rgb)
    assert probs.shape == (75, 61) and probs.dtype == np.float32
    np.testing.assert_array_equal(probs > 0.5, line)


def trained(folder: Path, pixel_channels: int | None) -> nn.Module:
    """Write what `finetune` would, of a network with random weights."""
    network = build_network("resnet18", 2, 0, pixel_channels).eval()
    sizes = {"image_px": 64, "mean": (0.5,) * 3, "std": (0.25,) * 3, "pixel_channels": pixel_channels}
    made_from = {
        "data_digest": "",
        "init_sha256": None,
        "teacher_sha256": None,
        "best_epoch": 1,
        "config": {},
    }
    info = ModelInfo(name="one", network="resnet18", classes=("none", "crack"), **sizes, **made_from)
    folder.mkdir()
    save_model(folder, info, network.state_dict(), network.state_dict())
    return network


def test_a_trained_network_is_measured_by_its_pixels(tmp_path: Path) -> None:
    """As `both_at_half_size` gives them, on a photo whose sides are multiples of 32; of odd ones the size is right."""
    network = trained(tmp_path / "model", 16)
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    with torch.no_grad():
        images = (torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
        expected = network.both_at_half_size(images)[1][0].sigmoid().numpy()
    score = torch_score(tmp_path / "model")
    np.testing.assert_allclose(score(rgb)[::2, ::2], expected, atol=1e-4)
    assert score(rgb[:51, :77]).shape == (51, 77)


def test_a_network_without_pixels_is_refused(tmp_path: Path) -> None:
    """It can only judge tiles."""
    trained(tmp_path / "model", None)
    with pytest.raises(InputError, match="no pixel head"):
        torch_score(tmp_path / "model")


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_see_a_dark_line(name: str) -> None:
    """Probabilities in [0, 1], higher on a dark line than beside it."""
    rgb = np.full((100, 120, 3), 180, np.uint8)
    rgb[:, 60:64] = 40
    probs = BASELINES[name](rgb)
    assert probs.dtype == np.float32 and probs.shape == rgb.shape[:2] and 0 <= probs.min() <= probs.max() <= 1
    assert probs[50, 61] > 0.5 > probs[50, 20]


def test_pictures_show_true_found_and_both(data: Data, tmp_path: Path) -> None:
    """Green, red and yellow; one page of each source, also with fewer photos than places."""
    rgb, mask = wall(320, 100)
    found = np.roll(mask, 40, axis=1) // 255
    found[160:] = mask[160:] // 255
    shown = cv2.imdecode(np.frombuffer(draw(rgb, mask // 255, found), np.uint8), cv2.IMREAD_COLOR_RGB)[
        :, 320:
    ]
    for (y, x), colour in {(80, 100): (0, 1, 0), (80, 140): (1, 0, 0), (240, 100): (1, 1, 0)}.items():
        assert tuple((shown[y, x][:2] > 120).astype(int)) == colour[:2]
    three_cracked(data)
    write_pictures(tmp_path / "pages", by_row(measure(read_photos(data.root), truth, draw)))
    assert Image.open(tmp_path / "pages/deepcrack.jpg").width > 3 * 2 * 320


def test_a_gain_over_the_shipped_detector_is_measured_on_the_same_draws(data: Data) -> None:
    """Nothing, without any doubt, against itself; minus one where a perfect score is turned over."""
    for source in left_out.LEFT_OUT[:2]:
        three_cracked(data, source)
    data.photo(WALLS, "a", None)

    def rows_of(score: Score) -> dict[str, dict[str, Any]]:
        return left_out.rows_of(lambda: score, left_out.LEFT_OUT[:2], data.root)

    found = {
        left_out.SHIPPED: rows_of(truth),
        "again": rows_of(truth),
        "turned": rows_of(lambda rgb: 1 - truth(rgb)),
    }
    gains = {line.split(" | ")[0][2:]: line.split(" | ")[3] for line in left_out.means(found).splitlines()}
    assert gains["again"] == "0.0 (0.0 to 0.0)"
    assert gains["turned"].startswith("-")
    lines = [line for line in left_out.each_source(found).splitlines() if "| again |" in line]
    assert [line.split(" | ")[2] for line in lines] == ["100.0 (100.0 to 100.0)"] * 2


@pytest.mark.parametrize("with_masks", [True, False])
def test_copied_photos_are_a_source(data: Data, tmp_path: Path, with_masks: bool) -> None:
    """The stage photos reads them with their scenes, with masks or without any."""
    three_cracked(data)
    folder = copy_photos(read_photos(data.root), tmp_path / "copied", with_masks)
    config, run = PhotosConfig(sources={"copied": str(folder)}), Run()
    given = {"open_source": open_source, "run": run}
    snapshot(out=tmp_path / "photos.csv", sources=config.sources, **given)
    photos(tmp_path / "photos.csv", tmp_path / "photos", config=config, **given)
    found = read_csv(tmp_path / "photos/photos.csv")
    assert [row["group"] for row in found] == [f"copied/crack-{number}" for number in range(3)]
    assert [bool(row["mask"]) for row in found] == [with_masks] * 3


def test_the_command_needs_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --data and variable it says which variable."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr("sys.argv", ["unseen", "--baselines"])
    with pytest.raises(SystemExit, match=f"--data or set {DATA_VARIABLE}"):
        main()


def test_the_command_writes_json_and_tables(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files out, one section for each detector."""
    three_cracked(data)
    data.photo(WALLS, "a", None)
    out, page = tmp_path / "out.json", tmp_path / "page.md"
    words = ["--data", data.root, "--baselines", "--out", out, "--markdown", page]
    monkeypatch.setattr("sys.argv", ["unseen", *map(str, words)])
    main()
    assert '"darkness"' in out.read_text()
    assert all(f"## {name}" in page.read_text() for name in BASELINES)


@pytest.mark.skipif(DATA_VARIABLE not in os.environ, reason=f"{DATA_VARIABLE} names no folder of real photos")
def test_real_cracks_rank_above_chance() -> None:
    """Four real photos each of three sources, with a filter that learned nothing."""
    photos = read_photos(Path(os.environ[DATA_VARIABLE]), ["deepcrack", "masonry240", WALLS], 4)
    results = summary(by_row(measure(photos, BASELINES["Frangi"])))
    assert results["mean_auroc"]["value"] > 0.6
