from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from damcrack.files import InputError, read_csv
from damcrack.imagery import calls as imagery
from walls import write_darkness_detector

pytest.importorskip("kfp", reason='needs pip install "damcrack[cluster]"')
from kfp import compiler, dsl, local

from damcrack.kubeflow import cluster
from damcrack.kubeflow.new_imagery import new_imagery
from damcrack.kubeflow.pipeline import NAME, Setting, training

# They say that a process is not the image, and that limits and retries do not hold there.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_dump({"inspect": yaml.safe_load((ROOT / "params.yaml").read_text())["inspect"]})


@dsl.component(base_image="damcrack-train", install_kfp_package=False)
def write_down(params: str, remote: str, snapshots: dict) -> None:
    """Stands where the training graph is put in: notes what it was given."""
    from pathlib import Path

    place = Path(snapshots["photos"]).parents[2] / "trained-on.txt"
    told = f"{remote} {sorted(snapshots)} {snapshots['photos']}\n"
    place.write_text(place.read_text() + told if place.is_file() else told)


def build():
    others = {"miniimagenet": "source,name,size_bytes,sha256\n"}
    setting = Setting(ROOT, PARAMS, "s3://dvc", {"cpu": "damcrack-cpu:test"}, "", others)
    return new_imagery(setting, "incoming: a\nstore: b\n", write_down)


