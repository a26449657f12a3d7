import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from damcrack.cli.main import cli
from damcrack.cracks.detector import SHIPPED
from damcrack.files import InputError, read_csv
from damcrack.imagery import calls as imagery
from damcrack.imagery.catalogue import read_catalogue
from damcrack.registry.model_names import model_folder
from damcrack.sample.concrete import encode_photo, render_photo
from damcrack.storage import source as storage
from damcrack.storage.source import open_source
from walls import write_darkness_detector

pytestmark = pytest.mark.slow


def photo(index):
    return encode_photo(render_photo(3, index, (64, 64)).rgb, index)


@pytest.fixture
def config(tmp_path):
    """imagery.yaml over two folders, the incoming one with two photos."""
    path, incoming = tmp_path / "imagery.yaml", tmp_path / "incoming"
    incoming.mkdir()
    for index in range(2):
        (incoming / f"{index}.jpg").write_bytes(photo(index))
    values = {"incoming": str(incoming), "store": str(tmp_path / "store"), "min_side_px": 32}
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def two_buckets(s3, tmp_path):
    """imagery.yaml over two prefixes of a bucket; the value fills the incoming one."""

    def filled(objects):
        bucket = s3({f"in/{name}": content for name, content in objects.items()})
        path = tmp_path / "imagery.yaml"
        values = {"incoming": f"s3://{bucket}/in", "store": f"s3://{bucket}/store", "min_side_px": 32}
        path.write_text(yaml.safe_dump(values))
        return path, bucket

    return filled


def test_the_command_goes_from_arrival_to_report_and_snapshot(config, tmp_path):
    """take-in, inspect, snapshot, trained and status, each again without harm."""
    model = write_darkness_detector(tmp_path / "model.onnx", tile_px=32)
    outcome, out = tmp_path / "outcome.json", tmp_path / "snapshots/photos.csv"
    commands = [
        ["take-in", "--outcome", str(outcome)],
        ["inspect", "--model", str(model), "--set", "gsd_mm_per_px=0.8"],
        ["snapshot", "--out", str(out)],
        ["trained", "1"],
        ["status"],
    ]
    for _ in range(2):
        for command in commands:
            done = CliRunner().invoke(cli, ["imagery", *command, "--config", str(config)])
            assert done.exit_code == 0, done.output
    assert json.loads(outcome.read_text()) == {"catalogue": 1, "inspect": False, "train": False, "seen": 2}
    assert [row["source"] for row in read_csv(out)] == ["incoming", "incoming"]
    (report,) = (tmp_path / "store/results").glob("00000001-*/report.html")
    assert json.loads((tmp_path / "store/inspected/00000001.json").read_text())["results"] in str(report)


def test_a_training_is_due_for_enough_new_labels(config, tmp_path):
    """Until one has run on them; then counting starts again."""

    def label(row):
        mask = np.zeros((64, 64), np.uint8)
        mask[row] = 255
        for index in range(2):
            file = tmp_path / f"incoming/masks/{index}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(file)

    settings = ["train_after_labels=2"]
    unlabelled = ["train_after_labels=99", "train_after_photos=2"]
    assert not imagery.take_in(config, settings)["train"]
    assert imagery.take_in(config, unlabelled)["train"]
    label(3)
    assert imagery.take_in(config, settings)["train"]
    address = imagery.keep_snapshot(config, tmp_path / "nowhere")
    assert len(read_csv(Path(address))) == 4
    label(5)
    assert imagery.take_in(config, settings)["train"]
    imagery.note_trained(config, address)
    assert imagery.take_in(config, settings)["train"]
    imagery.note_trained(config, imagery.take_in(config)["catalogue"])
    assert not imagery.take_in(config, settings)["train"]
    assert not imagery.take_in(config, unlabelled)["train"]


