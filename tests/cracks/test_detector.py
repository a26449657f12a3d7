"""The exported model on photos: windows, scales, block probabilities; and files that are refused."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damcrack.cracks import windows
from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.windows import Windows
from damcrack.data.tiling import tile_boxes_xyxy
from damcrack.files import InputError
from walls import (
    DARK,
    concrete,
    contract_of,
    coverage,
    detector_bytes,
    line,
    photo,
    rgb,
    write_darkness_detector,
)

SIZES_HW = [(340, 450), (513, 511), (1100, 700), (97, 1203), (640, 33), (31, 17)]


@pytest.fixture(scope="module")
def darkness(tmp_path_factory):
    """Each cell of its map is a function of the cell's own four pixels."""
    path = write_darkness_detector(tmp_path_factory.mktemp("model") / "model.onnx", temperature=1.7)
    return OnnxDetector.load(path)


@pytest.fixture(scope="module")
def contrast(tmp_path_factory):
    """What is darker than the 33 px around is crack: it sees no further than the margin of a window."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(contrast_detector(reach_px=16))
    return OnnxDetector.load(path)


@pytest.fixture(scope="module")
def workers():
    with ThreadPoolExecutor(3) as pool:
        yield pool


def contrast_detector(reach_px):
    side, inside = 2 * reach_px + 1, {"count_include_pad": 0}
    down = {"kernel_shape": [side, 1], "pads": [reach_px, 0, reach_px, 0], **inside}
    across = {"kernel_shape": [1, side], "pads": [0, reach_px, 0, reach_px], **inside}
    nodes = [
        ("Cast", ["tiles"], ["light"], {"to": onnx.TensorProto.FLOAT}),
        ("ReduceMean", ["light", "last"], ["grey"], {"keepdims": 0}),
        ("Unsqueeze", ["grey", "one"], ["grey_B1HW"], {}),
        ("AveragePool", ["grey_B1HW"], ["down_B1HW"], down),
        ("AveragePool", ["down_B1HW"], ["around_B1HW"], across),
        ("Sub", ["around_B1HW", "grey_B1HW"], ["darker_B1HW"], {}),
        ("AveragePool", ["darker_B1HW"], ["cells_B1HW"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Squeeze", ["cells_B1HW", "one"], ["cells"], {}),
        ("Sub", ["cells", "enough"], ["above"], {}),
        ("Sigmoid", ["above"], ["crack_map"], {}),
    ]
    constants = {"last": np.array([3]), "one": np.array([1]), "enough": np.array(20, np.float32)}
    return detector_bytes(nodes, constants, contract_of("contrast", "none", 112))


def noise(size_hw, seed=0):
    """Blotches around the grey at which the darkness detector is undecided (H, W, 3)."""
    grey = np.random.default_rng(seed).normal(DARK, 60, size_hw)
    return rgb(np.clip(cv2.GaussianBlur(grey, (0, 0), 2), 0, 255).astype(np.uint8))


def of_cells(image):
    """The darkness detector's map, from its definition."""
    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="reflect").astype(np.float64)
    cells = even.mean(axis=2).reshape(even.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
    return 1 / (1 + np.exp((cells - DARK) / 5))


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_the_map_of_a_photo_of_any_size_is_that_of_its_pixels(darkness, workers, size_hw):
    """Large, small, portrait, odd: one cell for every 2x2 pixels, in its place."""
    image = noise(size_hw)
    crack_map = darkness.map_photo(image, workers)
    assert crack_map.dtype == np.float32
    np.testing.assert_allclose(crack_map, of_cells(image), atol=1e-5)


@pytest.mark.parametrize("size_hw", [(390, 610), (1203, 97)])
def test_windows_leave_no_seam(contrast, workers, monkeypatch, size_hw):
    """However the windows lie, the map is that of the whole photo at once; only the photo's border may differ."""
    image = noise(size_hw, seed=1)
    monkeypatch.setattr(windows, "WINDOW_PX", 4096)
    whole = contrast.map_photo(image, workers)
    inside = (slice(8, -8),) * 2
    for window_px in (128, 256, 512):
        monkeypatch.setattr(windows, "WINDOW_PX", window_px)
        np.testing.assert_allclose(contrast.map_photo(image, workers)[inside], whole[inside], atol=1e-4)


def test_the_border_of_a_large_photo_is_reflected(contrast, workers):
    """The map there is that of a larger photo whose border is the reflection."""
    image = noise((600, 700), seed=2)
    larger = np.pad(image, ((32, 32), (32, 32), (0, 0)), mode="reflect")
    expected = contrast.map_photo(larger, workers)[16:-16, 16:-16]
    np.testing.assert_allclose(contrast.map_photo(image, workers), expected, atol=1e-4)


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.sampled_from([0.5, 1, 2, 3]))
@settings(max_examples=200, deadline=None)
def test_windows_fill_every_cell_once(size_hw, shrink):
    """No cell is left out or scored twice; sides are multiples of 32, at most 512, and margins are thrown away."""
    chosen = Windows.of(size_hw, shrink)
    for length_px, side in zip(size_hw, (chosen.down, chosen.across), strict=True):
        assert side.seen_px % 32 == 0
        assert side.seen_px <= windows.WINDOW_PX
        filled = np.zeros(math.ceil(math.ceil(length_px / max(1, shrink)) / 2), np.int64)
        for start in range(0, side.length_px, side.step_px):
            rows, own = side.own_part(start, chosen.cell_px)
            filled[rows] += 1
            assert rows.stop - rows.start == own.stop - own.start > 0
            assert own.start == side.margin_px // chosen.cell_px
            assert own.stop <= (side.seen_px - side.margin_px) // chosen.cell_px
        assert (filled == 1).all()


