"""Photos in a bucket: addresses in every form, objects that cannot be read, connections that break off."""

import random

import numpy as np
import pytest

from damcrack.data.photo import encode_jpeg
from damcrack.files import OUTPUT_MARKER, InputError
from damcrack.inspection.places import Unusable
from damcrack.inspection.sources import Photo, list_photos, opened
from damcrack.storage import source as storage
from damcrack.storage.source import open_source
from faulty_s3 import FaultyS3
from surveys import write_video

pytestmark = pytest.mark.slow


def picture(seed):
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def listing(uri):
    listed, set_aside = list_photos([uri], open_source)
    return [one.name for one in listed], {one.name: one.reason for one in set_aside}


@pytest.fixture
def bucket(s3):
    return s3(
        {
            "2026/a.jpg": picture(1),
            "2026/UP.JPG": picture(2),
            "2026/noext": picture(3),
            "2026/notes": b"text",
            "2026/empty": b"",
            "2026/n.txt": b"text",
            "2026/masks/a.png": b"",
            "2026/sub/b.jpg": picture(4),
            f"2026/old/{OUTPUT_MARKER}": b"",
            "2026/old/photos/x/preview.jpg": picture(5),
            "2026/x/survey.json": b'{"model_sha256": "", "totals": {}}',
            "2026/x/photos/y/preview.jpg": picture(6),
            "2026/c[1].jpg": picture(7),
        }
    )


def test_a_prefix_is_listed_as_a_folder_is(bucket):
    """Every object is listed; what has no suffix is judged by its first bytes; own outputs are not entered."""
    names, reasons = listing(f"s3://{bucket}/2026")
    assert names == ["UP.JPG", "a.jpg", "c[1].jpg", "noext", "sub/b.jpg"]
    assert reasons.keys() == {"notes", "empty", "n.txt", "masks/", "old/", "x/"}


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("2026/UP.JPG", ["UP.JPG"]),
        ("2026/c[1].jpg", ["c[1].jpg"]),
        ("2026/*.jpg", ["a.jpg", "c[1].jpg"]),
        ("*/sub/?.jpg", ["2026/sub/b.jpg"]),
        ("20*/UP.*", ["2026/UP.JPG"]),
    ],
)
def test_objects_and_patterns_are_addresses(bucket, address, names):
    """One object by its key; a star stays within one folder, as in a shell."""
    assert [name.removeprefix(f"{bucket}/") for name in listing(f"s3://{bucket}/{address}")[0]] == names


@pytest.mark.parametrize(
    ("address", "says"),
    [("2026/gone.jpg", "no object"), ("2026/*.png", "fits the pattern"), ("none/", "no object")],
)
def test_addresses_of_nothing_are_refused(bucket, address, says):
    """With what is not there."""
    with pytest.raises(InputError, match=says):
        listing(f"s3://{bucket}/{address}")


@pytest.fixture
def faulty(s3_service):
    server = FaultyS3(s3_service["AWS_ENDPOINT_URL"])
    yield server
    server.shutdown()


@pytest.mark.parametrize("fault", ["cut", "short"])
def test_what_breaks_off_is_read_again(s3, monkeypatch, faulty, fault):
    """Half of all bodies end early, with or without a length that says so: every photo comes whole."""
    name = s3({f"in/{number}.jpg": picture(number) for number in range(6)})
    rng = random.Random(1)
    faulty.fault = lambda method, path: fault if ".jpg" in path and rng.random() < 0.4 else ""
    found = read_through(faulty, monkeypatch, name)
    assert {one.name: one.encoded for one in found.values()} == {
        f"{number}.jpg": picture(number) for number in range(6)
    }


@pytest.mark.parametrize("fault", ["cut", "short", "refused"])
def test_one_object_that_cannot_be_read_is_set_aside(s3, monkeypatch, faulty, fault):
    """After some tries, with the reason of the network or the service; the photo is not called damaged."""
    monkeypatch.setattr(storage, "MAX_ATTEMPTS", 2)
    name = s3({f"in/{number}.jpg": picture(number) for number in range(3)})
    faulty.fault = lambda method, path: fault if path.endswith("/1.jpg") else ""
    found = read_through(faulty, monkeypatch, name)
    assert [type(found[f"{number}.jpg"]) for number in range(3)] == [Photo, Unusable, Photo]
    assert "cannot be read" in found["1.jpg"].reason
    assert "corrupt" not in found["1.jpg"].reason


def read_through(faulty, monkeypatch, name):
    """Read all photos through the faulty service."""
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
        listed, _ = list_photos([f"s3://{name}/in"], open_source)
        return {one.name: one for one in opened(listed, 1.0)}


def test_a_video_is_streamed_to_disk(s3, tmp_path):
    """And its frames are those of the file."""
    write_video(tmp_path / "a.mp4", [np.full((48, 64), 5 * number, np.uint8) for number in range(25)])
    name = s3({"in/a.mp4": (tmp_path / "a.mp4").read_bytes()})
    frames = {}
    for place in (f"s3://{name}/in", str(tmp_path)):
        listed, _ = list_photos([place], open_source)
        frames[place] = [(one.name, one.sha256) for one in opened(listed, 1.0)]
    one, other = frames.values()
    assert one == other
    assert len(one) == 3
