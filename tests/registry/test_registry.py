"""The registry on a real MLflow server over HTTP, started here."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from damcrack.cli.main import cli
from damcrack.files import OUTPUT_MARKER, InputError, read_csv, sha256_file
from damcrack.params import flatten
from damcrack.registry.champion import carry_out, champion_before, history, present_champion, roll_back
from damcrack.registry.lineage import of_photo, of_version
from damcrack.registry.model_names import model_folder
from damcrack.registry.register import read_entry, register, why_register_again
from damcrack.registry.registry import MlflowRegistry, records_of
from damcrack.run import Run
from damcrack.tracking.recorded import start_run
from detectors import CONFIG, cut_tiles, draw_photos, write_evaluation, write_export

pytest.importorskip("mlflow")
from mlflow.artifacts import download_artifacts

pytestmark = pytest.mark.slow

FAIR, BETTER, BEST = 80, 110, 140  # detectors of lines darker than this
WEIGHTS = {"distill": "a" * 64, "teacher": "b" * 64}
SCORE_RAW_TILES = """
import sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/dam@champion")
for batch in (1, 2, 7, 33):
    tiles = np.full((batch, 32, 32, 3), 168, np.uint8)
    tiles[::2, 16] = 20
    scored = model.predict(tiles)
    assert scored["crack_map"].shape == (batch, 16, 16)
    np.testing.assert_allclose(scored["crack_prob"], (np.arange(batch) + 1) % 2, atol=1e-4)
assert "torch" not in sys.modules
print("scored")
"""


@pytest.fixture(scope="module")
def server(mlflow_server, tmp_path_factory):
    """A folder with photos, tiles and exports, whose runs and models go to the server."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in (mlflow_server.account | {"DAMCRACK_TRACK": "later"}).items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        cut_tiles(draw_photos(folder / "photos", num=24), folder / "tiles")
        for threshold in (FAIR, BETTER, BEST):
            write_inputs(folder, threshold)
        yield folder


def write_inputs(folder, threshold):
    parents = {"parents": {"init_sha256": WEIGHTS["distill"], "teacher_sha256": None}}
    export = write_export(folder / f"export-{threshold}", threshold, **parents)
    write_evaluation(folder / f"evaluation-{threshold}", export)


def put(folder, name, threshold, registry=None, out=None):
    inputs = "photos", "tiles", f"evaluation-{threshold}", f"export-{threshold}"
    return register(
        *(folder / part for part in inputs),
        folder / (out or f"out-{name}"),
        replace(CONFIG, model_name=name),
        registry or MlflowRegistry(),
        None,
        Run(),
    )


def client():
    return MlflowRegistry().client


def alias(name):
    return client().get_registered_model(name).aliases.get("champion")


def call(*command):
    """Run a command of the command line here; importing MLflow again takes longer than all of it."""
    done = CliRunner().invoke(cli, command)
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


def seed(folder, name, *thresholds):
    """Register versions and make each champion in turn, without the gate."""
    for number, threshold in enumerate(thresholds):
        metrics, export = folder / f"evaluation-{threshold}/metrics.json", folder / f"export-{threshold}"
        version = MlflowRegistry().add(read_entry(metrics, export, folder / "out-dam", name))
        record = {"model_name": name, "version": version, "decision": "promoted", "reason": "seed"}
        carry_out(MlflowRegistry(), record | {"champion_before": str(number) if number else None})


def steps(name):
    return history(MlflowRegistry().records(name), MlflowRegistry().aliased(name, "champion"))


