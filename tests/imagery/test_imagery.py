import io
import json
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from damcrack.data.config import PhotosConfig
from damcrack.data.photos import photos
from damcrack.data.snapshot import COLUMNS
from damcrack.files import InputError, read_csv, sha256_bytes, write_csv
from damcrack.imagery import arrivals, catalogue, inspections
from damcrack.imagery.config import ImageryConfig
from damcrack.inspection.config import InspectConfig
from damcrack.run import Run
from damcrack.storage.source import open_source
from walls import write_darkness_detector

pytestmark = pytest.mark.slow

SIDE = 40


def encoded(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def picture(seed, side=SIDE, kind="PNG"):
    return encoded(np.random.default_rng(seed).integers(120, 200, (side, side, 3), dtype=np.uint8), kind)


def mask(row=3, side=SIDE):
    pixels = np.zeros((side, side), np.uint8)
    pixels[row] = 255
    return encoded(pixels)


class Place:
    """Two folders, and a run on them whenever asked."""

    def __init__(self, root, store="store"):
        self.root = root
        self.incoming, self.folder = root / "incoming", root / store
        self.incoming.mkdir(exist_ok=True)
        self.folder.mkdir()
        self.config = ImageryConfig(str(self.incoming), str(self.folder), min_side_px=32)
        self.store = open_source(str(self.folder))

    def put(self, name, content):
        path = self.incoming / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def run(self, incoming=None, store=None):
        incoming = incoming or open_source(str(self.incoming))
        done = arrivals.take_in(incoming, store or self.store, self.config, Run())
        self.catalogue, self.failures = done.catalogue, done.failures
        return +done.counts

    def names(self, prefix=""):
        return [one.name for one in self.store.listed(prefix)]

    def contents(self):
        return {name: self.store.read(name) for name in self.names()}


class Altered:
    """A store of which some methods do something else."""

    def __init__(self, store, **methods):
        self.store = store
        self.__dict__ |= methods

    def __getattr__(self, name):
        return getattr(self.store, name)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def photo_names(catalogue):
    return [photo.name for _, photo in catalogue.photos()]


def test_a_photo_is_taken_in_once_whatever_it_is_called(place):
    """Repeats, copies, renames, re-uploads and touched files add no photo; its bytes lie in the store by their hash."""
    content = picture(0)
    place.put("a.png", content)
    place.put("copy/of a.png", content)
    assert place.run() == {"photos": 1, "copies": 1}
    assert place.run() == {"seen": 2}
    (place.incoming / "a.png").rename(place.incoming / "renamed.PNG")
    os.utime(place.incoming / "copy/of a.png", (1, 1))
    assert place.run() == {"copies": 2}
    assert place.run() == {"seen": 2}
    assert place.names("accepted/") == [f"accepted/photos/{sha256_bytes(content)}.png"]
    assert place.store.read(place.names("accepted/")[0]) == content
    ((batch, photo),) = place.catalogue.photos()
    assert (batch, photo.sha256) == (1, sha256_bytes(content))


def test_what_was_seen_is_not_read_again(place):
    """An object of the same name and etag is not downloaded."""
    place.put("a.png", picture(0))
    place.put("masks/a.png", mask())
    place.put("bad.png", b"bad")
    place.run()
    incoming = Altered(open_source(str(place.incoming)), read=lambda *_: pytest.fail("it was read"))
    assert place.run(incoming) == {"seen": 3}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.jpg", b"", "0 bytes"),
        ("text.jpg", b"not a photo", "expected a JPEG, PNG or TIFF"),
        ("cut.jpg", picture(0, kind="JPEG")[:700], "truncated or corrupt"),
        ("small.png", picture(0, 31), "31 x 31"),
        ("phone.heic", b"....ftypheic", "expected a JPEG, PNG or TIFF"),
    ],
)
def test_a_bad_photo_goes_to_quarantine_with_its_reason(place, name, content, says):
    """Its bytes are stored, the reason says what to do, it is listed, and it is looked at once."""
    place.put(name, content)
    place.put("good.png", picture(1))
    assert place.run() == {"photos": 1, "quarantined": 1}
    key = sha256_bytes(content)
    assert place.store.read(f"quarantine/{key}/file") == content
    (entry,) = place.catalogue.quarantined()
    assert entry.name == name and says in entry.reason
    assert place.store.read(f"quarantine/{key}/reason.txt").decode() == entry.reason + "\n"
    assert place.run() == {"seen": 2}
    assert len(place.names("accepted/")) == 1


