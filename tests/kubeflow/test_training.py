"""The compiled pipeline: its graph, its machines, its bytes; nothing runs here."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')

from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineDeploymentConfig, PipelineSpec

from damcrack.files import InputError
from damcrack.kubeflow.graph import derive, needs_of
from damcrack.kubeflow.pipeline import Setting, compile_pipeline, training

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
IMAGES = {"cpu": "damcrack-cpu@sha256:" + "a" * 64, "train": "damcrack-train@sha256:" + "b" * 64}


def setting(checkout: Path = ROOT, **changed: object) -> Setting:
    params = (ROOT / "params/demo.yaml").read_text()
    return Setting(
        checkout,
        **{"params": params, "remote": "s3://dam/dvc", "images": IMAGES, "revision": "abc", **changed},
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo set, compiled."""
    path = tmp_path_factory.mktemp("compiled") / "training.yaml"
    compile_pipeline(training(setting()), path)
    return path


def documents(path: Path) -> tuple[dict, dict]:
    spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform


def graph_in(path: Path) -> dict[str, list[str]]:
    """Stage to parents, read off the compiled tasks alone."""
    tasks = documents(path)[0]["root"]["dag"]["tasks"]
    stages = {
        name: task["inputs"]["parameters"]["stage"]["runtimeValue"]["constant"]
        for name, task in tasks.items()
        if name.startswith("run-stage")
    }
    return {
        stage: sorted(stages[one] for one in tasks[name].get("dependentTasks", []))
        for name, stage in stages.items()
    }


def test_graph_in_kubeflow_is_the_graph_written_by_hand(compiled):
    """Tasks and edges of the YAML equal the golden graph of the demo set."""
    golden = yaml.safe_load((Path(__file__).parent / "golden_demo_graph.yaml").read_text())
    assert graph_in(compiled) == {name: sorted(parents) for name, parents in golden.items()}


def test_last_task_joins_all_locks(compiled):
    """`join-lock` waits for every stage."""
    tasks = documents(compiled)[0]["root"]["dag"]["tasks"]
    assert sorted(tasks["join-lock"]["dependentTasks"]) == sorted(set(tasks) - {"join-lock"})


def test_compiling_twice_gives_the_same_bytes(compiled, tmp_path):
    """The same setting, the same file."""
    compile_pipeline(training(setting()), tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == compiled.read_bytes()


def test_compiled_pipeline_parses_strictly(compiled):
    """Unknown fields would be refused: in the spec, and in each executor, which the spec leaves free."""
    spec = documents(compiled)[0]
    json_format.ParseDict(spec, PipelineSpec())
    for executor in spec["deploymentSpec"]["executors"].values():
        json_format.ParseDict(executor, PipelineDeploymentConfig.ExecutorSpec())


def test_a_new_stage_needs_no_change_here(tmp_path):
    """A stage and a group added to dvc.yaml are in the pipeline, with their machines."""
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    graph["stages"]["polish"] = {
        "cmd": "true", "deps": ["results/export"], "outs": ["results/polish"],
        "meta": {"image": "cpu", "cpu": 3, "memory": "5Gi"},
    }  # fmt: skip
    graph["stages"]["tell"] = {
        "foreach": ["a", "b"], "do": {"cmd": "true", "deps": ["results/polish"], "outs": ["results/tell-${item}"]},
    }  # fmt: skip
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(graph))
    compile_pipeline(training(setting(tmp_path)), tmp_path / "training.yaml")
    found = graph_in(tmp_path / "training.yaml")
    assert found["polish"] == ["export"] and found["tell@a"] == found["tell@b"] == ["polish"]


def test_values_and_snapshots_travel_unchanged(tmp_path):
    """What a task gets is what params.yaml says, small numbers, line breaks and quotes included."""
    params = yaml.safe_load((ROOT / "params/demo.yaml").read_text())
    params["pretrain"]["common"]["weight_decay"] = 1e-05
    params["photos"]["sources"] = {'it\'s: a "dam"\n# no comment': "sample"}
    snapshots = {"photos": "source,name,sha256\na,it's.jpg,00\n"}
    compile_pipeline(
        training(setting(params=yaml.safe_dump(params), snapshots=snapshots)), tmp_path / "training.yaml"
    )
    given = documents(tmp_path / "training.yaml")[0]["root"]["inputDefinitions"]["parameters"]
    assert yaml.safe_load(given["params"]["defaultValue"]) == params
    assert given["snapshots"]["defaultValue"] == snapshots


def test_values_make_the_matrix(tmp_path):
    """The paper's set compiles to its own pipeline."""
    params = (ROOT / "params/paper.yaml").read_text()
    compile_pipeline(training(setting(params=params)), tmp_path / "paper.yaml")
    items = yaml.safe_load(params)["pretrain"]["items"]
    assert {f"pretrain@{item}" for item in items} <= set(graph_in(tmp_path / "paper.yaml"))