def killed(function):
    """Run a function in a process of its own, which has MLflow loaded already; it is killed before it ends."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def dam(server):
    """Model `dam`: version 1, then version 2, which took over; version 2 registered twice, its makers known."""
    with start_run("pretrain", "resnet50", {}, {}) as run:
        run.finish_outputs(WEIGHTS["teacher"])
    with start_run("distill", "dynamic", {}, {}) as run:
        run.finish_outputs(WEIGHTS["distill"], teacher_sha256=WEIGHTS["teacher"])
    with start_run("finetune", "dynamic", {}, {"damcrack.graph_run": "tuesday"}) as run:
        run.dataset("tiles", "d" * 64, "tiles", "training")
        weights = sha256_file(server / f"export-{BETTER}/weights.safetensors")
        run.finish_outputs(weights, init_sha256=WEIGHTS["distill"])
    (server / "dvc.lock").write_text("schema: '2.0'\n")
    first, second, again = (put(server, "dam", threshold) for threshold in (FAIR, BETTER, BETTER))
    outcomes = [summary["decision"].split(":")[0] for summary in (first, second, again)]
    assert outcomes == ["promoted", "promoted", "kept"]
    assert again["model"] == second["model"] == "dam version 2 (dynamic)"
    return server


def test_better_version_became_champion(dam):
    """The server's champion is version 2, by comparison with version 1; the same files are no new version."""
    assert len(client().search_model_versions("name = 'dam'")) == 2
    aliases = client().get_registered_model("dam").aliases
    assert {name: str(number) for name, number in aliases.items()} == {"champion": "2", "challenger": "2"}


def test_record_of_the_decision(dam):
    """The version carries scores, digests, code and who decided, in one tag for the one decision about it."""
    (record,) = records_of(client().get_model_version("dam", "2"))
    assert record["decision"] == "promoted" and record["champion_before"] == "1"
    assert record["by"]["command"] == "damcrack register" and record["by"]["user"]
    assert record["evaluation_set"]["sha256"] and record["code"]["code_version"] and record["at"]
    assert record["gain"]["photos"]["low"] > 0 and record["policy"]["confidence"] == 0.95


def test_version_holds_the_exported_bytes_and_the_card_and_nothing_to_unpickle(dam):
    """Each file is the exported one; the card is beside it, its start is the description; the flavour is ONNX alone."""
    version = client().get_model_version("dam", "2")
    folder = Path(download_artifacts(version.source, tracking_uri=os.environ["MLFLOW_TRACKING_URI"]))
    files = {path.name: path for path in folder.rglob("*") if path.is_file()}
    assert files.keys() >= {"input_example.json", "card.html", "card.md", "dvc.lock", "failures.jpg"}
    for name, sha256 in json.loads(version.tags["files"]).items():
        assert sha256_file(files[name]) == sha256
    assert sha256_file(dam / f"export-{BETTER}/model.onnx") == version.tags["onnx_sha256"]
    assert version.description.startswith("# Model card: dynamic")
    flavours = yaml.safe_load(files["MLmodel"].read_text())["flavors"]
    assert set(flavours) == {"onnx", "python_function"}
    assert flavours["python_function"]["loader_module"] == "mlflow.onnx"
    assert not {Path(name).suffix for name in files} & {".pkl", ".pickle", ".pt", ".pth", ".joblib"}