def test_what_is_no_photo_is_left_alone(place):
    """Hidden files, other files and ready tiles are counted and not touched."""
    for name in (".thumb.jpg", "notes.txt", "Positive/1.jpg", "masks-old/a.png"):
        place.put(name, picture(0))
    assert place.run() == {"other_files": 4}
    assert place.names() == []


class Killed(BaseException):
    """The process ends here."""


def mortal(store, writes, last_arrives):
    """The store, until a number of writes; the last one may or may not have got through."""
    left = iter(range(writes, 0, -1))

    def create(name, content):
        number = next(left, 0)
        if number == 0 or (number == 1 and not last_arrives):
            raise Killed
        done = store.create(name, content)
        if number == 1:
            raise Killed
        return done

    return Altered(store, create=create)


@pytest.mark.parametrize("last_arrives", [False, True])
def test_a_run_killed_at_any_write_loses_nothing_and_doubles_nothing(tmp_path, monkeypatch, last_arrives):
    """The next run ends with the same bytes under the same names as a run that was never killed."""
    monkeypatch.setattr(arrivals, "MAX_IN_BATCH", 3)
    whole = Place(tmp_path, "whole")
    for name, content in {
        "a.png": picture(0),
        "b.png": picture(1),
        "again/a.png": picture(0),
        "masks/b.png": mask(),
        "again/masks/a.png": mask(5),
        "bad.jpg": b"bad",
        "masks/bad.png": mask(side=8),
    }.items():
        whole.put(name, content)
    whole.run()
    expected = whole.contents()
    assert (whole.catalogue.number, len(list(whole.catalogue.entries()))) == (3, 7)
    for writes in range(1, 100):
        place = Place(tmp_path, f"killed-{writes}")
        try:
            place.run(store=mortal(place.store, writes, last_arrives))
        except Killed:
            place.run()
            assert place.contents() == expected
            continue
        break
    assert writes > len(expected)


def test_two_runs_at_once_end_in_the_same_bytes(tmp_path, monkeypatch):
    """As one run alone, also with batches to be written in turn."""
    monkeypatch.setattr(arrivals, "MAX_IN_BATCH", 4)
    monkeypatch.setattr("damcrack.files.num_workers", lambda: 3)
    alone = Place(tmp_path, "alone")
    for number in range(10):
        alone.put(f"{number}.png", picture(number % 7))
        alone.put(f"masks/{number}.png", mask(number))
    alone.run()
    both = Place(tmp_path, "both")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: Place.run(both), range(2)))
    assert both.contents() == alone.contents()


def test_a_run_that_meets_another_with_other_photos_stops_and_the_next_one_continues(place):
    """Each photo ends in exactly one batch."""
    place.put("a.png", picture(0))

    def create(name, content):
        if name.startswith("catalogue/"):
            place.put("0.png", picture(1))
            place.run()
        return place.store.create(name, content)

    with pytest.raises(InputError, match=r"catalogue/00000001\.csv"):
        place.run(store=Altered(place.store, create=create))
    place.put("b.png", picture(2))
    place.run()
    batches = [batch for batch, _ in place.catalogue.photos()]
    assert batches == [1, 1, 2]
    assert sorted(photo_names(place.catalogue)) == ["0.png", "a.png", "b.png"]
    assert Counter(entry.content for entry in place.catalogue.entries()).most_common(1)[0][1] == 1