def test_a_photo_that_cannot_be_judged_teaches_only_with_a_label(config, tmp_path):
    """Taken at night it is inspected, but counts for no training and is in no snapshot, until somebody labels it."""
    dark = np.asarray(render_photo(3, 9, (64, 64)).rgb // 12, np.uint8)
    (tmp_path / "incoming/9.jpg").write_bytes(encode_photo(dark, 9))
    settings, out = ["train_after_labels=9", "train_after_photos=3"], tmp_path / "snapshots/photos.csv"
    assert not imagery.take_in(config, settings)["train"]
    assert (imagery.status(config)["photos"], imagery.status(config)["without label and in doubt"]) == (3, 1)
    assert imagery.write_snapshot(config, out)["photos"] == len(read_csv(out)) == 2
    (tmp_path / "incoming/masks").mkdir()
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "incoming/masks/9.png")
    assert imagery.take_in(config, settings)["train"]
    assert imagery.write_snapshot(config, out)["photos"] == 3


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"store": "x"}, "incoming is missing"),
        ({"incoming": "no/such", "store": "x"}, "no such folder"),
        ({"incoming": "a", "store": "b", "stroe": 1}, "stroe: unknown name"),
        ({"incoming": "a", "store": "a/b"}, "lie in each other"),
        ({"incoming": "./a", "store": "a/b"}, "lie in each other"),
        ({"incoming": ".", "store": "b"}, "lie in each other"),
        ({"incoming": "s3://b/x", "store": "s3://b/x/in"}, "lie in each other"),
        ({"incoming": "s3://b/x/in/", "store": "s3://b/x"}, "lie in each other"),
        ({"incoming": "a", "store": "b", "source": "../x"}, "source"),
        ({"incoming": "", "store": "b"}, "incoming"),
        ({"incoming": "a", "store": " "}, "store"),
        ({"incoming": "a", "store": "s3:/bucket/b"}, "store"),
        ({"incoming": "a", "store": "b", "max_megapixels": float("inf")}, "max_megapixels"),
        ({"incoming": "a", "store": "b", "max_megapixels": 0}, "max_megapixels"),
        ({"incoming": "a", "store": "b", "train_after_labels": 0}, "train_after_labels"),
        ({"incoming": "a", "store": "b", "train_after_photos": True}, "train_after_photos"),
        ({"incoming": "a", "store": "b", "train_after_labels": "many"}, "train_after_labels"),
        ({"incoming": "ftp://a", "store": "b"}, "expected a folder or s3"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, monkeypatch, values, says):
    """Before anything is read or written."""
    monkeypatch.chdir(tmp_path)
    Path("imagery.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=says):
        imagery.take_in(Path("imagery.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["imagery.yaml"]


def test_a_snapshot_of_a_number_that_is_not_there_is_refused(config):
    """And so is a training on it."""
    imagery.take_in(config)
    with pytest.raises(InputError, match="no such batch"):
        imagery.note_trained(config, 7)
    with pytest.raises(InputError, match="no such batch"):
        imagery.write_snapshot(config, Path("x"), 7)


def test_a_failed_object_ends_the_run_red_after_the_others(config, tmp_path, monkeypatch):
    """What could be read is taken in and listed."""
    read = storage.Folder.read

    def refusing(self, name, etag=None):
        if name == "1.jpg":
            raise InputError("access refused")
        return read(self, name, etag)

    monkeypatch.setattr(storage.Folder, "read", refusing)
    with pytest.raises(InputError, match=r"1\.jpg: access"):
        imagery.take_in(config)
    assert imagery.status(config)["photos"] == 1
    assert imagery.take_in(config, in_pipeline=True)["inspect"], "the others are inspected first"
    imagery.inspect(config, str(write_darkness_detector(tmp_path / "model.onnx", tile_px=32)))
    with pytest.raises(InputError, match=r"1\.jpg: access"):
        imagery.take_in(config, in_pipeline=True)


def test_keys_that_would_lead_out_of_a_folder_are_harmless(two_buckets):
    """The photo is taken in by its content; what its key says is shown and never used as a path."""
    hostile = [
        "../../etc/x.jpg",
        "a//b.jpg",
        "./c.jpg",
        "/d.jpg",
        "e\\..\\f.jpg",
        "g\n.jpg",
        "h?#%2e.jpg",
        "é ü.jpg",
    ]
    path, bucket = two_buckets({name: photo(index) for index, name in enumerate(hostile)})
    assert imagery.take_in(path)["photos"] == len(hostile)
    names = [one.name for one in open_source(f"s3://{bucket}").listed("store/")]
    assert all(".." not in name and "//" not in name and name.isascii() for name in names)
    assert imagery.take_in(path)["seen"] == len(hostile)


def test_two_processes_at_once_one_of_them_killed_take_each_photo_in_once(s3_service, two_buckets):
    """30 objects of real S3, copies and broken files among them: counted by what lies in the store."""
    good, bad = [photo(index) for index in range(22)], [f"broken {index}".encode() for index in range(3)]
    contents = [*good, *bad, *good[:4], bad[0]]
    path, bucket = two_buckets({f"{index:02d}.jpg": content for index, content in enumerate(contents)})

    def start():
        command = [sys.executable, "-c", "from damcrack.cli.main import main; main()", "imagery", "take-in"]
        return subprocess.Popen([*command, "--config", str(path)], env={**os.environ, **s3_service})

    store, (killed, other) = open_source(f"s3://{bucket}/store"), (start(), start())
    deadline_s = time.monotonic() + 120
    while len(store.listed("accepted/")) < 5 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    killed.kill()
    assert other.wait(120) == 0
    killed.wait()

    def contents(prefix, ending):
        return sorted(store.read(one.name) for one in store.listed(prefix) if one.name.endswith(ending))

    assert contents("accepted/", ".jpg") == sorted(good) and contents("quarantine/", "/file") == bad
    listed = Counter(entry.content for entry in read_catalogue(store).entries())
    assert (len(listed), listed.total()) == (25, 30)


def test_a_poll_with_nothing_new_reads_no_photo(two_buckets, monkeypatch):
    """Four listings and the catalogue, however many objects are known; long listings are read page by page."""
    path, _ = two_buckets({f"{index:02d}.jpg": photo(index) for index in range(7)})
    imagery.take_in(path)
    asked, new_client = [], storage._client

    def counting(uri):
        client = new_client(uri)
        client.meta.events.register("before-call.s3", lambda model, params, **_: asked.append(model.name))
        ask = client.list_objects_v2
        client.list_objects_v2 = lambda **options: ask(**options, MaxKeys=3)
        return client

    monkeypatch.setattr(storage, "_client", counting)
    assert imagery.take_in(path)["seen"] == 7
    assert {name: asked.count(name) for name in asked} == {"GetObject": 1, "ListObjectsV2": 3 + 3}


def test_the_shipped_detector_is_found_in_a_project(tmp_path, monkeypatch):
    """`damcrack init` makes a folder of that name, with weights to train from and no model."""
    monkeypatch.chdir(tmp_path)
    assert model_folder("shipped") == SHIPPED
    Path("shipped/training").mkdir(parents=True)
    assert model_folder("shipped") == SHIPPED
    Path("shipped/model.onnx").touch()
    assert model_folder("shipped") == Path("shipped")


def test_only_take_in_makes_the_store(config, tmp_path):
    """A store whose name is misspelt is not taken for an empty one. The outcome says what is to be done next."""
    for call in (imagery.status, lambda path: imagery.note_trained(path, 1)):
        with pytest.raises(InputError):
            call(config)
    assert not (tmp_path / "store").exists()
    outcome = {"catalogue": 1, "inspect": True, "train": False, "photos": 2}
    assert imagery.take_in(config, outcome=tmp_path / "new/outcome.json") == outcome
    assert json.loads((tmp_path / "new/outcome.json").read_text()) == outcome


def test_what_was_replaced_is_in_quarantine_no_more(config, tmp_path):
    """Status lists what is still to be fixed, each content once."""
    for name in ("0.jpg", "2.jpg", "3.jpg"):
        (tmp_path / "incoming" / name).write_bytes(b"no photo")
    imagery.take_in(config)
    assert imagery.status(config)["quarantined"] == 1
    for index in (0, 2):
        (tmp_path / f"incoming/{index}.jpg").write_bytes(photo(index))
    imagery.take_in(config)
    assert (imagery.status(config)["quarantined"], imagery.status(config)["photos"]) == (1, 3)
    (tmp_path / "incoming/3.jpg").write_bytes(photo(3))
    imagery.take_in(config)
    assert (imagery.status(config)["quarantined"], imagery.status(config)["photos"]) == (0, 4)


def test_masks_that_wait_are_named(config, tmp_path, capsys):
    """A mask that is called otherwise than its photo would wait for ever."""
    (tmp_path / "incoming/masks").mkdir()
    for name in ("1_mask.png", "0.png"):
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "incoming/masks" / name)
    assert imagery.take_in(config)["masks_without_photo"] == 1
    said = capsys.readouterr().err
    assert "masks/1_mask.png" in said and "masks/0.png" not in said


def test_a_stored_photo_that_was_replaced_is_not_inspected(config, tmp_path):
    """Another whole photo in its place would be reported under its name."""
    imagery.take_in(config)
    first, _ = sorted((tmp_path / "store/accepted/photos").iterdir())
    first.write_bytes(photo(7))
    model = write_darkness_detector(tmp_path / "model.onnx", tile_px=32)
    with pytest.raises(InputError):
        imagery.inspect(config, str(model))
    assert imagery.status(config)["batches without report"] == 1