def test_half_size_finds_what_is_too_wide(contrast, workers):
    """The middle of a dark band of 40 px is no darker than what is around it, until the photo is half as large."""
    size = (400, 600)
    cover = coverage(size, line(np.array([300.0, 200.0]), 0, 560), 40)
    image = rgb(photo(concrete(size, pores=False), cover))
    full, both = (contrast.map_photo(image, workers, scales) for scales in ((1.0,), (1.0, 0.5)))
    middle = (slice(98, 102), slice(60, 240))
    assert full[middle].max() < 0.1
    assert both[middle].min() > 0.9
    assert (both >= full).all()


def test_double_size_finds_what_is_too_fine(darkness, workers):
    """A line of one pixel is averaged away in its cells; at double size a cell of a quarter of that shows it."""
    image = np.full((100, 120, 3), DARK + 50, np.uint8)
    image[51] = DARK - 30
    full, both = (darkness.map_photo(image, workers, scales) for scales in ((1.0,), (2.0, 1.0)))
    assert full[25].max() < 0.2
    assert both[25].min() > 0.5


def test_double_size_is_seen_where_the_others_show_something(darkness, workers):
    """Elsewhere full size alone counts, undivided."""
    image = np.full((600, 700, 3), 255, np.uint8)
    image[:8, :8] = 0
    image[-40:, -40:] = DARK + 20  # a little, below what is asked for
    full, both = (darkness.map_photo(image, workers, scales, 0.9) for scales in ((1.0,), (2.0, 1.0)))
    assert both[0, 0] == full[0, 0] > 0.9
    np.testing.assert_array_equal(both[150:, 200:], full[150:, 200:])
    everywhere = darkness.map_photo(image, workers, (2.0, 1.0), 0.0)
    assert (everywhere[150:, 200:] != full[150:, 200:]).any()