def test_a_batch_is_never_larger_than_can_be_inspected_in_one_go(place, monkeypatch):
    """An object that cannot be read leaves its place in the batch to the next one."""
    monkeypatch.setattr(arrivals, "MAX_IN_BATCH", 3)
    for number in range(8):
        place.put(f"{number}.png", picture(number))
    place.run(refusing(place, {"1.png"}))
    place.run()
    sizes = [[entry.name for entry in batch] for batch in place.catalogue.batches]
    assert sizes == [["0.png", "2.png", "3.png"], ["4.png", "5.png", "6.png"], ["7.png"], ["1.png"]]


def test_an_object_that_vanishes_or_changes_meanwhile_is_no_photo_of_the_old_listing(place):
    """What is read is what was listed, or nothing; the new content comes with the next run."""
    place.put("gone.png", picture(0))
    place.put("new.png", picture(1))
    incoming = open_source(str(place.incoming))
    listed = incoming.listed()
    (place.incoming / "gone.png").unlink()
    place.put("new.png", picture(2, 44))
    assert place.run(Altered(incoming, listed=lambda: listed)) == {"vanished": 2}
    assert place.run() == {"photos": 1}
    assert [photo.sha256 for _, photo in place.catalogue.photos()] == [sha256_bytes(picture(2, 44))]


def test_a_store_that_refuses_for_a_while_costs_no_photo(place):
    """A full disk stops the run; the next one that may write takes everything in."""
    place.put("1.png", picture(0))
    place.put("2.png", b"bad")

    def full(name, content):
        raise InputError("disk full")

    for _ in range(2):
        with pytest.raises(InputError, match="disk full"):
            place.run(store=Altered(place.store, create=full))
    assert place.run() == {"photos": 1, "quarantined": 1}


def refusing(place, refused):
    incoming = open_source(str(place.incoming))

    def read(name, etag=None):
        if name in refused:
            raise InputError("access refused")
        return incoming.read(name, etag)

    return Altered(incoming, read=read)


def test_a_refused_object_holds_up_no_other_and_is_not_forgotten(place):
    """The others are taken in, the failure is named, and the object comes in once it can be read."""
    for number in range(3):
        place.put(f"{number}.png", picture(number))
    assert place.run(refusing(place, {"1.png"})) == {"photos": 2, "failed": 1}
    (failure,) = place.failures
    assert "1.png" in failure and "access refused" in failure
    assert place.run() == {"seen": 2, "photos": 1}


def test_stored_bytes_that_do_not_fit_their_name_stop_the_run(place):
    """Somebody changed the store: nothing is listed that is not what it says."""
    place.put("1.png", picture(0))
    place.store.create(f"accepted/photos/{sha256_bytes(picture(0))}.png", b"other")
    with pytest.raises(InputError, match="restore"):
        place.run()
    assert place.names("catalogue/") == []


def test_a_mask_labels_the_photo_next_to_it_whenever_it_comes(place):
    """A/masks/STEM.png fits A/STEM.jpg and A/images/STEM.jpg; without its photo it waits."""
    place.put("wall/masks/1.png", mask())
    assert place.run() == {"masks_without_photo": 1}
    place.put("wall/images/1.jpg", picture(0, kind="JPEG"))
    place.put("wall/2.png", picture(1))
    assert place.run() == {"photos": 2, "labels": 1}
    assert place.run() == {"seen": 3}
    assert list(place.catalogue.labels()) == [sha256_bytes(picture(0, kind="JPEG"))]
    place.put("wall/masks/2.png", mask())
    assert place.run() == {"seen": 3, "labels": 1}
    assert len(place.catalogue.labels()) == 2


def test_a_mask_that_could_label_two_photos_waits(place):
    """Nobody guesses."""
    place.put("1.png", picture(0))
    place.put("1.jpg", picture(1, kind="JPEG"))
    place.put("masks/1.png", mask())
    assert place.run() == {"photos": 2, "ambiguous_masks": 1}


