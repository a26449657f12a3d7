import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from damcrack.data.config import PhotosConfig
from damcrack.data.photos import photos
from damcrack.data.snapshot import COLUMNS
from damcrack.files import InputError, read_csv, sha256_bytes, write_csv
from damcrack.imagery import arrivals, catalogue, follow_up, judgement
from damcrack.imagery.config import ImageryConfig
from damcrack.imagery.ledger import Item, Ledger
from damcrack.inspection.config import InspectConfig
from damcrack.run import SilentRun
from damcrack.storage.source import open_source, open_store
from walls import write_darkness_detector

SIDE = 40


def picture(seed, side=SIDE, kind="PNG"):
    pixels = np.random.default_rng(seed).integers(120, 200, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def mask(row=3, side=SIDE):
    pixels = np.zeros((side, side), np.uint8)
    pixels[row] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Place:
    """Two folders, and a run on them whenever asked."""

    def __init__(self, root, **values):
        self.root = root
        (root / "incoming").mkdir()
        (root / "store").mkdir()
        self.config = ImageryConfig(
            str(root / "incoming"), str(root / "store"), min_side_px=32, **{"train_after_labels": 2} | values
        )
        self.store = open_store(self.config.store)

    def put(self, name, content):
        path = self.root / "incoming" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def ledger(self, run_id="test"):
        return Ledger(self.store, run_id)

    def run(self, incoming=None, store=None):
        store = store or self.store
        ledger = Ledger(store, str(time.monotonic_ns()))
        found = arrivals.take_in(
            incoming or open_store(self.config.incoming), store, ledger, self.config, SilentRun()
        )
        self.catalogue = catalogue.extend(store, ledger, found.entries)
        self.failures = found.failures
        return dict(found.counts)

    def names(self, prefix):
        return [one.name for one in self.store.listed(prefix)]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_a_photo_is_taken_in_once_whatever_it_is_called(place):
    """Repeats, copies, renames, re-uploads and touched files add nothing; its bytes lie in the store by their hash."""
    content = picture(0)
    place.put("a.png", content)
    place.put("copy/of a.png", content)
    assert place.run() == {"new photos": 1, "photos known by content": 1}
    assert place.run() == {"photos known": 2}
    (place.root / "incoming/a.png").rename(place.root / "incoming/renamed.PNG")
    os.utime(place.root / "incoming/copy/of a.png", (1, 1))
    assert place.run() == {"photos known by content": 2}
    assert place.names("accepted/") == [f"accepted/photos/{sha256_bytes(content)}.png"]
    assert place.store.read(place.names("accepted/")[0]) == content
    assert [item.sha256 for item in place.catalogue.photos()] == [sha256_bytes(content)]
    assert place.catalogue.number == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.jpg", b"", "0 bytes"),
        ("text.jpg", b"not a photo", "expected a JPEG, PNG or TIFF"),
        ("cut.jpg", picture(0, kind="JPEG")[:700], "truncated or corrupt"),
        ("small.png", picture(0, 31), "31 x 31 pixels, expected at least 32"),
        ("phone.heic", b"....ftypheic", "expected a JPEG, PNG or TIFF"),
    ],
)
def test_a_bad_photo_goes_to_quarantine_with_its_reason(place, name, content, says):
    """Its bytes are kept, the reason says what to do, it is listed, and it is looked at once."""
    place.put(name, content)
    place.put("good.png", picture(1))
    assert place.run() == {"new photos": 1, "quarantined": 1}
    key = sha256_bytes(content)
    assert place.store.read(f"quarantine/{key}/file") == content
    reason = json.loads(place.store.read(f"quarantine/{key}/reason.json"))
    assert reason["name"] == name and says in reason["reason"]
    assert [item.reason for item in place.catalogue.quarantined()] == [reason["reason"]]
    assert place.run() == {"photos known": 2}
    assert len(place.names("accepted/")) == 1


def test_what_is_no_photo_is_left_alone(place):
    """Hidden files, other files and ready tiles are counted and not touched."""
    for name in (".thumb.jpg", "notes.txt", "Positive/1.jpg", "masks-old/a.png"):
        place.put(name, picture(0))
    assert place.run() == {"other files, left alone": 4}
    assert place.names("") == []


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """The store, until a number of writes; the last one may or may not have got through."""

    def __init__(self, store, writes, last_arrives):
        self.store, self.writes, self.last_arrives = store, writes, last_arrives

    def create(self, name, content):
        self.writes -= 1
        if self.writes < 0 or (self.writes == 0 and not self.last_arrives):
            raise Killed
        done = self.store.create(name, content)
        if self.writes == 0:
            raise Killed
        return done

    def __getattr__(self, name):
        return getattr(self.store, name)