@pytest.mark.parametrize("size_hw", [(1500, 1900), (1101, 1703), (300, 400)])
def test_windows_that_show_nothing_at_half_size_are_not_looked_at_again(darkness, workers, size_hw):
    """A window with a spot that half size shows has its full map, spot and all; the others that of half size."""
    image = np.full((*size_hw, 3), 255, np.uint8)
    image[:4, :4] = 0  # both sizes show it
    image[-1, -1] = image[0, 40] = 0  # full size alone
    full, half, both = (
        darkness.map_photo(image, workers, scales, 0.9) for scales in ((1.0,), (0.5,), (1.0, 0.5))
    )
    first = (
        slice(0, Windows.of(size_hw, 1).down.step_px // 2),
        slice(0, Windows.of(size_hw, 1).across.step_px // 2),
    )
    expected = half.copy()
    expected[first] = np.maximum(half, full)[first]
    np.testing.assert_array_equal(both, expected)
    everywhere = darkness.map_photo(image, workers, (1.0, 0.5), 0.0)
    np.testing.assert_array_equal(everywhere, np.maximum(half, full))


@pytest.mark.parametrize(("beyond_px", "seen"), [(20, True), (40, False)])
def test_a_window_is_looked_at_for_what_its_margin_shows(darkness, workers, beyond_px, seen):
    """A crack that half size shows next to a window may go on in it, too thin for half size."""
    step_px = Windows.of((1500, 1900), 1).across.step_px
    image = np.full((1500, 1900, 3), 255, np.uint8)
    image[:4, step_px + beyond_px : step_px + beyond_px + 8] = 0
    image[:2, 10:12] = 0  # full size alone
    full, half, both = (
        darkness.map_photo(image, workers, scales, 0.9) for scales in ((1.0,), (0.5,), (1.0, 0.5))
    )
    assert full[0, 5] > half[0, 5] + 0.5
    assert both[0, 5] == (full if seen else half)[0, 5]


@pytest.mark.parametrize("scales", [(0.5,), (2.0, 1.0)])
@pytest.mark.parametrize("size_hw", [(1100, 701), (341, 453), (33, 47), (3, 5)])
def test_half_and_double_size_lie_in_the_same_place(darkness, workers, size_hw, scales):
    """A photo of blocks of 8 px has the same map, within a cell of their edges; double size is averaged with full."""
    small = np.random.default_rng(3).integers(0, 2, [-(-length // 8) for length in size_hw]).astype(np.uint8)
    image = rgb(200 * np.repeat(np.repeat(small, 8, axis=0), 8, axis=1)[: size_hw[0], : size_hw[1]])
    full, found = darkness.map_photo(image, workers), darkness.map_photo(image, workers, scales)
    assert full.shape == found.shape and found.dtype == np.float32
    alone = 2 * found - full if 2.0 in scales else found
    inside = (slice(-1),) * 2 if 2.0 in scales else (slice(None),) * 2  # an odd border is half reflection
    high, low = (morph(full, np.ones((3, 3))) for morph in (cv2.dilate, cv2.erode))
    assert ((alone >= low - 1e-3) & (alone <= high + 1e-3))[inside].all()


@pytest.mark.parametrize("side_hw", [(32, 32), (112, 112), (224, 160), (100, 75)])
def test_a_tile_has_the_probability_of_a_block(darkness, workers, side_hw):
    """Of a photo that is one tile, the block has what the model itself gives for the tile."""
    tiles = np.stack([noise(side_hw, seed) for seed in range(5)])
    boxes = np.array([[0, 0, side_hw[1], side_hw[0]]])
    blocks = [darkness.block_probs(darkness.map_photo(tile, workers), boxes)[0] for tile in tiles]
    np.testing.assert_allclose(darkness.score_tiles(tiles), blocks, rtol=1e-5)


def test_padding_does_not_count(darkness):
    """A dark edge is not counted a second time where the tile is reflected beyond it."""
    tiles = np.full((1, 80, 80, 3), 200, np.uint8)
    tiles[0, :, 78:] = 20
    cells = of_cells(tiles[0]).ravel()
    assert darkness.score_tiles(tiles)[0] == pytest.approx(expected_prob(cells, 1.7), rel=1e-4)


def expected_prob(cells, temperature):
    """The definition, one step after the other."""
    num = max(1, int(0.003 * cells.size))
    share = np.clip(np.sort(cells)[::-1][:num].mean(), 1e-6, 1 - 1e-6)
    return 1 / (1 + np.exp(-np.log(share / (1 - share)) / temperature))


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_block_probabilities_follow_their_definition(darkness, workers, overlap):
    """The mean of the highest 0.3% of the cells, calibrated; more blocks than are judged at once, at odd places too."""
    size_hw = (701, 1103)
    crack_map = darkness.map_photo(noise(size_hw), workers)
    boxes = tile_boxes_xyxy(size_hw, 50, overlap)
    assert len(boxes) > 300
    expected = [
        expected_prob(
            crack_map[y0 // 2 : y0 // 2 + 25, x0 // 2 : x0 // 2 + 25].ravel().astype(np.float64), 1.7
        )
        for x0, y0, *_ in boxes
    ]
    np.testing.assert_allclose(darkness.block_probs(crack_map, boxes), expected, rtol=1e-4)


def test_no_tiles_and_no_blocks_have_no_probabilities(darkness):
    """Empty in, empty out."""
    assert darkness.score_tiles(np.empty((0, 64, 64, 3), np.uint8)).shape == (0,)
    assert darkness.block_probs(np.zeros((9, 9), np.float32), np.empty((0, 4), np.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("contract", "said"),
    [
        ({"format": 2}, "format 2, expected 3"),
        ({"input": {"colour": "BGR", "multiple_of": 32}}, "colour BGR"),
        ({"input": {"colour": "RGB", "multiple_of": 16}}, "multiple_of 16"),
        ({"map_stride_px": 4}, "map_stride_px 4"),
        ({"free": False}, "shape"),
    ],
)
def test_a_model_of_another_contract_is_refused(tmp_path, contract, said):
    """Before a photo is scored wrongly."""
    path = write_darkness_detector(tmp_path / "model.onnx", **contract)
    with pytest.raises(InputError, match=said):
        OnnxDetector.load(path)


def test_a_changed_model_is_refused(tmp_path):
    """The hash in model.json names the file."""
    path = write_darkness_detector(tmp_path / "model.onnx")
    (tmp_path / "model.json").write_text(json.dumps({"onnx_sha256": "0" * 64}))
    with pytest.raises(InputError, match="the file was changed"):
        OnnxDetector.load(path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07"])
def test_what_is_no_model_is_refused(tmp_path, content):
    """One line, no traceback of onnxruntime; a missing file is named, and a folder without one."""
    for place in ("nothing.onnx", "."):
        with pytest.raises(InputError, match="no model"):
            OnnxDetector.load(tmp_path / place)
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"not an ONNX model|does not say"):
        OnnxDetector.load(tmp_path / "model.onnx")