def picture(number):
    return np.random.default_rng(number).integers(120, 200, (40, 40, 3), dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The pipeline as YAML."""
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compiler.Compiler().compile(build(), str(path))
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the pipeline in processes of this machine; returns the names of the tasks that ran."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    for name in ("incoming", "temporary"):
        (tmp_path / name).mkdir()
    model = write_darkness_detector(tmp_path / "model.onnx", tile_px=32)
    places = {name: str(tmp_path / name) for name in ("incoming", "store")}
    text = yaml.safe_dump(places | {"min_side_px": 32, "train_after_labels": 2})

    def once():
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "kfp"))
        build()(imagery=text, model=str(model))

    return once


@pytest.mark.slow
def test_the_pipeline_runs_only_what_there_is_to_do(run, tmp_path):
    """Nothing new: one task. New photos: inspected. Enough labels: one training, on the snapshot of all photos.

    As processes the tasks run in somebody's checkout, and must leave its values alone, and no temporary folder.
    """
    store, trained_on = tmp_path / "store", tmp_path / "trained-on.txt"
    own = [tmp_path / name for name in ("imagery.yaml", "params.yaml")]
    for file in own:
        file.write_text("ours: 1\n")
    run()
    assert not store.is_dir() or not any(path.is_file() for path in store.rglob("*"))
    for number in range(2):
        save(tmp_path / f"incoming/{number}.png", picture(number))
    run()
    assert [path.name for path in (store / "inspected").iterdir()] == ["00000001.json"]
    assert not trained_on.exists()
    for number in range(2):
        save(tmp_path / f"incoming/masks/{number}.png", np.eye(40, k=number, dtype=np.uint8) * 255)
    run()
    remote, *names, snapshot = trained_on.read_text().split()
    assert (remote, names) == ("s3://dvc", ["['miniimagenet',", "'photos']"])
    assert len(read_csv(Path(snapshot))) >= 4
    assert [path.name for path in (store / "trained").iterdir()] == ["00000002.json"]
    run()
    assert len(trained_on.read_text().splitlines()) == 1
    assert [file.read_text() for file in own] == ["ours: 1\n"] * 2
    assert not list((tmp_path / "temporary").glob("damcrack-*"))


@pytest.mark.slow
def test_photos_that_came_while_a_run_hung_are_taken_in_by_the_next(run, tmp_path, monkeypatch):
    """The run that was stopped between take-in and report left its batch; the next adds the new photos, each once."""
    save(tmp_path / "incoming/0.png", picture(0))
    model = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(RuntimeError):
        run()
    store = tmp_path / "store"
    assert list((store / "catalogue").iterdir()) and not (store / "inspected").is_dir()
    (tmp_path / "model.onnx").write_bytes(model)
    for number in range(3):
        save(tmp_path / f"incoming/again-{number}.png", picture(number))
    run()
    assert len(list((store / "accepted/photos").iterdir())) == 3
    reports = [yaml.safe_load(path.read_text()) for path in (store / "inspected").iterdir()]
    assert sorted(len(report["photos"]) for report in reports) == [1, 2]


def test_the_compiled_pipeline_is_the_same_every_time_and_caches_nothing(compiled, tmp_path):
    """Every task looks at the bucket again, in our image, and is tried again."""
    compiler.Compiler().compile(build(), str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_bytes() == compiled.read_bytes()
    spec = next(yaml.safe_load_all(compiled.read_text()))
    executors = spec["deploymentSpec"]["executors"]
    images = {one["container"]["image"] for name, one in executors.items() if "write-down" not in name}
    assert images == {"damcrack-cpu:test"}
    dags = [spec["root"], *(one for one in spec["components"].values() if "dag" in one)]
    tasks = {name: task for dag in dags for name, task in dag["dag"]["tasks"].items()}
    ours = {name: tasks[name] for name in ("take-in", "inspect-new", "snapshot-new", "note-trained")}
    assert not any(task["cachingOptions"].get("enableCache") for task in ours.values())
    assert all(task["retryPolicy"]["maxRetryCount"] == 2 for task in ours.values())
    assert tasks["note-trained"]["dependentTasks"] == ["snapshot-new", "write-down"]


def test_nothing_hangs_for_ever(compiled):
    """Each task has a deadline, polling one of an hour at most; a run has one too, for a pod that no node takes."""
    _, platform = yaml.safe_load_all(compiled.read_text())
    kubernetes = platform["platforms"]["kubernetes"]
    pods = kubernetes["deploymentSpec"]["executors"]
    deadlines = {name: int(pod["activeDeadlineSeconds"]) for name, pod in pods.items()}
    assert {name: deadline <= 3600 for name, deadline in deadlines.items()} == {
        "exec-take-in": True,
        "exec-snapshot-new": True,
        "exec-note-trained": True,
        "exec-inspect-new": False,
    }
    longest = int(kubernetes["pipelineConfig"]["activeDeadlineSeconds"])
    assert max(deadlines.values()) < longest <= 7 * 86400


@pytest.mark.parametrize(
    ("sources", "got"),
    [({"incoming": "s3://b/elsewhere"}, "elsewhere"), ({"sample": "sample"}, "None"), (None, "None")],
)
def test_values_that_do_not_read_what_is_taken_in_are_refused(sources, got):
    """Before a run is started that would train on nothing new."""
    config = imagery.ImageryConfig("s3://b/incoming", "s3://b/imagery/")
    imagery.check_source(config, {"photos": {"sources": {"incoming": "s3://b/imagery/accepted"}}})
    with pytest.raises(InputError, match=rf"photos\.sources\.incoming: got .*{got}.*fix params.yaml"):
        imagery.check_source(config, {"photos": {"sources": sources}})


def test_photos_without_a_label_are_counted_only_where_they_teach():
    """A training on them is refused before it runs if its graph cuts no tiles of them, or its student sees none."""
    config = imagery.ImageryConfig("s3://b/incoming", "s3://b/imagery", train_after_photos=100)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["photos"]["sources"]["incoming"] = "s3://b/imagery/accepted"
    student = params["finetune"]["shipped"]["lite0-detector"]
    for tiles, share in ((0, 0.25), (1000, 0.0)):
        params["tile"]["unlabelled_tiles"], student["unlabelled_share"] = tiles, share
        with pytest.raises(InputError, match="train_after_photos"):
            imagery.check_source(config, params)
    params["tile"]["unlabelled_tiles"], student["unlabelled_share"] = 1000, 0.25
    imagery.check_source(config, params)


def test_pods_get_their_secrets_by_name(compiled):
    """Each task of ours names settings and secrets of infra/kubernetes, all keys that its files list; no value."""
    _, platform = yaml.safe_load_all(compiled.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(executors) == 4
    rendered = (ROOT / "infra/kubernetes/base/services.env").read_text()
    assert all(f"{key}=" in rendered for key in cluster.REQUIRED)
    assert all(cluster.SETTINGS in str(executor["configMapAsEnv"]) for executor in executors.values())
    example = yaml.safe_load_all((ROOT / "infra/kubernetes/secrets.example.yaml").read_text())
    ours = [one for one in example if one["metadata"]["namespace"] == "damcrack"]
    wanted = {one["metadata"]["name"]: set(one["stringData"]) for one in ours}
    for executor in executors.values():
        named = {
            one["secretName"]: {pair["secretKey"] for pair in one["keyToEnv"]}
            for one in executor["secretAsEnv"]
        }
        assert named == wanted


@pytest.mark.slow
def test_the_training_is_the_pipeline_of_the_graph(tmp_path):
    """As a part, with every task that it has alone, on the kept snapshot, and noted only when it is through."""
    images = {"cpu": "damcrack-cpu:test", "train": "damcrack-train:test"}
    setting = Setting(ROOT, (ROOT / "params.yaml").read_text(), "s3://dvc", images, "revision")
    compiler.Compiler().compile(new_imagery(setting, "incoming: a\nstore: b\n"), str(tmp_path / "p.yaml"))
    spec = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))
    dags = {name: one["dag"]["tasks"] for name, one in spec["components"].items() if "dag" in one}
    part = dags[f"comp-{NAME}"]
    alone = training(setting).pipeline_spec.root.dag.tasks
    assert set(part) == set(alone)
    (around,) = [tasks for tasks in dags.values() if NAME in tasks]
    assert NAME in around["note-trained"]["dependentTasks"]
    given = around[NAME]["inputs"]["parameters"]["snapshots"]
    assert given["taskOutputParameter"]["producerTask"] == "snapshot-new"
