import json
from dataclasses import replace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from damcrack.engine.detector import Detector
from damcrack.engine.locator import Locator
from damcrack.engine.networks import NETWORKS, build_network
from damcrack.engine.weights import ModelInfo, load_model, save_model
from damcrack.errors import InputError
from damcrack.images.imageset import ImageSet, ImageSetWriter
from damcrack.outputs import sha256_file
from damcrack.stages import export as stage
from damcrack.stages.export import ExportConfig, export
from damcrack.stages.export_onnx import to_onnx, with_metadata
from damcrack.stages.inspection.detector import OnnxDetector
from damcrack.stages.run import SilentRun

CONFIG = ExportConfig(
    experiment="model", opset=20, parity_tiles=8, max_abs_difference=1e-3, calibration_tiles=8
)


def info_of(name, digest, network="resnet18", image_px=32):
    return ModelInfo(
        name=name,
        network=network,
        classes=("no crack", "crack"),
        image_px=image_px,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        data_digest=digest,
        init_sha256="a" * 64,
        teacher_sha256=None,
        best_epoch=1,
        config={},
    )


def write_model(folder, digest, seed):
    info = info_of(folder.name, digest)
    folder.mkdir()
    save_model(folder, info, build_network("resnet18", 2, seed).state_dict(), {"x": torch.zeros(1)})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Ten tiles of 64 px, a model of them, and its export."""
    root = tmp_path_factory.mktemp("export")
    rng, writer = np.random.default_rng(0), ImageSetWriter(root / "tiles")
    for number in range(10):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        encoded = cv2.imencode(".jpg", pixels)[1].tobytes()
        writer.add(f"{number}.jpg", encoded, label=number % 2, split="test" if number > 1 else "train")
    writer.finish("tiles.csv", ("no crack", "crack"), (64, 64))
    write_model(root / "model", ImageSet.open(root / "tiles").digest, seed=0)
    export(root / "model", root / "tiles", root / "out", CONFIG, SilentRun(root / "scratch"))
    return root


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_onnx_scores_raw_tiles_like_torch(world, batch_size):
    """Raw uint8 tiles give the detector's probabilities and logits, whatever the batch size."""
    tiles = np.random.default_rng(1).integers(0, 256, (batch_size, 64, 64, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(world / "out/model.onnx", providers=["CPUExecutionProvider"])
    crack_prob, logits = session.run(["crack_prob", "logits"], {"tiles": tiles})
    with torch.inference_mode():
        expected = Detector(*load_model(world / "model")).eval()(torch.from_numpy(tiles))
    assert crack_prob.shape == (batch_size,)
    np.testing.assert_allclose(crack_prob, expected[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(logits, expected[1].numpy(), atol=1e-4)


def test_tiles_can_be_seen_larger_than_in_training(world, tmp_path):
    """A model of 32 px exported for 64 px is torch's at 64 px, and says so; a side that does not divide is refused."""
    config = replace(CONFIG, image_px=64)
    export(world / "model", world / "tiles", tmp_path / "out", config, SilentRun(tmp_path))
    assert json.loads((tmp_path / "out/model.json").read_text())["image_px"] == 64
    tiles = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
    network, info = load_model(world / "model")
    with torch.inference_mode():
        expected = Detector(network, replace(info, image_px=64)).eval()(torch.from_numpy(tiles))
    np.testing.assert_allclose(session.run(["logits"], {"tiles": tiles})[0], expected[1].numpy(), atol=1e-4)
    with pytest.raises(InputError, match=r"export.image_px: 48 does not divide the tiles' side, 64"):
        export(
            world / "model",
            world / "tiles",
            tmp_path / "no",
            replace(CONFIG, image_px=48),
            SilentRun(tmp_path),
        )


def test_folder_holds_files_that_name_each_other(world):
    """One ONNX file without outside data, with its hash, parents, inputs and outputs in model.json."""
    names = {path.name for path in (world / "out").iterdir()}
    assert names == {"model.onnx", "model-int8.onnx", "model.json", "weights.safetensors", "parity.json"}
    description = json.loads((world / "out/model.json").read_text())
    assert description["onnx_sha256"] == sha256_file(world / "out/model.onnx")
    assert description["int8_sha256"] == sha256_file(world / "out/model-int8.onnx")
    assert description["weights_sha256"] == sha256_file(world / "out/weights.safetensors")
    assert description["parents"] == {"init_sha256": "a" * 64, "teacher_sha256": None}
    assert description["input"]["shape"] == ["batch", 64, 64, 3]
    session = onnxruntime.InferenceSession(world / "out/model.onnx", providers=["CPUExecutionProvider"])
    (tiles,), outputs = session.get_inputs(), session.get_outputs()
    assert (tiles.name, tiles.type, tiles.shape) == ("tiles", "tensor(uint8)", ["batch", 64, 64, 3])
    assert [(one.name, len(one.shape)) for one in outputs] == [
        (one["name"], len(one["shape"])) for one in description["outputs"]
    ]


@pytest.mark.parametrize("file", ["model.onnx", "model-int8.onnx"])
def test_each_file_says_what_it_is(world, file):
    """The contract inside of the file is that of model.json, and `damcrack inspect` takes it."""
    detector = OnnxDetector.load(world / "out" / file)
    description = json.loads((world / "out/model.json").read_text())
    assert {name: description[name] for name in detector.contract} == detector.contract
    assert detector.tile_px == 64


def test_int8_is_small_and_compared_on_the_test_split(world):
    """A quarter of the size; accuracy of both on the same tiles."""
    sizes = [(world / "out" / name).stat().st_size for name in ("model.onnx", "model-int8.onnx")]
    assert sizes[1] < 0.3 * sizes[0]
    accuracy = json.loads((world / "out/model.json").read_text())["accuracy"]
    assert (accuracy["split"], accuracy["num_tiles"]) == ("test", 8)
    assert 0 <= accuracy["same_verdict"] <= 1


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_map_is_the_logits_by_place(name):
    """For every network: the detector's logits, and a map whose mean is the crack's logit less the other's."""
    network = build_network(name, 2, 0).eval()
    for norm in (one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)):
        torch.nn.init.ones_(norm.weight)
    info = info_of("x", "0" * 64, network=name, image_px=64)
    tiles = torch.randint(
        0, 256, (2, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        crack_prob, logits, crack_map = Locator(network, info, temperature=2.0).eval()(tiles)
        expected = Detector(network, info).eval()(tiles)[1]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(crack_map.mean(dim=(1, 2)), logits[:, 1] - logits[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(crack_prob, torch.softmax(logits / 2, 1)[:, 1])
    assert crack_map.shape[1:] == ((2, 2) if name.startswith("resnet") else (1, 1))


def test_probabilities_are_calibrated_on_the_validation_split(tmp_path):
    """The temperature is the one that fits the validation tiles, and never makes them less likely."""
    rng, writer = np.random.default_rng(0), ImageSetWriter(tmp_path / "tiles")
    for number in range(24):
        encoded = cv2.imencode(".jpg", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))[1].tobytes()
        writer.add(f"{number}.jpg", encoded, label=number % 2, split=("train", "val", "test")[number % 3])
    writer.finish("tiles.csv", ("no crack", "crack"), (64, 64))
    write_model(tmp_path / "model", ImageSet.open(tmp_path / "tiles").digest, seed=0)
    export(tmp_path / "model", tmp_path / "tiles", tmp_path / "out", CONFIG, SilentRun(tmp_path / "scratch"))
    calibration = json.loads((tmp_path / "out/model.json").read_text())["calibration"]
    assert calibration["num_tiles"] == 8
    assert calibration["nll_after"] <= calibration["nll_before"]
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
    tiles = rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    crack_prob, logits = session.run(["crack_prob", "logits"], {"tiles": tiles})
    scaled = np.exp(logits / calibration["temperature"])
    np.testing.assert_allclose(crack_prob, scaled[:, 1] / scaled.sum(axis=1), rtol=1e-5)


def test_parity_is_reported(world):
    """The report says on how many tiles, in which batches, and how far apart the two are."""
    parity = json.loads((world / "out/parity.json").read_text())
    assert (parity["num_tiles"], parity["batch_sizes"], parity["same_verdict"]) == (8, [1, 2, 7], 1.0)
    assert 0 <= parity["max_abs_difference_logits"] <= CONFIG.max_abs_difference


def test_second_export_gives_the_same_bytes_and_no_traces(world):
    """The file depends on the model alone: converting again gives it, and no path or note is in it."""
    encoded = (world / "out/model.onnx").read_bytes()
    contract = OnnxDetector.load(world / "out/model.onnx").contract
    again = to_onnx(Locator(*load_model(world / "model")).eval(), (64, 64), CONFIG.opset)
    assert with_metadata(again, contract) == encoded
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
        export(tmp_path / "other", world / "tiles", tmp_path / "out", CONFIG, SilentRun(tmp_path))
    assert not (tmp_path / "out").exists()


def test_tiles_of_another_model_are_refused(world, tmp_path):
    """Parity on tiles that the model was not made for would say nothing."""
    write_model(tmp_path / "other", "0" * 64, seed=1)
    with pytest.raises(InputError, match="trained on tiles 000000000000"):
        export(tmp_path / "other", world / "tiles", tmp_path / "out", CONFIG, SilentRun(tmp_path))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("opset", (9, 8, 1e-3, 8)),
        ("parity_tiles", (20, 6, 1e-3, 8)),
        ("max_abs_difference", (20, 8, 0.0, 8)),
        ("calibration_tiles", (20, 8, 1e-3, 0)),
        ("image_px", (20, 8, 1e-3, 8, 16)),
    ],
)
def test_senseless_values_are_refused(field, values):
    """Values that mean nothing are refused by the name of their field."""
    with pytest.raises(ValueError, match=field):
        ExportConfig("model", *values)