def test_a_bad_mask_goes_to_quarantine_and_its_photo_stays(place):
    """Another size than its photo, unreadable, or of a photo that is bad itself."""
    for name, content in {"1": picture(0), "2": picture(1), "3": b"bad"}.items():
        place.put(f"{name}.png", content)
    for name, content in {"1": mask(side=33), "2": b"", "3": mask()}.items():
        place.put(f"masks/{name}.png", content)
    assert place.run() == {"photos": 2, "quarantined": 4}
    reasons = [entry.reason for entry in place.catalogue.quarantined() if entry.photo_sha256]
    for part, reason in zip(("33 x 33", "empty", "its photo"), reasons, strict=True):
        assert part in reason
    assert place.catalogue.labels() == {}


def test_a_mask_whose_photo_vanished_from_the_store_waits_and_is_named(place):
    """The others are taken in."""
    place.put("1.png", picture(0))
    place.put("2.png", picture(1))
    place.run()
    (place.folder / f"accepted/photos/{sha256_bytes(picture(0))}.png").unlink()
    for name in ("1", "2"):
        place.put(f"masks/{name}.png", mask())
    assert place.run() == {"seen": 2, "failed": 1, "labels": 1}
    assert sha256_bytes(picture(0)) in place.failures[0]


def snapshot_of(place, path):
    return catalogue.write_snapshot(path, "new", place.catalogue)


def test_what_was_taken_in_becomes_photos_of_the_graph(place, tmp_path):
    """The stage `photos` reads the snapshot: each photo once, with the newest of its masks."""
    place.put("1.png", picture(0))
    place.put("2.png", picture(1))
    out = tmp_path / "snapshots/photos.csv"
    for row in (3, 5, 3):  # the last upload takes the second one back
        place.put("masks/1.png", mask(row))
        place.run()
        snapshot_of(place, out)
        config = PhotosConfig(sources={"new": f"{place.config.store}/accepted"}, min_side_px=32)
        photos(out, tmp_path / "photos", config, open_source, Run())
        rows = read_csv(tmp_path / "photos/photos.csv")
        assert {one["sha256"]: bool(one["mask"]) for one in rows} == {
            sha256_bytes(picture(0)): True,
            sha256_bytes(picture(1)): False,
        }
        labelled = next(one for one in rows if one["mask"])
        shown = np.asarray(Image.open(tmp_path / "photos" / labelled["mask"]))
        assert list(np.flatnonzero(shown.any(1))) == [row]


def test_the_snapshot_keeps_other_sources_and_changes_only_with_what_came(place, tmp_path):
    """Rows of other sources stay; bad photos and copies leave it as it was; an old number gives the old one."""
    out = tmp_path / "photos.csv"
    other = {"source": "archive", "name": "x.jpg", "size_bytes": "1", "sha256": "0" * 64}
    write_csv(out, COLUMNS, [other])
    place.run()
    with pytest.raises(InputError):
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
    catalogue.write_snapshot(out, "new", place.catalogue.until(1))
    assert out.read_bytes() == first


HEADER = ",".join(catalogue.COLUMNS).encode()


@pytest.mark.parametrize("content", [b"", b"a,b\n", HEADER + b"\na.png,1\n", HEADER + b"\n\xff", b'"'])
def test_a_damaged_catalogue_is_named(place, content):
    """Nothing is skipped silently."""
    place.store.create("catalogue/00000001.csv", content)
    with pytest.raises(InputError, match=r"catalogue/00000001\.csv"):
        place.run()


def test_a_missing_batch_is_named(place):
    """Its photos would come in a second time."""
    for number in range(2):
        place.put(f"{number}.png", picture(number))
        place.run()
    (place.folder / "catalogue/00000001.csv").unlink()
    with pytest.raises(InputError, match=r"catalogue/00000001\.csv"):
        place.run()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_darkness_detector(tmp_path_factory.mktemp("model") / "model.onnx", tile_px=32)


def inspect(place, model, store=None):
    read = catalogue.read_catalogue(place.store)
    return inspections.inspect_batches(store or place.store, read, lambda: model, InspectConfig(), Run())


def inspected(place, number=1):
    return json.loads(place.store.read(f"inspected/{number:08d}.json"))