def test_loads_in_a_fresh_process_and_scores_any_batch(dam):
    """Raw uint8 tiles in batches of 1, 2, 7 and 33 are scored in a process without us and torch."""
    command = [sys.executable, "-c", SCORE_RAW_TILES, os.environ["MLFLOW_TRACKING_URI"]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "scored", done.stderr


def test_lineage_of_a_version(dam):
    """From the version to weights, lock, data and, by hashes, to fine-tuning, distillation and teacher."""
    found = of_version(MlflowRegistry(), "dam", "2")
    names = [run["run"] for run in found["runs"]]
    assert names == ["finetune@dynamic", "distill@dynamic", "pretrain@resnet50"]
    assert found["runs"][0]["graph_run"] == "tuesday" and found["runs"][0]["data"] == {"tiles": "d" * 64}
    assert found["weights_sha256"] == sha256_file(dam / f"export-{BETTER}/weights.safetensors")
    assert found["dvc_lock_sha256"] == sha256_file(dam / "dvc.lock")
    assert found["data_digest"] == "d" * 64 and "champion" in found["aliases"]


def test_lineage_of_a_photo(dam):
    """A training photo leads to both versions and the run; a test photo to none."""
    trained = read_csv(dam / "out-dam/photos.csv")[0]["sha256"]
    models = [row["model"] for row in of_photo(MlflowRegistry(), trained)]
    assert {"dam version 1", "dam version 2"} <= set(models)
    assert any(model.startswith("run finetune@dynamic") for model in models)
    tested = read_csv(dam / "out-dam/evaluation-set/tiles.csv")[0]["photo_sha256"]
    assert list(of_photo(MlflowRegistry(), tested)) == []
    code, shown = call("lineage", str(dam / "photos/photos/wall/000.png"))
    assert code == 0 and sha256_file(dam / "photos/photos/wall/000.png") in shown


def test_inspection_uses_the_champion_and_after_a_rollback_the_one_before(dam):
    """`damcrack inspect --model models:/NAME@champion` runs version 2, and after `damcrack rollback` version 1."""
    model = ["--model", "models:/dam@champion"]
    photo = str(dam / "photos/photos/wall/001.png")

    def inspected(out):
        code, shown = call("inspect", photo, *model, "--out", out)
        assert code == 0, shown
        return json.loads((dam / out / "survey.json").read_text())["model_sha256"]

    onnx = [sha256_file(dam / f"export-{threshold}/model.onnx") for threshold in (FAIR, BETTER)]
    assert inspected("survey-2") == onnx[1]
    code, shown = call("rollback", "--model-name", "dam", "--reason", "missed a crack at block 12")
    assert code == 0 and "dam version 1" in shown
    assert inspected("survey-1") == onnx[0]
    code, shown = call("history", "--model-name", "dam", "--json")
    rows = [(row["version"], row["decision"], row["after"]) for row in json.loads(shown)]
    assert rows == [("1", "promoted", "1"), ("2", "promoted", "2"), ("1", "rolled back", "1")]
    assert json.loads(shown)[2]["reason"] == "missed a crack at block 12"
    code, shown = call("history", "--model-name", "dam")
    assert code == 0 and "rolled back" in shown and "block 12" in shown
    code, shown = call("lineage", "dam/1", "--json")
    found = json.loads(shown)
    assert found["decisions"][-1]["decision"] == "rolled back" and len(found["evaluation_set_sha256"]) == 64
    decision = put(dam, "dam", BETTER)["decision"]
    assert decision.startswith("refused") and "missed a crack at block 12" in decision


def test_promote_command_decides_like_the_stage(dam):
    """`damcrack promote` compares a version on the named set, and shows every check."""
    seed(dam, "promoted", FAIR, BETTER)
    (dam / "params.yaml").write_text(yaml.safe_dump({"register": flatten(CONFIG)}))
    where = ["--evaluation-set", str(dam / "out-dam/evaluation-set")]
    code, shown = call("promote", "promoted/1", *where)
    assert code == 0 and "kept: " in shown and "FAIL" in shown, shown
    code, shown = call("promote", "promoted@champion", *where, "--sha256", "0" * 64)
    assert code == 1 and "expected 000000000000" in shown
    assert str(alias("promoted")) == "2"


def test_whether_registering_again_would_change_anything(dam):
    """It would not right after it; it would once the registry is another, or decided otherwise since."""

    def why(threshold, **changed):
        path = dam / f"out-again-{threshold}/register.json"
        written = json.loads(path.read_text())
        changed = {name: written[name] | value for name, value in changed.items()}
        path.write_text(json.dumps(written | changed))
        try:
            return why_register_again(path.parent, MlflowRegistry())
        finally:
            path.write_text(json.dumps(written))

    def put_again(threshold):
        return put(dam, "again", threshold, out=f"out-again-{threshold}")

    put_again(FAIR)
    assert why(FAIR) is None
    put_again(BETTER)  # becomes champion
    assert why(BETTER) is None
    assert "alias challenger" in why(FAIR)
    put_again(FAIR)  # is compared with the new champion, and not promoted
    assert why(FAIR) is None and "alias challenger" in why(BETTER)
    assert "not yet compared" in why(FAIR, policy={"min_gain": 0.5})
    assert "not yet compared" in why(FAIR, evaluation_set={"sha256": "e" * 64})
    roll_back("again", "for a test", None, MlflowRegistry())
    assert why(FAIR) is None  # it is champion now
    put_again(BETTER)
    assert why(BETTER) is None  # rolled back: it would be refused again
    client().delete_model_version("again", "2")
    assert "no version of again holds these files" in why(BETTER)
    (dam / "elsewhere").mkdir()
    for folder in ("nowhere", "elsewhere", f"out-again-{FAIR}"):  # the last one's alias went with version 2
        (dam / "elsewhere/register.json").write_text('{"format": 2}')
        assert call("registered", str(dam / folder))[0] == 1
    MlflowRegistry().set_alias("again", "challenger", "1")
    assert call("registered", str(dam / f"out-again-{FAIR}"))[0] == 0


@pytest.mark.parametrize("killed_before", ["write_record", "set_alias"])
def test_killed_rollback(dam, killed_before):
    """A process killed by the system before either write leaves the champion; the same command ends as if alone."""
    name = f"killed-{killed_before}"
    seed(dam, name, FAIR, BETTER)
    dying = type("Dying", (MlflowRegistry,), {killed_before: kill})
    killed(partial(roll_back, name, "missed a crack", None, dying()))
    assert present_champion(MlflowRegistry(), name) == str(alias(name)) == "2"
    assert champion_before(MlflowRegistry().records(name), "2") == "1"
    roll_back(name, "missed a crack", None, MlflowRegistry())
    assert str(alias(name)) == "1"
    assert [step.after for step in steps(name) if step.before != step.after] == ["1", "2", "1"]


def test_killed_promotion(dam):
    """Killed between record and alias, the stage leaves the champion; run again, it promotes the same version."""

    class Dying(MlflowRegistry):
        def set_alias(self, model_name, alias, version):
            if alias == "champion":
                kill()
            super().set_alias(model_name, alias, version)

    seed(dam, "killed", FAIR)
    killed(partial(put, dam, "killed", BETTER, Dying()))
    assert str(alias("killed")) == "1"
    assert [(step.decision, step.after) for step in steps("killed")] == [("promoted", "1")] * 2
    assert put(dam, "killed", BETTER)["decision"].startswith("promoted")
    assert str(alias("killed")) == "2" and len(client().search_model_versions("name = 'killed'")) == 2


def test_changed_artifact_is_refused_by_name(dam, mlflow_server):
    """A file changed in the artifact store is named, is not used, and moves nothing, for inspection or promotion."""
    seed(dam, "tampered", FAIR)
    stored = (mlflow_server.folder / "state/artifacts").rglob("model.onnx")
    (path,) = (path for path in stored if source_of("tampered") in str(path))
    path.write_bytes(path.read_bytes().replace(b"resnet18", b"resnet66"))
    with pytest.raises(InputError, match=r"model\.onnx of tampered version 1 was changed"):
        model_folder("models:/tampered@champion")
    with pytest.raises(InputError, match=r"model\.onnx of tampered version 1 was changed"):
        put(dam, "tampered", BETTER)
    assert str(alias("tampered")) == "1" and len(client().search_model_versions("name = 'tampered'")) == 1


def test_a_model_that_nobody_approved_is_not_loaded(dam, monkeypatch, tmp_path):
    """Whoever may move the alias and write the hashes of a version cannot approve it: that lies in another store."""
    seed(dam, "approved", FAIR)
    monkeypatch.setenv("DAMCRACK_APPROVED", str(tmp_path))
    with pytest.raises(InputError, match="is not approved"):
        model_folder("models:/approved@champion")
    (tmp_path / sha256_file(dam / f"export-{FAIR}/model.onnx")).touch()
    assert (model_folder("models:/approved@champion") / "model.onnx").is_file()


def source_of(name):
    return client().get_model_version(name, "1").source.removeprefix("models:/")


def test_kept_copy_is_checked_every_time(dam):
    """A copy that was changed on this machine, or of which a part is gone, is fetched again."""
    fetched = MlflowRegistry().fetch("dam", "1") / "model.onnx"
    for part in ("model.json", OUTPUT_MARKER):
        fetched.write_bytes(b"changed")
        (fetched.parent / part).unlink()
        assert MlflowRegistry().fetch("dam", "1") == fetched.parent
        assert sha256_file(fetched) == sha256_file(dam / f"export-{FAIR}/model.onnx")


def test_champion_that_was_deleted(dam):
    """An alias that pointed to a deleted version: one sentence with the way back, which works."""
    seed(dam, "deleted", FAIR, BETTER)
    client().delete_model_version("deleted", "2")
    for attempt in (lambda: put(dam, "deleted", BEST), lambda: model_folder("models:/deleted@champion")):
        with pytest.raises(InputError, match=r"rollback"):
            attempt()
    assert alias("deleted") is None and len(client().search_model_versions("name = 'deleted'")) == 1
    code, shown = call("rollback", "--model-name", "deleted", "--reason", "2 was deleted")
    assert code == 0 and str(alias("deleted")) == "1", shown


def test_alias_set_by_hand(dam):
    """An alias set past the gate is not undone: the history shows it, and the next model is compared with it."""
    seed(dam, "hand", FAIR)
    metrics, export = dam / f"evaluation-{BETTER}/metrics.json", dam / f"export-{BETTER}"
    version = MlflowRegistry().add(read_entry(metrics, export, dam / "out-dam", "hand"))
    client().set_registered_model_alias("hand", "champion", version)
    assert put(dam, "hand", FAIR)["decision"].startswith("kept")
    shown = [(step.version, step.decision, step.after) for step in steps("hand")]
    assert shown == [("1", "promoted", "1"), ("2", "unrecorded", "2"), ("1", "kept", "2")]
    client().delete_registered_model_alias("hand", "champion")
    with pytest.raises(InputError, match=r"rollback"):
        put(dam, "hand", BEST)


def test_version_made_by_hand_is_not_trusted(dam):
    """A version without hashes cannot be checked, so it is refused by name."""
    client().create_registered_model("foreign")
    model_id = source_of("dam")
    client().create_model_version("foreign", source=f"models:/{model_id}", model_id=model_id)
    with pytest.raises(InputError, match=r"foreign version 1 carries no hashes"):
        MlflowRegistry().fetch("foreign", "1")
    with pytest.raises(InputError, match=r"foreign has no version 7"):
        MlflowRegistry().fetch("foreign", "7")


def test_tags_of_others_are_no_decisions_and_no_hashes(dam):
    """A note that somebody wrote on a version stops no history, no rollback and no search for a photo."""
    seed(dam, "noted", FAIR, BETTER)
    for version in ("1", "2"):
        client().set_model_version_tag("noted", version, "decision.by", "Mrs Miller")
    client().create_model_version("noted", "models:/dam/1", tags={"files": "see the shelf"})
    assert [step.after for step in steps("noted")] == ["1", "2"]
    photo = sorted((dam / "photos/photos/wall").iterdir())[0]
    assert call("lineage", str(photo))[0] == 0
    code, said = call("lineage", "3", "--model-name", "noted")
    assert code == 0 and "files: {}" in said
    assert call("rollback", "--model-name", "noted", "--reason", "late")[0] == 0
    assert str(alias("noted")) == "1"


def test_a_version_has_one_number(dam):
    """Written 02 it is version 2: a decision about it is found again, and no champion replaces itself."""
    seed(dam, "numbered", FAIR)
    assert MlflowRegistry().version_at("01", "numbered") == MlflowRegistry().version_at("numbered/1")
    assert call("rollback", "--model-name", "numbered", "--reason", "x", "--to", "01")[0] == 1
    assert call("rollback", "--model-name", "numbered", "--reason", "x", "--to", "v1")[0] == 2
    assert len(steps("numbered")) == 1


def test_unreachable_registry(server, monkeypatch, tmp_path):
    """A registry that is away is named without its password, with what to do, and no output is left."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"http://127.0.0.1:9 .*run the same command again") as caught:
        put(server, "away", FAIR)
    assert "secret" not in str(caught.value)
    assert not (server / "out-away").exists()