@pytest.mark.parametrize("last_arrives", [False, True])
def test_a_run_killed_at_any_write_loses_nothing_and_doubles_nothing(tmp_path, last_arrives):
    """The next run, once the leases are over, ends with the same files as a run that was never killed.

    Claims and marks aside. The lease outlives what a thread does with a photo: without one, two threads of a run that
    is alive take each other's claims on two copies for abandoned, and the third claim ends in quarantine.
    """
    lease_s = 0.2

    def filled(name):
        (tmp_path / name).mkdir()
        place = Place(tmp_path / name, photo_lease_minutes=lease_s / 60)
        for file, content in {
            "a.png": picture(0),
            "b.png": picture(1),
            "again/a.png": picture(0),
            "masks/b.png": mask(),
            "bad.jpg": b"bad",
        }.items():
            place.put(file, content)
        return place

    def outcome(place):
        entries = {item.id: item for _, item in place.catalogue.rows}
        kept = {
            name: place.store.read(name) for top in ("accepted/", "quarantine/") for name in place.names(top)
        }
        return {key: (item.verdict, item.file, item.mask_file) for key, item in entries.items()}, kept

    whole = filled("whole")
    whole.run()
    expected, writes = outcome(whole), 0
    assert len(expected[0]) == 4
    while True:
        place = filled(f"killed-{writes}")
        try:
            place.run(store=Mortal(place.store, writes, last_arrives))
        except Killed:
            time.sleep(1.1 * lease_s)
            place.run()
            assert outcome(place) == expected
            assert len(place.catalogue.rows) == 4
            writes += 1
            continue
        break
    assert writes >= 18


def test_copies_that_arrive_together_are_read_by_one_of_the_threads(place, monkeypatch):
    """With eight threads and eight copies, one is decoded and eight are known in the end."""
    monkeypatch.setattr("damcrack.files.num_workers", lambda: 8)
    opened = []
    decode = judgement.decode_photo
    monkeypatch.setattr(
        judgement, "decode_photo", lambda *given: (opened.append(1), time.sleep(0.1), decode(*given))[-1]
    )
    for number in range(8):
        place.put(f"{number}.png", picture(0))
    assert place.run() == {"new photos": 1, "photos known by content": 7}
    assert len(opened) == len(place.names("claims/")) == 1


def test_a_claimed_photo_is_left_to_its_run_until_the_lease_is_over(place):
    """Nobody else works on it meanwhile; afterwards the next run does."""
    place.put("a.png", picture(0))
    key = sha256_bytes(picture(0))
    assert place.ledger("other").claim(key, 600).attempt == 1
    assert place.run() == {"left to another run": 1}
    assert place.catalogue.number == 0
    (claim,) = (place.root / "store/claims").iterdir()
    os.utime(claim, (time.time() - 601,) * 2)
    assert place.run() == {"new photos": 1}
    assert place.names("claims/") == [f"claims/{key}.1", f"claims/{key}.2"]


def test_a_photo_that_kills_its_readers_is_set_aside_unread(tmp_path, monkeypatch):
    """After three abandoned claims nobody opens it any more, and the rest goes on."""
    place = Place(tmp_path, photo_lease_minutes=1e-9)
    place.put("bomb.png", picture(0))
    for _ in range(3):
        place.ledger().claim(sha256_bytes(picture(0)), 0)
    monkeypatch.setattr(judgement, "decode_photo", lambda *_: pytest.fail("it was opened"))
    assert place.run() == {"quarantined": 1}
    assert "3 runs were killed" in place.catalogue.quarantined()[0].reason


def test_an_object_that_vanishes_or_changes_meanwhile_is_no_photo_of_the_old_listing(place):
    """What is read is what was listed, or nothing; the new content comes with the next run."""
    place.put("gone.png", picture(0))
    place.put("new.png", picture(1))
    incoming = open_store(place.config.incoming)
    listed = incoming.listed()
    (place.root / "incoming/gone.png").unlink()
    place.put("new.png", picture(2, 44))
    incoming.listed = lambda prefix="": listed
    assert place.run(incoming) == {"vanished or replaced meanwhile": 2}
    assert place.run() == {"new photos": 1}
    assert [item.height_px for item in place.catalogue.photos()] == [44]