def test_names_that_would_lead_out_or_break_a_table_are_harmless(place, model):
    """They are listed escaped, found again, shown in the report, and used as no path."""
    names = [
        "g\n.jpg",
        "e\\..\\f.jpg",
        'q"uo,te;.jpg',
        "=1+1.jpg",
        "h?#%2e.jpg",
        "é ü.jpg",
        "\udcff.jpg",
        "...jpg",
    ]
    folders = ["a b", "\x1b[31m", "~"]
    for number, name in enumerate(names):
        place.put(f"{folders[number % 3]}/{name}", picture(number))
    hidden = 1  # "...jpg"
    assert place.run() == {"photos": len(names) - hidden, "other_files": hidden}
    assert place.run() == {"seen": len(names) - hidden, "other_files": hidden}
    inspect(place, model)
    assert all(re.fullmatch(r"[A-Za-z0-9_./-]+", name) and ".." not in name for name in place.names())
    assert all(not re.search(r"[\x00-\x1f\ud800-\udfff]", entry.name) for entry in place.catalogue.entries())


def test_each_batch_is_inspected_once(place, model):
    """The report names photos by where they came from; a second call does nothing and asks for no model."""
    place.put("spill way/a..b.png", picture(0))
    place.run()
    (report,) = inspect(place, model)
    assert report == f"{inspected(place)['results']}/report.html"
    assert inspected(place)["photos"] == [sha256_bytes(picture(0))]
    shown = rf"spill-way-a-b-{sha256_bytes(picture(0))[:8]}\.png"
    assert re.search(shown, place.store.read(report).decode())
    place.put("bad.png", b"bad")
    place.put("copy.png", picture(0))
    place.run()
    assert inspections.not_inspected(place.store, place.catalogue) == {}
    assert inspect(place, None) == []


def test_an_inspection_killed_at_any_write_is_done_again(tmp_path, model):
    """It ends with the same bytes as one that was never killed."""
    whole = Place(tmp_path, "whole")
    whole.put("a.png", picture(0))
    whole.run()
    inspect(whole, model)
    for writes in (1, 3, len(whole.names("results/"))):
        place = Place(tmp_path, f"killed-{writes}")
        place.run()
        with pytest.raises(Killed):
            inspect(place, model, mortal(place.store, writes, True))
        assert place.names("inspected/") == []
        assert len(inspect(place, model)) == 1
        assert place.contents() == whole.contents()


def test_a_half_report_of_another_model_does_not_mix_with_the_next(place, model, tmp_path):
    """The champion may change between a kill and the next run."""
    place.put("a.png", picture(0))
    place.run()
    other = write_darkness_detector(tmp_path / "other.onnx", tile_px=16)
    with pytest.raises(Killed):
        inspect(place, other, mortal(place.store, 3, True))
    half = set(place.names("results/"))
    inspect(place, model)
    results = inspected(place)["results"]
    assert not [name for name in half if name.startswith(results)]
    assert (
        json.loads(place.store.read(f"{results}/survey.json"))["model_sha256"]
        == inspected(place)["model_sha256"]
    )


def test_a_batch_whose_photo_vanished_from_the_store_is_an_error_and_the_others_are_inspected(place, model):
    """No green run with a hole in it."""
    for batch in range(3):
        place.put(f"{batch}.png", picture(batch))
        place.run()
    _, gone = place.catalogue.photos()[1]
    (place.folder / gone.file).unlink()
    with pytest.raises(InputError, match="batch 2"):
        inspect(place, model)
    assert place.names("inspected/") == ["inspected/00000001.json", "inspected/00000003.json"]


def test_labels_count_from_the_last_training(place):
    """A new mask and a corrected one count, a copy or a touched file does not."""
    for number in range(3):
        place.put(f"{number}.png", picture(number))
    place.put("masks/0.png", mask())
    place.run()
    assert place.catalogue.num_new_labels(0) == 1
    place.put("masks/1.png", mask())
    place.put("masks/0.png", mask(7))
    place.run()
    assert [place.catalogue.num_new_labels(since) for since in (0, 1, 2)] == [2, 2, 0]
    os.utime(place.incoming / "masks/0.png", (1, 1))
    assert place.run()["copies"] == 1
    assert place.catalogue.num_new_labels(2) == 0
