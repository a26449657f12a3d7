import json
from dataclasses import replace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from damcrack.cracks.detector import OnnxDetector
from damcrack.data.imageset import ImageSet
from damcrack.export import export as stage
from damcrack.export.config import ExportConfig
from damcrack.export.deployed import BLOCK_SHARE, Deployed, in_half_precision, to_onnx, with_metadata
from damcrack.export.export import export
from damcrack.files import OUTPUT_MARKER, InputError, sha256_file
from damcrack.run import Run
from damcrack.train.fitting import PIXEL_STATISTICS
from damcrack.train.networks import build_network
from damcrack.train.weights import ModelInfo, load_model, save_model
from trainings import small_by_name, write_set

pytestmark = pytest.mark.slow

CONFIG = ExportConfig(
    experiment="model", opset=20, parity_tiles=8, max_abs_difference=1e-3, calibration_tiles=8
)


def info_of(name, digest, pixel_channels=16):
    return ModelInfo(
        name=name,
        network="small",
        classes=("no crack", "crack"),
        image_px=64,
        mean=PIXEL_STATISTICS[0],
        std=PIXEL_STATISTICS[1],
        data_digest=digest,
        init_sha256="a" * 64,
        teacher_sha256=None,
        best_epoch=1,
        config={},
        pixel_channels=pixel_channels,
    )


def network_of(seed, pixel_channels=16):
    """A network whose map is not the same everywhere, as if it had learned something."""
    network = build_network("small", 2, seed, pixel_channels)
    if pixel_channels is not None:
        torch.nn.init.normal_(network.pixel_head.weight, 0, 1, generator=torch.Generator().manual_seed(seed))
        torch.nn.init.zeros_(network.pixel_head.bias)
    return network


def write_model(folder, digest, seed, pixel_channels=16, **replaced):
    folder.mkdir()
    weights = network_of(seed, pixel_channels).state_dict() | replaced
    save_model(folder, info_of(folder.name, digest, pixel_channels), weights, {"x": torch.zeros(1)})


def write_tiles(root, splits):
    tiles = np.random.default_rng(0).integers(0, 256, (len(splits), 64, 64, 3), dtype=np.uint8)
    return write_set(root, tiles, [number % 2 for number in range(len(splits))], splits)


@pytest.fixture(scope="module", autouse=True)
def small():
    with small_by_name():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory, small):
    """Tiles of 64 px of all three splits, a model of them, and its export."""
    root = tmp_path_factory.mktemp("export")
    images = write_tiles(root / "tiles", ["train", "val", "test"] * 8)
    write_model(root / "model", images.digest, seed=0)
    export(root / "model", root / "tiles", root / "out", CONFIG, Run(root / "scratch"))
    return root


def session_of(encoded):
    return onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 32, 96), (7, 64, 64), (1, 160, 128)])
