"""S3 as it is: answers that fail, break off, come short, or are of something else."""

import hashlib

import pytest

from damcrack.storage import source as storage
from damcrack.storage.source import NetworkError, open_source
from faulty_s3 import BODY_FAULTS, Campaign, FaultyS3, fill

pytestmark = pytest.mark.slow
CONTENT = hashlib.shake_256(b"").digest(300_000)


@pytest.fixture
def faulty(s3_service, monkeypatch):
    monkeypatch.setattr(storage, "MAX_WAIT_S", 0.01)
    server = FaultyS3(s3_service["AWS_ENDPOINT_URL"])
    yield server
    server.shutdown()


@pytest.fixture
def behind(s3, faulty, monkeypatch):
    """Open a new bucket with these objects behind the faulty service."""

    def opened(objects):
        name = s3(objects)
        monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
        return open_source(f"s3://{name}")

    return opened


@pytest.mark.parametrize("fault", [*BODY_FAULTS, "empty"])
def test_an_object_comes_whole_whatever_fails_twice(behind, faulty, tmp_path, fault):
    """The listing, the object, its beginning, a file on disk and a new object, each after two failures."""
    left = dict.fromkeys(range(5), 2)
    step = [0]

    def failing(method, path):
        left[step[0]] -= 1
        return fault if left[step[0]] >= 0 else ""

    source = behind({"a.jpg": CONTENT})
    faulty.fault = failing
    assert [one.size_bytes for one in source.listed()] == [len(CONTENT)]
    step[0] = 1
    assert source.read("a.jpg") == CONTENT
    step[0] = 2
    if fault != "other-bytes":  # a beginning has no checksum
        assert source.first_bytes("a.jpg", 32) == CONTENT[:32]
    step[0] = 3
    source.save("a.jpg", tmp_path / "a.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == CONTENT
    step[0] = 4
    assert source.create("b.jpg", CONTENT)
    assert source.read("b.jpg") == CONTENT


def test_a_listed_object_is_resumed(behind, faulty, tmp_path):
    """Each body ends half-way: together they are not much longer than the object."""
    source = behind({"a.mp4": CONTENT})
    source.listed()
    faulty.fault = lambda method, path: "cut" if faulty.reads["reads"] < 9 else ""
    source.save("a.mp4", tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == CONTENT
    assert faulty.counts["bytes"] < 2 * len(CONTENT)


@pytest.mark.parametrize("fault", ["500", "drop-after", "short", "empty", "other-bytes", "etag"])
def test_what_never_comes_is_a_failure_of_the_network(behind, faulty, monkeypatch, fault):
    """Neither gone nor another content; the objects after it are asked for less often, until one comes."""
    monkeypatch.setattr(storage, "MAX_ATTEMPTS", 4)
    monkeypatch.setattr(storage, "FEW_ATTEMPTS", 2)
    content = {f"{number}.jpg": bytes([number + 1]) * 9 for number in range(3)}
    source = behind(content)
    source.listed()
    asked = []

    def failing(method, path):
        asked.append(path[-5:])
        if fault == "other-bytes" and "2.jpg" not in path:
            return ("other-bytes", "short")[len(asked) % 2]
        return "" if "2.jpg" in path else fault

    faulty.fault = failing
    for name in ("0.jpg", "1.jpg"):
        with pytest.raises(NetworkError):
            source.read(name)
    assert source.read("2.jpg") == content["2.jpg"]
    if fault != "short":  # of which a part came, and some more, and some more
        assert asked == ["0.jpg"] * 4 + ["1.jpg"] * 2 + ["2.jpg"]


def test_an_object_replaced_since_the_listing_is_not_read(behind):
    """It is another one, which has another size and another hash."""
    source = behind({"a.jpg": CONTENT})
    source.listed()
    source._client.put_object(Bucket=source._bucket, Key="a.jpg", Body=b"another")
    with pytest.raises(FileNotFoundError):
        source.read("a.jpg")
    source.listed()
    assert source.read("a.jpg") == b"another"


def test_an_etag_that_is_no_md5_is_not_taken_for_one(behind, faulty):
    """As of an object that came in parts; or of a service that makes its ETags in another way."""
    source = behind({})
    client, place = source._client, {"Bucket": source._bucket, "Key": "parts.jpg"}
    upload = client.create_multipart_upload(**place)["UploadId"]
    part = client.upload_part(**place, UploadId=upload, PartNumber=1, Body=CONTENT)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload=parts)
    source.listed()
    assert source.read("parts.jpg") == CONTENT
    faulty.fault = lambda method, path: "etag"
    assert open_source(f"s3://{source._bucket}").read("parts.jpg") == CONTENT


@pytest.mark.parametrize("commands", [("snapshot", "photos"), ("inspect",), ("imagery",)], ids="+".join)
def test_commands_end_complete_where_three_of_ten_requests_fail(commands, s3, faulty, monkeypatch, tmp_path):
    """As without a fault, and no object is read more often than that makes necessary."""
    bucket, num = s3({}), 5
    fill(bucket, num)
    right, trial = (Campaign(bucket, tmp_path / name) for name in ("right", "trial"))
    expected = [getattr(right, command)() for command in commands]
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
    faulty.at_random(0.3, 1)
    assert [getattr(trial, command)() for command in commands] == expected
    assert faulty.counts["faults"] >= 2
    good = faulty.reads["reads"] - faulty.reads["failed"]
    assert good == num * len(commands) if commands != ("imagery",) else good <= 3 * num