def test_a_store_that_refuses_for_a_while_costs_no_photo(place):
    """However often its writing failed, a good photo is taken in at the first run that may write."""
    place.put("1.png", picture(0))

    class Full:
        def create(self, name, content):
            if name.startswith("accepted/"):
                raise InputError("no rights")
            return place.store.create(name, content)

        def __getattr__(self, name):
            return getattr(place.store, name)

    for _ in range(5):
        assert place.run(store=Full()) == {"failed": 1}
    assert place.run() == {"new photos": 1}


class Partly:
    """A bucket that refuses some of its objects."""

    def __init__(self, store, refused):
        self.store, self.refused = store, refused

    def read(self, name, etag=None):
        if name in self.refused:
            raise InputError("access refused")
        return self.store.read(name, etag)

    def __getattr__(self, name):
        return getattr(self.store, name)


def test_a_refused_object_holds_up_no_other_and_is_not_forgotten(place):
    """The others are taken in, the failure is told, and the object comes in once it can be read."""
    for number in range(3):
        place.put(f"{number}.png", picture(number))
    assert place.run(Partly(open_store(place.config.incoming), {"1.png"})) == {"new photos": 2, "failed": 1}
    assert place.failures == ["1.png: access refused"]
    assert place.run() == {"photos known": 2, "new photos": 1}


def test_a_store_that_fails_all_the_time_is_given_up_soon(place):
    """Not every one of thousands of objects is tried; what can be read comes in sooner or later all the same."""
    for number in range(40):
        place.put(f"{number:02d}.png", picture(number))
    refused = {f"{number:02d}.png" for number in range(39)}
    incoming = Partly(open_store(place.config.incoming), refused)
    place.run(Partly(open_store(place.config.incoming), refused | {"39.png"}))
    assert len(place.failures) == 5
    for _ in range(200):
        if place.run(incoming).get("new photos"):
            break
    assert [item.name for item in place.catalogue.photos()] == ["39.png"]


def test_a_mask_labels_the_photo_beside_it_whenever_it_comes(place):
    """A/masks/STEM.png fits A/STEM.jpg and A/images/STEM.jpg; without its photo it waits."""
    place.put("wall/masks/1.png", mask())
    assert place.run() == {"masks waiting for their photo": 1}
    place.put("wall/images/1.jpg", picture(0, kind="JPEG"))
    place.put("wall/2.png", picture(1))
    assert place.run() == {"new photos": 2, "new labels": 1}
    assert place.run() == {"photos known": 2, "masks known": 1}
    labels = place.catalogue.labels()
    assert list(labels) == [sha256_bytes(picture(0, kind="JPEG"))]
    place.put("wall/masks/2.png", mask())
    assert place.run()["new labels"] == 1
    assert len(place.catalogue.labels()) == 2


def test_a_mask_that_could_label_two_photos_waits(place):
    """Nobody guesses."""
    place.put("1.png", picture(0))
    place.put("1.jpg", picture(1, kind="JPEG"))
    place.put("masks/1.png", mask())
    assert place.run() == {"new photos": 2, "masks that fit several photos": 1}


def test_a_bad_mask_goes_to_quarantine_and_its_photo_stays(place):
    """Another size than its photo, unreadable, or of a photo that is bad itself."""
    for name, content in {"1": picture(0), "2": picture(1), "3": b"bad"}.items():
        place.put(f"{name}.png", content)
    for name, content in {"1": mask(side=33), "2": b"", "3": mask()}.items():
        place.put(f"masks/{name}.png", content)
    assert place.run() == {"new photos": 2, "quarantined": 4}
    reasons = sorted(item.reason for item in place.catalogue.quarantined() if item.mask_sha256)
    assert [reason[:13] for reason in reasons] == ["33 x 33 pixel", "its photo 3.p", "the file is e"]
    assert place.catalogue.labels() == {}


def snapshot_of(place, path):
    return catalogue.write_snapshot(path, "new", place.catalogue)