def test_machines_are_those_of_meta(tmp_path):
    """GPU count and type, memory, /dev/shm, selectors, tolerations, retries and timeout reach the pod."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    graph = yaml.safe_load((tmp_path / "dvc.yaml").read_text())
    graph["stages"]["evaluate"]["meta"] = {
        "gpu": 4, "gpu_type": "amd.com/gpu", "cpu": 16, "memory": "64Gi", "shm": "24Gi", "retries": 5, "timeout": "90m",
        "node_selector": {"damcrack/pool": "gpu"}, "tolerations": [{"key": "spot", "operator": "Exists"}],
    }  # fmt: skip
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(graph))
    compile_pipeline(training(setting(tmp_path)), tmp_path / "training.yaml")
    spec, platform = documents(tmp_path / "training.yaml")
    tasks = spec["root"]["dag"]["tasks"]
    task = next(one for one in tasks.values() if one["taskInfo"]["name"] == "evaluate")
    name = spec["components"][task["componentRef"]["name"]]["executorLabel"]
    container = spec["deploymentSpec"]["executors"][name]["container"]
    pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][name]
    assert container["image"] == IMAGES["train"]
    resources = container["resources"]
    accelerator = resources["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("amd.com/gpu", "4")
    assert (resources["resourceCpuRequest"], resources["resourceMemoryLimit"]) == ("16", "64Gi")
    assert task["retryPolicy"]["maxRetryCount"] == 5
    assert int(pod["activeDeadlineSeconds"]) == 5400
    mounts = {one["mountPath"]: one for one in pod["emptyDirMounts"]}
    assert (mounts["/dev/shm"]["medium"], mounts["/dev/shm"]["sizeLimit"]) == ("Memory", "24Gi")
    assert {one["key"] for one in pod["tolerations"]} == {"amd.com/gpu", "spot"}
    assert "damcrack/pool" in str(pod["nodeSelector"])


def test_every_task_has_an_image_a_deadline_and_retries_that_reach_it(compiled):
    """Kubeflow's cache is off everywhere; Argo's default of an hour for all attempts would kill a second training."""
    spec, platform = documents(compiled)
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for task in spec["root"]["dag"]["tasks"].values():
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        assert spec["deploymentSpec"]["executors"][label]["container"]["image"] in IMAGES.values()
        assert not task["cachingOptions"].get("enableCache")
        deadline, retries = int(pods[label]["activeDeadlineSeconds"]), task["retryPolicy"]
        longest = int(retries["backoffMaxDuration"].removesuffix("s"))
        assert longest > deadline * (retries["maxRetryCount"] + 1)


def test_no_secret_is_in_the_pipeline(tmp_path, monkeypatch):
    """With credentials in the environment of the compiler, none is in the YAML; pods get them by reference."""
    secrets = {"AWS_SECRET_ACCESS_KEY": "s3cr3t-key", "MLFLOW_TRACKING_PASSWORD": "s3cr3t-password"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    compile_pipeline(training(setting()), tmp_path / "training.yaml")
    text = (tmp_path / "training.yaml").read_text()
    assert "s3cr3t" not in text
    assert all(name in text for name in secrets) and "secretName: damcrack-s3" in text


def test_pods_are_not_root(compiled):
    """Every executor runs as user 10001 and writes to an empty folder at /tmp."""
    platform = documents(compiled)[1]
    for pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        assert int(pod["securityContext"]["runAsUser"]) == 10001 and pod["securityContext"]["runAsNonRoot"]
        assert "/tmp" in {one["mountPath"] for one in pod["emptyDirMounts"]}


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"memory": "lots"}, "memory: got 'lots'"),
        ({"gpu": "one"}, "gpu: got 'one'"),
        ({"gpu": True}, "gpu: got True"),
        ({"cpu": 0}, "cpu: got 0"),
        ({"image": "tiny"}, "image: got 'tiny'"),
        ({"restore_if": True}, "restore_if: got True"),
        ({"timeout": "soon"}, "timeout: got 'soon'"),
        ({"timeout": "0s"}, "timeout: got '0s'"),
        (["gpu"], "got ['gpu']"),
        ({"node_selector": "gpu"}, "got node_selector 'gpu'"),
        ({"node_selector": {"pool": 1}}, "got node_selector {'pool': 1}"),
        ({"tolerations": "spot"}, "got node_selector {} and tolerations 'spot'"),
        ({"tolerations": [{"kee": "spot"}]}, "tolerations: got 'kee'"),
    ],
)
def test_wrong_needs_are_refused(meta, says):
    """Before a pipeline is made of what no pod can have; the sentence names the stage and the value."""
    with pytest.raises(InputError, match=f"meta of tile: {re.escape(says)}"):
        needs_of("tile", meta)


def test_derived_parents_come_first():
    """Each stage stands behind its parents, in one fixed order."""
    nodes, again = (derive(ROOT, (ROOT / "params/demo.yaml").read_text()) for _ in range(2))
    seen: set[str] = set()
    for node in nodes:
        assert set(node.parents) <= seen
        seen.add(node.name)
    assert [one.name for one in nodes] == [one.name for one in again]


def test_images_hold_the_locked_versions():
    """What an image installs is a part of lock.txt, at the same version; the slim one has no torch."""

    def versions(name: str) -> set[str]:
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        return {
            line.split(" ;")[0].rstrip("\\ ") for line in lines if re.match(r"[a-z0-9_.-]+==", line, re.I)
        }

    lock = versions("lock.txt")
    assert versions("image-cpu.txt") < versions("image-train.txt") < lock
    assert versions("image-mlflow.txt") < lock
    assert not {line for line in versions("image-cpu.txt") if line.startswith(("torch", "nvidia", "triton"))}


def test_more_stages_than_a_run_can_join_are_refused(tmp_path: Path) -> None:
    """Their lock parts together would not fit into one argument, which a run would find at its very end."""
    stage = {"foreach": "${a.items}", "do": {"cmd": "echo ${key}", "outs": ["${key}"]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"a": stage}}))
    for num, fits in ((50, True), (51, False)):
        params = yaml.safe_dump({"a": {"items": {f"i{number}": {"n": 1} for number in range(num)}}})
        if fits:
            training(setting(tmp_path, params=params))
            continue
        with pytest.raises(InputError, match="51 stages"):
            training(setting(tmp_path, params=params))
