import json

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from damcrack.engine.detector import Detector
from damcrack.engine.networks import build_network
from damcrack.engine.weights import ModelInfo, load_model, save_model
from damcrack.errors import InputError
from damcrack.images.imageset import ImageSet, ImageSetWriter
from damcrack.outputs import sha256_file
from damcrack.stages import export as stage
from damcrack.stages.export import ExportConfig, export, to_onnx
from damcrack.stages.run import SilentRun

CONFIG = ExportConfig(experiment="model", opset=20, parity_tiles=8, max_abs_difference=1e-3)


def write_model(folder, digest, seed):
    info = ModelInfo(
        name=folder.name,
        network="resnet18",
        classes=("no crack", "crack"),
        image_px=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        data_digest=digest,
        init_sha256="a" * 64,
        teacher_sha256=None,
        best_epoch=1,
        config={},
    )
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


def test_folder_holds_four_files_that_name_each_other(world):
    """One ONNX file without outside data, with its hash, parents, inputs and outputs in model.json."""
    names = {path.name for path in (world / "out").iterdir()}
    assert names == {"model.onnx", "model.json", "weights.safetensors", "parity.json"}
    description = json.loads((world / "out/model.json").read_text())
    assert description["onnx_sha256"] == sha256_file(world / "out/model.onnx")
    assert description["weights_sha256"] == sha256_file(world / "out/weights.safetensors")
    assert description["parents"] == {"init_sha256": "a" * 64, "teacher_sha256": None}
    assert description["input"]["shape"] == ["batch", 64, 64, 3]
    session = onnxruntime.InferenceSession(world / "out/model.onnx", providers=["CPUExecutionProvider"])
    (tiles,), outputs = session.get_inputs(), session.get_outputs()
    assert (tiles.name, tiles.type, tiles.shape) == ("tiles", "tensor(uint8)", ["batch", 64, 64, 3])
    assert [(one.name, one.shape) for one in outputs] == [
        (one["name"], one["shape"]) for one in description["outputs"]
    ]


def test_parity_is_reported(world):
    """The report says on how many tiles, in which batches, and how far apart the two are."""
    parity = json.loads((world / "out/parity.json").read_text())
    assert (parity["num_tiles"], parity["batch_sizes"], parity["same_verdict"]) == (8, [1, 2, 7], 1.0)
    assert 0 <= parity["max_abs_difference_logits"] <= CONFIG.max_abs_difference


def test_second_export_gives_the_same_bytes_and_no_traces(world):
    """The file depends on the model alone: converting again gives it, and no path or note is in it."""
    encoded = (world / "out/model.onnx").read_bytes()
    assert to_onnx(Detector(*load_model(world / "model")).eval(), (64, 64), CONFIG.opset) == encoded
    for trace in (b"/", b".py", b"File ", b"stack_trace", b"namespace"):
        assert trace not in header_of(encoded), trace


def header_of(encoded):
    """The file without its weights, whose bytes may spell anything."""
    model = onnx.load_from_string(encoded)
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
    [("opset", (9, 8, 1e-3)), ("parity_tiles", (20, 6, 1e-3)), ("max_abs_difference", (20, 8, 0.0))],
)
def test_senseless_values_are_refused(field, values):
    """Values that mean nothing are refused by the name of their field."""
    with pytest.raises(ValueError, match=field):
        ExportConfig("model", *values)
