import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from damcrack.errors import InputError
from damcrack.outputs import sha256_file, write_json
from damcrack.stages.register import RegisterConfig, register
from damcrack.stages.run import SilentRun

pytest.importorskip("mlflow")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CONFIG = RegisterConfig("dam-crack-detector", min_accuracy=0.5)
WEIGHTS = {"finetune": "f" * 64, "distill": "a" * 64, "teacher": "b" * 64}
SCORE_RAW_TILES = """
import sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/dam-crack-detector@champion")
for batch in (1, 2, 7, 33):
    tiles = np.random.default_rng(batch).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
    scored = model.predict(tiles)
    assert scored["crack_prob"].shape == (batch,), scored["crack_prob"].shape
    assert scored["logits"].shape == (batch, 2)
    np.testing.assert_allclose(scored["crack_prob"], tiles.mean((1, 2, 3)) / 255, atol=1e-4)
assert "torch" not in sys.modules
print("scored")
"""


def mean_brightness_model(path):
    """Write an ONNX detector whose crack probability is the mean brightness of a raw RGB tile."""
    helper, proto = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["tiles"], ["floats"], to=proto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Div", ["means", "white"], ["crack_prob"]),
        helper.make_node("Unsqueeze", ["crack_prob", "last"], ["column"]),
        helper.make_node("Concat", ["column", "column"], ["logits"], axis=1),
    ]
    constants = {"axes": np.array([1, 2, 3]), "white": np.float32(255), "last": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("tiles", proto.UINT8, ["batch", 224, 224, 3])],
        [
            helper.make_tensor_value_info("crack_prob", proto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("logits", proto.FLOAT, ["batch", 2]),
        ],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a store of its own, an evaluation, an export and journals of the runs that made it."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        patch.setenv("DAMCRACK_TRACK", "later")
        _write_inputs(folder)
        _record_makers()
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        yield folder


def _write_inputs(folder):
    evaluation, export = folder / "evaluation", folder / "export"
    evaluation.mkdir()
    export.mkdir()
    mean_brightness_model(export / "model.onnx")
    (export / "weights.safetensors").write_bytes(b"weights")
    weights = WEIGHTS["finetune"] = sha256_file(export / "weights.safetensors")
    model = {"name": "dynamic", "weights_sha256": weights, "onnx_sha256": sha256_file(export / "model.onnx")}
    parents = {"init_sha256": WEIGHTS["distill"]}
    write_json(export / "model.json", model | {"data_digest": "d" * 64, "parents": parents})
    row = {"accuracy": 0.9, "recall": 0.8, "weights_sha256": weights}
    chosen = {"digest": "e" * 64, "split": "test", "num_tiles": 64}
    write_json(evaluation / "metrics.json", {"evaluation_set": chosen, "experiments": {"dynamic": row}})


def _record_makers():
    from damcrack.edges.tracking import start_run

    with start_run("pretrain", "resnet50", {}, {}) as run:
        run.finish_outputs(WEIGHTS["teacher"])
    with start_run("distill", "dynamic", {}, {}) as run:
        run.finish_outputs(WEIGHTS["distill"], teacher_sha256=WEIGHTS["teacher"])
    with start_run("finetune", "dynamic", {}, {}) as run:
        run.finish_outputs(WEIGHTS["finetune"], init_sha256=WEIGHTS["distill"])


@pytest.fixture(scope="module")
def registered(workspace):
    """The workspace's model registered twice."""
    from damcrack.edges.registry import MlflowRegistry

    for _ in range(2):
        summary = register(
            workspace / "evaluation",
            workspace / "export",
            workspace / "out",
            CONFIG,
            MlflowRegistry(),
            SilentRun(),
        )
    return workspace, summary


@pytest.fixture
def version(registered):
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    return client, client.get_model_version_by_alias(CONFIG.model_name, "champion")


def test_same_files_are_one_version(registered, version):
    """Registering twice leaves one version, champion and challenger."""
    client, champion = version
    assert registered[1]["model"] == "dam-crack-detector version 1 (dynamic)"
    assert len(client.search_model_versions(f"name = '{CONFIG.model_name}'")) == 1
    assert client.get_model_version_by_alias(CONFIG.model_name, "challenger").version == champion.version
    assert json.loads(champion.tags["decision"])["reason"] == "it is the champion already"


def test_version_names_its_runs_and_data(version):
    """The version leads to the run that fine-tuned it, and on through distillation to the teacher."""
    client, champion = version
    assert champion.tags["data_digest"] == "d" * 64
    assert champion.tags["evaluation_digest"] == "e" * 64
    stages = ("finetune", "distill", "pretrain")
    names = [client.get_run(champion.tags[f"run.{stage}"]).info.run_name for stage in stages]
    assert names == ["finetune@dynamic", "distill@dynamic", "pretrain@resnet50"]
    assert client.get_run(champion.run_id).info.run_name == "finetune@dynamic"
    assert all(name in champion.description for name in names)


def test_model_holds_the_exported_bytes(registered, version):
    """The registered ONNX is the exported file, with example, weights and metrics beside it."""
    from mlflow.artifacts import download_artifacts

    _, champion = version
    folder = download_artifacts(champion.source, tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    files = {name for _, _, names in os.walk(folder) for name in names}
    assert files >= {"MLmodel", "input_example.json", "weights.safetensors", "metrics.json", "model.json"}
    assert sha256_file(Path(folder) / "model.onnx") == champion.tags["onnx_sha256"]
    assert sha256_file(registered[0] / "export/model.onnx") == champion.tags["onnx_sha256"]


def test_loads_in_a_fresh_process_and_scores_any_batch(registered):
    """Raw uint8 tiles in batches of 1, 2, 7 and 33 are scored in a process without us and torch."""
    command = [sys.executable, "-c", SCORE_RAW_TILES, os.environ["MLFLOW_TRACKING_URI"]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=registered[0])
    assert done.stdout.strip() == "scored", done.stderr


def test_unreachable_registry(workspace, monkeypatch, tmp_path):
    """A registry that is away is named without its password, with what to do, and no output is left."""
    from damcrack.edges.registry import MlflowRegistry

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    inputs = workspace / "evaluation", workspace / "export"
    with pytest.raises(InputError, match=r"http://127.0.0.1:9 .*run the same command again") as caught:
        register(*inputs, tmp_path / "out", CONFIG, MlflowRegistry(), SilentRun())
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_version_whose_artifacts_are_gone_is_named_and_not_kept(registered, monkeypatch, tmp_path):
    """An empty folder in its place would be taken for the model ever after."""
    from damcrack.edges.registry import FETCHED, fetch_model

    monkeypatch.chdir(tmp_path)
    (artifacts,) = registered[0].glob("mlartifacts")
    artifacts.rename(registered[0] / "elsewhere")
    try:
        for _ in range(2):
            with pytest.raises(
                InputError, match=r"dam-crack-detector.*(holds no model.onnx|did not give the model)"
            ):
                fetch_model("models:/dam-crack-detector@champion")
            assert not any((tmp_path / FETCHED).glob("dam*"))
    finally:
        (registered[0] / "elsewhere").rename(artifacts)
    assert (fetch_model("models:/dam-crack-detector@champion") / "model.onnx").is_file()