def test_onnx_scores_raw_tiles_like_torch(world, shape):
    """Raw uint8 tiles of any size and number give torch's probabilities, but for the stored half precision."""
    tiles = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    crack_prob, crack_map = session_of((world / "out/model.onnx").read_bytes()).run(None, {"tiles": tiles})
    with torch.inference_mode():
        network, _ = load_model(world / "model")
        images = (torch.from_numpy(tiles).permute(0, 3, 1, 2).float() - 127) / 128
        expected_map = torch.sigmoid(network.both_at_half_size(images)[1])
    assert crack_prob.shape == shape[:1]
    assert crack_map.shape == (shape[0], shape[1] // 2, shape[2] // 2)
    np.testing.assert_allclose(crack_map, expected_map.numpy(), atol=0.01)
    num = max(1, int(BLOCK_SHARE * crack_map[0].size))
    score = np.sort(crack_map.reshape(len(tiles), -1), axis=1)[:, -num:].mean(axis=1)
    temperature = json.loads((world / "out/model.json").read_text())["calibration"]["temperature"]
    scaled = 1 / (1 + np.exp(-np.log(score / (1 - score)) / temperature))
    np.testing.assert_allclose(crack_prob, scaled, rtol=1e-4)


def test_folder_holds_files_that_name_each_other(world):
    """One ONNX file without outside data, with its hash, parents, inputs and outputs in model.json."""
    names = {path.name for path in (world / "out").iterdir()}
    assert names == {OUTPUT_MARKER, "model.onnx", "model.json", "weights.safetensors", "parity.json"}
    description = json.loads((world / "out/model.json").read_text())
    assert description["onnx_sha256"] == sha256_file(world / "out/model.onnx")
    assert description["weights_sha256"] == sha256_file(world / "out/weights.safetensors")
    assert description["parents"] == {"init_sha256": "a" * 64, "teacher_sha256": None}
    session = session_of((world / "out/model.onnx").read_bytes())
    (tiles,), outputs = session.get_inputs(), session.get_outputs()
    assert (tiles.name, tiles.type, tiles.shape) == (
        "tiles",
        "tensor(uint8)",
        description["input"]["shape"],
    )
    assert [(one.name, len(one.shape)) for one in outputs] == [
        (one["name"], len(one["shape"])) for one in description["outputs"]
    ]


def test_the_file_says_what_it_is(world):
    """The contract inside of the file is that of model.json, and `damcrack inspect` takes it."""
    detector = OnnxDetector.load(world / "out/model.onnx")
    description = json.loads((world / "out/model.json").read_text())
    assert {name: description[name] for name in detector.contract} == detector.contract
    assert detector.tile_px == 64


def test_maps_are_enlarged_by_constant_factors(world):
    """Onnxruntime has a fast way for them; sizes that the graph computes take four times as long."""
    graph = onnx.load(world / "out/model.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}
    inputs = [list(node.input) for node in graph.node if node.op_type == "Resize"]
    assert [[constants[scales], *sizes] for _, _, scales, *sizes in inputs] == [[[1, 1, 2, 2]]] * 4


def test_half_precision_halves_the_file_and_hardly_moves_it(world):
    """Weights are stored in half; probabilities move by less than a hundredth, and the report says by how much."""
    exact, stored = ((world / "out" / name).stat().st_size for name in ("weights.safetensors", "model.onnx"))
    assert stored < 0.52 * exact
    moved = json.loads((world / "out/parity.json").read_text())["half_precision"]
    assert 0 < moved["crack_map"] < 0.01
    assert moved["same_verdict"] == 1.0


def test_probabilities_are_calibrated_on_the_validation_split(world):
    """The temperature is the one that fits the validation tiles, and never makes them less likely."""
    calibration = json.loads((world / "out/model.json").read_text())["calibration"]
    assert calibration["num_tiles"] == 8
    assert calibration["temperature"] != 1
    assert calibration["nll_after"] <= calibration["nll_before"]


def test_a_network_that_is_right_on_all_tiles_stays_unsure(tmp_path):
    """As with few labels: the likeliest temperature would make every crack a certain one, and no two comparable."""
    write_model(tmp_path / "model", "any", seed=0)
    deployed = Deployed(*load_model(tmp_path / "model")).eval()
    images = write_tiles(tmp_path / "tiles", ["val"] * 12)
    tiles = np.stack(
        [cv2.imdecode(np.frombuffer(x, np.uint8), cv2.IMREAD_COLOR_RGB) for _, x in images.encoded()]
    )
    with torch.inference_mode():
        probs = deployed(torch.from_numpy(tiles))[0].numpy()
    rows = [row | {"label": str(int(prob > 0.5))} for row, prob in zip(images.rows, probs, strict=True)]
    found = stage._fit_calibration(deployed, replace(images, rows=tuple(rows)), 12)
    assert found["temperature"] == 1


def test_without_validation_tiles_probabilities_stay_as_they_are(world, tmp_path, monkeypatch):
    """A temperature of 1, of no tile."""
    images = write_tiles(tmp_path / "tiles", ["train"] * 2 + ["test"] * 8)
    write_model(tmp_path / "model", images.digest, seed=0)
    converted, config = (world / "out/model.onnx").read_bytes(), replace(CONFIG, max_abs_difference=1.0)
    monkeypatch.setattr(stage, "to_onnx", lambda *_: converted)
    export(tmp_path / "model", tmp_path / "tiles", tmp_path / "out", config, Run(tmp_path / "scratch"))
    found = json.loads((tmp_path / "out/model.json").read_text())["calibration"]
    assert found == {"temperature": 1.0, "num_tiles": 0}


def test_parity_is_reported(world):
    """The report says on how many tiles, in which batches, and how far apart the two are."""
    parity = json.loads((world / "out/parity.json").read_text())
    assert (parity["num_tiles"], parity["batch_sizes"], parity["same_verdict"]) == (8, [1, 2, 7], 1.0)
    assert 0 <= parity["max_abs_difference"] <= CONFIG.max_abs_difference


def test_second_export_gives_the_same_bytes_and_no_traces(world):
    """The file depends on the model alone: converting again gives it, and no path or note is in it."""
    encoded = (world / "out/model.onnx").read_bytes()
    contract = OnnxDetector.load(world / "out/model.onnx").contract
    temperature = contract["calibration"]["temperature"]
    again = to_onnx(Deployed(*load_model(world / "model"), temperature).eval(), (64, 64), CONFIG.opset)
    assert with_metadata(in_half_precision(again), contract) == encoded
    for trace in (b"/usr", b"/home", b"/work", b"/tmp", b".py", b"File ", b"stack_trace", b"namespace"):
        assert trace not in header_of(encoded), trace


def header_of(encoded):
    """The file without its weights, whose bytes may spell anything."""
    model = onnx.load_from_string(encoded)
    model.ClearField("metadata_props")  # the contract, which is ours
    for weights in model.graph.initializer:
        weights.ClearField("raw_data")
    return model.SerializeToString()


def test_disagreement_writes_nothing(world, tmp_path, monkeypatch):
    """An exported file that scores unlike the model is refused before anything is written."""
    write_model(tmp_path / "other", ImageSet.open(world / "tiles").digest, seed=1)
    stale = (world / "out/model.onnx").read_bytes()
    monkeypatch.setattr(stage, "to_onnx", lambda *_: stale)
    with pytest.raises(InputError, match="differ from torch"):
        export(tmp_path / "other", world / "tiles", tmp_path / "out", CONFIG, Run(tmp_path))
    assert not (tmp_path / "out").exists()


def test_tiles_of_another_model_are_refused(world, tmp_path):
    """Parity on tiles that the model was not made for would say nothing."""
    write_model(tmp_path / "other", "0" * 64, seed=1)
    with pytest.raises(InputError, match="trained on tiles 000000000000"):
        export(tmp_path / "other", world / "tiles", tmp_path / "out", CONFIG, Run(tmp_path))


def test_a_network_without_pixel_head_is_refused(world, tmp_path):
    """An inspection needs crack pixels; the message names the value to set."""
    digest = ImageSet.open(world / "tiles").digest
    write_model(tmp_path / "plain", digest, seed=0, pixel_channels=None)
    with pytest.raises(InputError, match="pixel_channels"):
        export(tmp_path / "plain", world / "tiles", tmp_path / "out", CONFIG, Run(tmp_path))


def test_weights_that_are_no_numbers_are_refused(world, tmp_path):
    """A training may have ended so; nothing is written."""
    digest = ImageSet.open(world / "tiles").digest
    write_model(tmp_path / "nan", digest, 0, **{"pixel_head.bias": torch.tensor([torch.nan])})
    with pytest.raises(InputError, match="no numbers"):
        export(tmp_path / "nan", world / "tiles", tmp_path / "out", CONFIG, Run(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"opset": 9},
        {"parity_tiles": 6},
        {"max_abs_difference": 0.0},
        {"calibration_tiles": 0},
        {"block_px": 16},
    ],
)
def test_senseless_values_are_refused(wrong):
    """Values that mean nothing are refused by the name of their field."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)
