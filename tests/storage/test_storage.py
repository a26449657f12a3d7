import errno
import socket
import sys
import time

import numpy as np
import pytest

from damcrack.data.config import PhotosConfig
from damcrack.data.photo import encode_mask
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.files import InputError, read_csv
from damcrack.run import Run
from damcrack.storage import source as storage
from damcrack.storage.source import open_source
from photo_folders import encoded, fill

pytestmark = pytest.mark.slow


def test_a_folder_lists_and_reads_its_files(tmp_path):
    """Names are sorted, relative and with forward slashes; what is gone is FileNotFoundError."""
    for name in ("b.jpg", "a/c.jpg", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    source = open_source(str(tmp_path))
    assert source.names() == [".hidden", "a/c.jpg", "b.jpg"]
    assert source.read("a/c.jpg") == b"a/c.jpg"
    with pytest.raises(FileNotFoundError):
        source.read("gone.jpg")


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    """No linked file or folder, and no name with `..`, reads what lies outside; inner links work."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.jpg").write_bytes(b"secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "real.jpg").write_bytes(b"real")
    (inside / "same.jpg").symlink_to(inside / "real.jpg")
    (inside / "leak.jpg").symlink_to(tmp_path / "outside/secret.jpg")
    (inside / "folder").symlink_to(tmp_path / "outside")
    (inside / "broken.jpg").symlink_to(inside / "nothing")
    source = open_source(str(inside))
    assert source.names() == ["real.jpg", "same.jpg"]
    assert source.links_out() == ["broken.jpg", "folder", "leak.jpg"]
    secret = str(tmp_path / "outside/secret.jpg")
    for name in ("leak.jpg", "folder/secret.jpg", "../outside/secret.jpg", secret):
        with pytest.raises(FileNotFoundError):
            source.read(name)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("no/such/folder", "no such folder"),
        ("https://host/x", "expected a folder or s3"),
        ("s3://", "no bucket name"),
    ],
)
def test_other_addresses_are_refused(uri, says):
    """The message says what a source can be."""
    with pytest.raises(InputError, match=says):
        open_source(uri)


def test_a_bucket_without_boto3_says_what_to_install(monkeypatch):
    """The S3 part is optional; its absence is no traceback."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(InputError, match=r'pip install "damcrack\[s3\]"'):
        open_source("s3://bucket/prefix")


def test_a_prefix_is_a_folder(s3):
    """Names are relative to the prefix; siblings that share its letters, and folder markers, are left out."""
    name = s3(
        {"dam/a.jpg": b"a", "dam/b/c é.jpg": b"c", "dam/empty/": b"", "dam-2/x.jpg": b"x", "y.jpg": b"y"}
    )
    for uri in (f"s3://{name}/dam", f"s3://{name}/dam/"):
        source = open_source(uri)
        assert source.names() == ["a.jpg", "b/c é.jpg"]
        assert source.read("b/c é.jpg") == b"c"
    assert open_source(f"s3://{name}").names() == ["dam-2/x.jpg", "dam/a.jpg", "dam/b/c é.jpg", "y.jpg"]


def test_a_file_is_created_once_and_read_as_listed(tmp_path):
    """The second of two writers is refused, unless it writes the same; a changed file is not the listed one."""
    check_create_once(open_source(str(tmp_path)))
    source = open_source(str(tmp_path))
    (listed,) = source.listed("a/")
    (tmp_path / "a/b.json").write_bytes(b"another")
    with pytest.raises(FileNotFoundError):
        source.read("a/b.json", listed.etag)


def test_an_object_is_created_once_and_read_as_listed(s3):
    """As in a folder, on real S3."""
    check_create_once(open_source(f"s3://{s3({})}/place"))


def check_create_once(store):
    assert store.create("a/b.json", b"first")
    assert not store.create("a/b.json", b"second")
    assert store.create("a/b.json", b"first")
    assert store.read("a/b.json") == b"first"
    (listed,) = store.listed("a/")
    assert (listed.name, store.listed("b")) == ("a/b.json", [])
    assert store.read("a/b.json", listed.etag) == b"first"
    with pytest.raises(FileNotFoundError):
        store.read("a/b.json", '"another"')


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//x", "a\\x", "a\nx"])
def test_nothing_is_written_outside_the_folder(tmp_path, name):
    """A name that could lead out is refused."""
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError):
        open_source(str(tmp_path / "in")).create(name, b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    """One sentence, and the next attempt starts from nothing."""

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = open_source(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", full)
        with pytest.raises(InputError, match="No space left"):
            source.create("a.json", b"content")
    assert list(tmp_path.iterdir()) == []
    assert source.create("a.json", b"content")


def test_long_listings_come_whole(s3, monkeypatch):
    """More objects than one page holds are all listed."""
    name = s3({f"{number:02d}.jpg": b"" for number in range(12)})
    source = open_source(f"s3://{name}")
    ask = source._client.list_objects_v2
    monkeypatch.setattr(source._client, "list_objects_v2", lambda **options: ask(**options, MaxKeys=5))
    assert source.names() == [f"{number:02d}.jpg" for number in range(12)]


def test_a_vanished_object_is_file_not_found(s3):
    """As for a folder, so that the stages need not know which it is."""
    with pytest.raises(FileNotFoundError):
        open_source(f"s3://{s3({})}/dam").read("gone.jpg")


def test_a_missing_bucket_is_named(s3):
    """Listing and reading both say which bucket is not there."""
    source = open_source("s3://damcrack-no-such-bucket/dam")
    with pytest.raises(InputError, match=r"s3://damcrack-no-such-bucket.*no such bucket"):
        source.names()
    with pytest.raises((InputError, FileNotFoundError)):
        source.read("a.jpg")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_refused_without_showing_them(s3, monkeypatch, variable):
    """The message names the variables, never their values."""
    name = s3({"a.jpg": b"a"})
    monkeypatch.setenv(variable, "wrong-and-secret")
    with pytest.raises(InputError, match=r"access refused.*AWS_SECRET_ACCESS_KEY") as caught:
        open_source(f"s3://{name}").names()
    assert "wrong-and-secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_missing_credentials_say_which_variables(monkeypatch, tmp_path):
    """No credentials anywhere: no request is sent."""
    pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InputError, match="no S3 credentials; set AWS_ACCESS_KEY_ID"):
        open_source("s3://bucket").names()


@pytest.mark.parametrize("answers", [False, True])
def test_an_unreachable_endpoint_fails_soon_and_keeps_secrets(monkeypatch, answers):
    """Nothing listening, or something that accepts and stays silent: an error within seconds."""
    pytest.importorskip("boto3")
    monkeypatch.setattr(storage, "READ_TIMEOUT_S", 0.2)
    if answers:
        monkeypatch.setattr(storage, "MAX_ATTEMPTS", 2)
    waits = []
    monkeypatch.setattr(storage.time, "sleep", waits.append)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if answers:
            listener.listen(20)
        address = f"http://user:hidden-password@127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
        start_s = time.monotonic()
        with pytest.raises(InputError, match=r"cannot be reached.*AWS_ENDPOINT_URL") as caught:
            open_source("s3://bucket/dam").names()
    assert time.monotonic() - start_s + sum(waits) < 10
    assert not any(secret in str(caught.value) for secret in ("hidden-password", "key-id", "secret-key"))


def test_photos_come_in_from_s3_as_from_a_folder(s3, tmp_path):
    """The same files give the same rows and masks, wherever they lie; a replaced object is noticed."""
    files = {"wall 1.png": encoded(0, kind="PNG"), "b.png": encoded(1, kind="PNG")}
    files["masks/wall 1.png"] = encode_mask(np.arange(40 * 60).reshape(40, 60) % 5 == 0)
    folder = fill(tmp_path / "in", files)
    bucket = s3({f"raw/{name}": content for name, content in files.items()})
    outs = {}
    for uri in (folder, f"s3://{bucket}/raw"):
        config = PhotosConfig(sources={"dam": uri}, min_side_px=32)
        out = outs[uri] = tmp_path / f"out{len(outs)}"
        snapshot(config.sources, tmp_path / "s.csv", open_source, Run())
        photos(tmp_path / "s.csv", out, config, open_source, Run())
    one, two = outs.values()
    assert read_csv(one / "photos.csv") == read_csv(two / "photos.csv")
    assert (two / "masks/dam/wall 1.png").read_bytes() == (one / "masks/dam/wall 1.png").read_bytes()
    open_source(f"s3://{bucket}/raw")._client.put_object(Bucket=bucket, Key="raw/b.png", Body=b"new")
    with pytest.raises(InputError, match=r"b\.png has changed"):
        photos(tmp_path / "s.csv", tmp_path / "again", config, open_source, Run())