def test_what_was_taken_in_becomes_photos_of_the_graph(place, tmp_path):
    """The stage `photos` reads the snapshot: each photo once, with the newest of its masks."""
    place.put("1.png", picture(0))
    place.put("2.png", picture(1))
    place.put("masks/1.png", mask(3))
    place.run()
    place.put("masks/1.png", mask(5))
    assert place.run()["new labels"] == 1
    out = tmp_path / "snapshots/photos.csv"
    assert snapshot_of(place, out) == {"photos": 2, "with label": 1, "written": out}
    config = PhotosConfig({"new": f"{place.config.store}/accepted"}, 1, (64, 64), 0, 32, 1, 50)
    photos(out, tmp_path / "photos", config, open_source, SilentRun())
    rows = read_csv(tmp_path / "photos/photos.csv")
    assert {row["sha256"]: bool(row["mask"]) for row in rows} == {
        sha256_bytes(picture(0)): True,
        sha256_bytes(picture(1)): False,
    }
    labelled = next(row for row in rows if row["mask"])
    shown = np.asarray(Image.open(tmp_path / "photos" / labelled["mask"]))
    assert list(np.flatnonzero(shown.any(1))) == [5]


def test_the_snapshot_keeps_other_sources_and_changes_only_with_what_came(place, tmp_path):
    """Rows of other sources stay; bad photos and copies leave it as it was; an old number gives the old one."""
    out = tmp_path / "photos.csv"
    other = {"source": "archive", "name": "x.jpg", "size_bytes": "1", "sha256": "0" * 64}
    write_csv(out, COLUMNS, [other])
    with pytest.raises(InputError, match="no photo was taken in"):
        place.run()
        snapshot_of(place, out)
    place.put("1.png", picture(0))
    place.run()
    snapshot_of(place, out)
    first = out.read_bytes()
    assert [row["source"] for row in read_csv(out)] == ["archive", "new"]
    place.put("bad.png", b"bad")
    place.put("copy.png", picture(0))
    place.run()
    snapshot_of(place, out)
    assert (out.read_bytes(), place.catalogue.number) == (first, 2)
    place.put("2.png", picture(1))
    place.run()
    snapshot_of(place, out)
    assert len(read_csv(out)) == 3
    catalogue.write_snapshot(out, "new", catalogue.read_catalogue(place.store, 1))
    assert out.read_bytes() == first


def test_every_entry_is_in_exactly_one_batch_when_many_make_batches(place, monkeypatch):
    """Eight makers at once and batches of three: none is left out, none doubled."""
    monkeypatch.setattr(catalogue, "MOST_IN_BATCH", 3)
    for number in range(20):
        place.ledger().enter(Item(f"{number}.png", f"{number:064x}", "accepted", file="f"))
    ids = place.ledger().ids()
    with ThreadPoolExecutor(8) as pool:
        seen = list(
            pool.map(lambda run: catalogue.extend(place.store, place.ledger(str(run)), ids), range(8))
        )
    newest = catalogue.latest(place.store)
    assert {one.number for one in seen} == {newest.number} == {7}
    assert sorted(item.id for _, item in newest.rows) == sorted(ids)
    assert max(sum(batch == number for batch, _ in newest.rows) for number in range(1, 8)) == 3


@pytest.mark.parametrize(
    ("content", "says"), [(b"{", "no entry of the ledger"), (b"{}", "no entry"), (b"", "no entry")]
)
def test_a_damaged_ledger_entry_is_named(place, content, says):
    """Nothing is skipped silently."""
    place.store.create("ledger/abc.json", content)
    with pytest.raises(InputError, match=rf"ledger/abc\.json.*{says}"):
        place.run()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_darkness_detector(tmp_path_factory.mktemp("model") / "model.onnx", tile_px=32)


def inspect(place, model, run_id="test"):
    values = (place.config, InspectConfig())
    return follow_up.inspect_batches(
        place.store, place.ledger(run_id), place.catalogue, lambda: model, values, SilentRun()
    )


def test_each_batch_is_inspected_once(place, model):
    """The report names photos by where they came from; a second call does nothing and asks for no model."""
    place.put("spill way/a..b.png", picture(0))
    place.run()
    assert inspect(place, model)["batches inspected"] == 1
    done = json.loads(place.store.read("inspected/00000001.json"))
    assert done["photos"] == [sha256_bytes(picture(0))]
    page = place.store.read(f"{done['results']}/report.html").decode()
    assert f"spill-way/a--b-{sha256_bytes(picture(0))[:8]}.png" in page
    place.put("bad.png", b"bad")
    place.run()
    assert follow_up.not_inspected(place.store, place.catalogue) == []
    assert inspect(place, None)["batches inspected"] == 0


