import json
from dataclasses import replace

import pytest

from damcrack.errors import InputError
from damcrack.outputs import sha256_bytes, write_json
from damcrack.stages.register import RegisterConfig, Registered, Scores, decide, read_entry, register
from damcrack.stages.run import SilentRun

GOOD = Scores("tiles", accuracy=0.95, recall=0.9)
CONFIG = RegisterConfig("crack", min_accuracy=0.8)


class FakeRegistry:
    def __init__(self):
        self.entries, self.aliases, self.tags = [], {}, {}

    def add(self, entry):
        keys = [(known.weights_sha256, known.onnx_sha256) for known in self.entries]
        key = (entry.weights_sha256, entry.onnx_sha256)
        if key in keys:
            return str(keys.index(key) + 1)
        self.entries.append(entry)
        return str(len(self.entries))

    def aliased(self, model_name, alias):
        version = self.aliases.get(alias)
        if version is None:
            return None
        entry = self.entries[int(version) - 1]
        return Registered(version, entry.weights_sha256, entry.scores)

    def point(self, model_name, alias, version):
        self.aliases[alias] = version

    def tag(self, model_name, version, tags):
        self.tags[version] = dict(tags)


@pytest.fixture
def make(tmp_path):
    """Write an evaluation and an export of an experiment; return their folders."""

    def made(name="dynamic", accuracy=0.95, content=b"weights"):
        evaluation, export = tmp_path / "evaluation", tmp_path / "export"
        for folder in (evaluation, export):
            folder.mkdir(exist_ok=True)
        (export / "model.onnx").write_bytes(b"onnx" + content)
        (export / "weights.safetensors").write_bytes(content)
        weights = sha256_bytes(content)
        model = {"name": name, "weights_sha256": weights, "onnx_sha256": sha256_bytes(b"onnx" + content)}
        parents = {"init_sha256": "1" * 64, "teacher_sha256": None}
        write_json(export / "model.json", model | {"data_digest": "d" * 64, "parents": parents})
        row = {"accuracy": accuracy, "recall": 0.9, "auroc": None, "weights_sha256": weights}
        chosen = {"digest": "tiles", "split": "test", "num_tiles": 64}
        write_json(
            evaluation / "metrics.json", {"format": 1, "evaluation_set": chosen, "experiments": {name: row}}
        )
        return evaluation, export

    return made


@pytest.mark.parametrize(
    ("scores", "champion", "expected", "reason"),
    [
        (GOOD, None, "promoted", "no champion"),
        (replace(GOOD, accuracy=0.79), None, "refused", "below the floor"),
        (GOOD, replace(GOOD, accuracy=0.94), "promoted", "against 0.9400"),
        (GOOD, replace(GOOD, recall=0.89), "promoted", "0.8900"),
        (GOOD, GOOD, "kept", "against 0.9500"),
        (GOOD, replace(GOOD, accuracy=0.96, recall=0.1), "kept", "against 0.9600"),
        (GOOD, replace(GOOD, evaluation_digest="others", accuracy=0.1), "kept", "another evaluation set"),
        (GOOD, Scores("tiles", float("nan"), float("nan")), "kept", "nan"),
    ],
)
def test_decision(scores, champion, expected, reason):
    """The champion moves only for strictly better scores on the same tiles, above the floor."""
    decision = decide("2", scores, champion and Registered("1", "w", champion), min_accuracy=0.8)
    assert decision.decision == expected
    assert reason in decision.reason


def test_champion_registered_again_stays(make, tmp_path):
    """Registering the same files again makes no version and leaves the same output bytes."""
    registry = FakeRegistry()
    first = register(*make(), tmp_path / "out", CONFIG, registry, SilentRun())
    content = (tmp_path / "out/register.json").read_bytes()
    again = register(*make(), tmp_path / "out", CONFIG, registry, SilentRun())
    assert first["model"] == again["model"]
    assert registry.aliases == {"challenger": "1", "champion": "1"}
    assert (tmp_path / "out/register.json").read_bytes() == content
    assert json.loads(content)["metrics"] == {"accuracy": 0.95, "recall": 0.9}


def test_worse_model_becomes_challenger_only(make, tmp_path):
    """A worse model is registered with its reason, and the champion stays where it is."""
    registry = FakeRegistry()
    register(*make(), tmp_path / "out", CONFIG, registry, SilentRun())
    register(*make("scratch", 0.9, b"other"), tmp_path / "out", CONFIG, registry, SilentRun())
    assert registry.aliases == {"challenger": "2", "champion": "1"}
    decision = json.loads(registry.tags["2"]["decision"])
    assert decision["decision"] == "kept"
    assert decision["champion_before"]["version"] == "1"


def test_output_does_not_depend_on_the_registry(make, tmp_path):
    """The same inputs give the same output in an empty registry and in one with a past."""
    used = FakeRegistry()
    register(*make("scratch", 0.99, b"other"), tmp_path / "one", CONFIG, used, SilentRun())
    register(*make(), tmp_path / "one", CONFIG, used, SilentRun())
    register(*make(), tmp_path / "two", CONFIG, FakeRegistry(), SilentRun())
    assert (tmp_path / "one/register.json").read_bytes() == (tmp_path / "two/register.json").read_bytes()


def test_decision_is_kept_with_the_run(make, tmp_path):
    """The decision record reaches the run as a file that is whole when the run copies it."""

    class Keeping(SilentRun):
        def artifact(self, path):
            self.kept = json.loads(path.read_text())

    run = Keeping()
    register(*make(), tmp_path / "out", CONFIG, FakeRegistry(), run)
    assert run.kept["decision"] == "promoted"


@pytest.mark.parametrize("file", ["model.onnx", "weights.safetensors"])
def test_changed_file_is_refused(make, file):
    """A file that is not the one that model.json names never reaches the registry."""
    evaluation, export = make()
    (export / file).write_bytes(b"changed")
    with pytest.raises(InputError, match=rf"{file} has sha256 .* expects"):
        read_entry(evaluation / "metrics.json", export, "crack")


def test_evaluation_of_other_weights_is_refused(make, tmp_path):
    """Scores of other weights cannot promote a model, and nothing is left behind."""
    evaluation, export = make()
    metrics = json.loads((evaluation / "metrics.json").read_text())
    metrics["experiments"]["dynamic"]["weights_sha256"] = "0" * 64
    write_json(evaluation / "metrics.json", metrics)
    registry = FakeRegistry()
    with pytest.raises(InputError, match="judged dynamic with weights 0000"):
        register(evaluation, export, tmp_path / "out", CONFIG, registry, SilentRun())
    assert registry.entries == []
    assert not (tmp_path / "out").exists()


def test_experiment_that_was_not_evaluated(make):
    """The message names the experiments that there are."""
    evaluation, export = make()
    write_json(export / "model.json", json.loads((export / "model.json").read_text()) | {"name": "vgg"})
    with pytest.raises(InputError, match=r"no experiment 'vgg'.*only dynamic"):
        read_entry(evaluation / "metrics.json", export, "crack")


def test_missing_metrics(tmp_path):
    """Without an evaluation the message says what to run."""
    with pytest.raises(InputError, match=r"metrics\.json is missing; run"):
        read_entry(tmp_path / "metrics.json", tmp_path, "crack")


@pytest.mark.parametrize(("name", "floor"), [("", 0.5), ("a/b", 0.5), ("a:b", 0.5), ("a", 1.5)])
def test_config_refuses(name, floor):
    """Names that MLflow's model addresses cannot hold, and floors outside [0, 1], are refused."""
    with pytest.raises(ValueError, match="allowed is"):
        RegisterConfig(name, floor)