def test_a_killed_inspection_is_done_again_after_its_lease(place, model):
    """Its half report lies beside and does not count."""
    place.put("a.png", picture(0))
    place.run()
    with pytest.raises(Killed):
        follow_up.inspect_batches(
            mortal := Mortal(place.store, 3, True),
            Ledger(mortal, "killed"),
            place.catalogue,
            lambda: model,
            (place.config, InspectConfig()),
            SilentRun(),
        )
    assert inspect(place, model)["at by other runs"] == 1
    os.utime(place.root / "store/claims/inspection-00000001.1", (1, 1))
    assert inspect(place, model)["reports"] == "results/00000001-2/report.html"


def test_a_run_that_is_tried_again_goes_on_with_its_own_work_at_once(place, model):
    """Inspection and training of the run that was killed are not held up by its own claims."""
    place.config = replace(place.config, train_after_labels=1)
    place.put("a.png", picture(0))
    place.put("masks/a.png", mask())
    place.run()
    for run_id, due in (("run-1", True), ("run-2", False), ("run-1", True)):
        assert (
            follow_up.training_is_due(place.store, place.ledger(run_id), place.catalogue, place.config) is due
        )
    assert place.ledger("run-1").claim("inspection-00000001", 600).attempt == 1
    assert inspect(place, model, "run-2")["at by other runs"] == 1
    assert inspect(place, model, "run-1")["reports"] == "results/00000001-2/report.html"


def test_a_batch_whose_photo_vanished_from_the_store_is_an_error_and_the_others_are_inspected(place, model):
    """No green run with a hole in it."""
    for batch in range(3):
        place.put(f"{batch}.png", picture(batch))
        place.run()
    gone = next(item for number, item in place.catalogue.rows if number == 2)
    (place.root / "store" / gone.file).unlink()
    with pytest.raises(InputError, match=r"batch 2: .*photo"):
        inspect(place, model)
    assert place.names("inspected/") == ["inspected/00000001.json", "inspected/00000003.json"]


def test_a_training_is_due_once_for_enough_new_labels(place):
    """One caller gets it; while it runs none other does, though more labels come; then counting starts anew."""
    due = lambda: follow_up.training_is_due(  # noqa: E731
        place.store, place.ledger(str(time.monotonic_ns())), place.catalogue, place.config
    )

    def label(*numbers):
        for number in numbers:
            place.put(f"{number}.png", picture(number))
            place.put(f"masks/{number}.png", mask())
        place.run()

    label(0)
    assert not due()
    label(1)
    assert [due(), due()] == [True, False]
    trained_on = place.catalogue.number
    label(2, 3, 4)
    assert not due()
    follow_up.note_trained(place.store, trained_on)
    assert [due(), due()] == [True, False]
    follow_up.note_trained(place.store, place.catalogue.number)
    assert not due()


def test_a_training_that_was_killed_is_due_again_after_its_lease(place):
    """A claim does not end the training of a dam for ever."""
    place.config = ImageryConfig(
        place.config.incoming, place.config.store, min_side_px=32, train_after_labels=1
    )
    place.put("1.png", picture(0))
    place.put("masks/1.png", mask())
    place.run()
    due = lambda: follow_up.training_is_due(  # noqa: E731
        place.store, place.ledger(str(time.monotonic_ns())), place.catalogue, place.config
    )
    assert [due(), due()] == [True, False]
    os.utime(Path(place.config.store) / "claims/training-after-00000000.1", (1, 1))
    assert due()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"incoming": "s3://b/x", "store": "s3://b/x/in"}, "lie in each other"),
        ({"incoming": "s3://b/x/in/", "store": "s3://b/x"}, "lie in each other"),
        ({"incoming": "a", "store": "b", "source": "../x"}, "source"),
        ({"incoming": "a", "store": "b", "train_after_labels": 0}, "1 and more"),
        ({"incoming": "a", "store": "b", "photo_lease_minutes": 0}, "above 0"),
    ],
)
def test_values_that_cannot_work_are_refused(values, says):
    """With what was given and what is allowed."""
    with pytest.raises(ValueError, match=says):
        ImageryConfig(**values)
