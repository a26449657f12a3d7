import hashlib
import io
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from damcrack.data.imageset import ImageSet, ImageSetWriter
from damcrack.files import InputError

CLASSES = ("no crack", "crack")


def contents(num: int, size: int = 300_000) -> dict[str, bytes]:
    """Byte strings that stand for JPEGs, four to a shard of 1 MiB."""
    rng = np.random.default_rng(0)
    return {f"{number:03d}.jpg": rng.bytes(size + number) for number in range(num)}


def write(
    root: Path, images: dict[str, bytes], masked: Collection[str] = (), drop: Collection[str] = ()
) -> ImageSet:
    """Write a set in which some images have a mask, named after them, and take some out again."""
    writer = ImageSetWriter(root, shard_mib=1)
    for key, encoded in images.items():
        writer.add(key, encoded, label=0, split="train")
        if key in masked:
            writer.add_mask(b"mask of " + key.encode())
    writer.drop([key in drop for key in images])
    writer.finish("tiles.csv", CLASSES, (8, 8))
    return ImageSet.open(root)


def read(images: ImageSet) -> dict[str, bytes]:
    """All images by key, as the shards hold them."""
    return {images.rows[number]["key"]: encoded for number, encoded in images.encoded()}


def read_masks(images: ImageSet) -> dict[str, bytes]:
    """All masks by key of their image."""
    return {images.rows[number]["key"]: encoded for number, encoded in images.masks()}


def write_tar(path: Path, contents: dict[str, bytes]) -> None:
    """With the standard library's writer."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, content in contents.items():
            member = tarfile.TarInfo(key)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_shards_are_the_bytes_that_tarfile_writes(tmp_path: Path) -> None:
    """Headers, padding and end are those of the standard library's plain tar writer."""
    images = {"one.jpg": b"x" * 700, "two.jpg": b"", "three.jpg": b"y" * 512}
    write(tmp_path / "set", images)
    write_tar(tmp_path / "expected.tar", images)
    assert (tmp_path / "set/shards/00000.tar").read_bytes() == (tmp_path / "expected.tar").read_bytes()


def test_a_key_must_fit_a_tar_header(tmp_path: Path) -> None:
    """A hundred bytes are written as they are; one more is refused instead of running into the next field."""
    assert read(write(tmp_path / "fits", {"k" * 100: b"x"})) == {"k" * 100: b"x"}
    with pytest.raises(ValueError, match="long"):
        write(tmp_path / "long", {"k" * 101: b"x"})


def test_images_come_back_from_several_shards(tmp_path: Path) -> None:
    """Ten images of 0.3 MB make three shards of about 1 MiB."""
    images = contents(10)
    written = write(tmp_path / "set", images)
    assert read(written) == images
    assert [row["shard"] for row in written.rows] == ["00000.tar"] * 4 + ["00001.tar"] * 4 + ["00002.tar"] * 2


def test_dropped_images_are_in_neither_index_nor_shards(tmp_path: Path) -> None:
    """Only the shard that held one is written again; one that held nothing else is gone."""
    images = contents(10)
    write(tmp_path / "whole", images)
    unwanted = ("005.jpg", "008.jpg", "009.jpg")
    rest = write(tmp_path / "rest", images, drop=unwanted)
    assert read(rest) == {key: encoded for key, encoded in images.items() if key not in unwanted}
    files = sorted((tmp_path / "rest/shards").iterdir())
    assert [file.name for file in files] == ["00000.tar", "00001.tar"]
    shards = [(tmp_path / name / "shards/00000.tar").read_bytes() for name in ("whole", "rest")]
    assert shards[0] == shards[1]
    with tarfile.open(files[1]) as tar:
        assert tar.getnames() == ["004.jpg", "006.jpg", "007.jpg"]


def test_masks_come_back_with_their_images(tmp_path: Path) -> None:
    """In several shards, also where the first image has none and a whole shard has none."""
    images = contents(10)
    masked = ["001.jpg", "003.jpg", "008.jpg", "009.jpg"]
    written = write(tmp_path / "set", images, masked)
    assert read(written) == images
    assert read_masks(written) == {key: b"mask of " + key.encode() for key in masked}
    assert sorted(path.name for path in (tmp_path / "set/masks").iterdir()) == ["00000.tar", "00002.tar"]


def test_the_index_names_the_masks_by_their_content(tmp_path: Path) -> None:
    """Each row holds its mask's hash, so that another mask is another digest; the images' rows stay the same."""
    images = contents(3, size=10)
    plain, masked = write(tmp_path / "plain", images), write(tmp_path / "one", images, ["001.jpg"])
    hashes = [row["mask_sha256"] for row in masked.rows]
    assert hashes == ["", hashlib.sha256(b"mask of 001.jpg").hexdigest(), ""]
    assert len({plain.digest, masked.digest, write(tmp_path / "two", images, ["002.jpg"]).digest}) == 3
    assert [row | {"mask_sha256": ""} for row in masked.rows] == [
        row | {"mask_sha256": ""} for row in plain.rows
    ]


def test_a_set_without_masks_says_nothing_of_them(tmp_path: Path) -> None:
    """No column, no folder, and no mask is read: its bytes are those of the time before masks."""
    written = write(tmp_path / "set", {"one.jpg": b"x"})
    assert (tmp_path / "set/tiles.csv").read_text() == (
        f"key,shard,label,split,sha256\none.jpg,00000.tar,0,train,{hashlib.sha256(b'x').hexdigest()}\n"
    )
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["set.json", "shards", "tiles.csv"]
    assert read_masks(written) == {}


def test_masks_of_dropped_images_are_dropped(tmp_path: Path) -> None:
    """Those of the others stay, in shards that were written again too; images added later get theirs."""
    images = contents(10)
    masked = ["001.jpg", "005.jpg", "006.jpg", "008.jpg"]
    rest = write(tmp_path / "rest", images, masked, drop=["004.jpg", "005.jpg", "008.jpg", "009.jpg"])
    assert sorted(read_masks(rest)) == ["001.jpg", "006.jpg"]
    assert sorted(path.name for path in (tmp_path / "rest/masks").iterdir()) == ["00000.tar", "00001.tar"]


def test_images_added_after_a_drop_keep_their_masks(tmp_path: Path) -> None:
    """They begin a shard of their own, of images and of masks."""
    writer = ImageSetWriter(tmp_path / "set")
    for key in ("a.jpg", "b.jpg"):
        writer.add(key, b"image", label=1, split="train")
        writer.add_mask(key.encode())
    writer.drop([True, False])
    writer.add("c.jpg", b"image", label=1, split="train")
    writer.add_mask(b"c.jpg")
    writer.finish("tiles.csv", CLASSES, (8, 8))
    images = ImageSet.open(tmp_path / "set")
    assert read_masks(images) == {"b.jpg": b"b.jpg", "c.jpg": b"c.jpg"}
    assert [row["shard"] for row in images.rows] == ["00000.tar", "00001.tar"]


def test_a_set_whose_masks_are_all_dropped_has_none(tmp_path: Path) -> None:
    """Neither column nor member is left."""
    written = write(tmp_path / "set", contents(3, size=10), ["001.jpg"], drop=["001.jpg"])
    assert "mask_sha256" not in written.rows[0]
    assert read_masks(written) == {}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (None, "masks/00000.tar cannot be read"),
        ({"001.jpg": "001.jpg"}, "1 images in masks, 2 rows"),
        ({key: key for key in ("001.jpg", "002.jpg", "000.jpg")}, "000.jpg in masks/00000.tar is not in"),
        ({"001.jpg": "002.jpg", "002.jpg": "001.jpg"}, "001.jpg in masks/00000.tar is not the one"),
    ],
    ids=["missing", "one too few", "one too many", "exchanged"],
)  # fmt: skip
def test_masks_that_do_not_fit_the_index_are_refused(
    tmp_path: Path, keys: dict[str, str] | None, message: str
) -> None:
    """Missing, cut short, one too few or one too many, or those of other images."""
    images = write(tmp_path / "set", contents(3, size=10), masked=["001.jpg", "002.jpg"])
    shard = tmp_path / "set/masks/00000.tar"
    if keys is None:
        shard.unlink()
    else:
        write_tar(shard, {key: b"mask of " + of.encode() for key, of in keys.items()})
    with pytest.raises(InputError, match=message):
        read_masks(images)


def test_a_shard_cut_short_is_refused(tmp_path: Path) -> None:
    """In the middle of its second image."""
    images = write(tmp_path / "set", contents(3, size=1000))
    shard = tmp_path / "set/shards/00000.tar"
    shard.write_bytes(shard.read_bytes()[:2200])
    with pytest.raises(InputError, match=r"shards/00000\.tar cannot be read"):
        read(images)


def test_shards_of_another_set_are_refused(tmp_path: Path) -> None:
    """Its images have the same keys, and other labels."""
    write(tmp_path / "set", contents(3, size=10))
    other = {key: encoded[::-1] for key, encoded in contents(3, size=10).items()}
    write(tmp_path / "other", other)
    (tmp_path / "other/shards/00000.tar").replace(tmp_path / "set/shards/00000.tar")
    with pytest.raises(InputError, match=r"000\.jpg in shards/00000\.tar is not the one"):
        read(ImageSet.open(tmp_path / "set"))


@pytest.mark.parametrize("label", ["2", "-2", "x", "", "1.0"])
def test_a_label_that_is_no_class_is_refused(tmp_path: Path, label: str) -> None:
    """As after an edit by hand."""
    images = write(tmp_path / "set", contents(2, size=10))
    changed = replace(images, rows=({**images.rows[0], "label": label}, *images.rows[1:]))
    with pytest.raises(InputError, match=r"tiles\.csv: label"):
        _ = changed.labels


def test_a_shard_that_cannot_be_written_fails_as_such(tmp_path: Path) -> None:
    """A file as large as it may get, as on a full disk: the error is the system's, and closing adds none."""
    text = """
import resource, sys
from contextlib import closing
from pathlib import Path
from damcrack.data.imageset import ImageSetWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    with closing(ImageSetWriter(Path(sys.argv[1]))) as writer:
        for number in range(10):
            writer.add(f"{number}.jpg", bytes(20_000), label=0, split="train")
            writer.add_mask(bytes(20_000))
        writer.finish("tiles.csv", ["a", "b"], (8, 8))
except OSError as error:
    sys.exit(0 if error.errno == 27 else 2)  # EFBIG
sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", text, tmp_path / "set"], capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 1, "index": "t", "image_hw": 3}'])
def test_a_damaged_description_is_named(tmp_path: Path, content: str) -> None:
    """set.json that is empty, something else, or lacks what is needed."""
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(InputError, match=r"set\.json"):
        ImageSet.open(tmp_path)


def tar_of(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(member.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512) + bytes(1024))


def sparse_header(name: str, size: int) -> bytes:
    """Of GNU tar: a file of `size` bytes, all of them a hole."""
    member = tarfile.TarInfo(name)
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:398], header[398:410] = b"%011o\0" % size, b"%011o\0" % 0
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    "what", ["sparse", "sparse by pax", "large", "link", "hard link", "folder", "device"]
)
def test_a_shard_holds_plain_files_alone(tmp_path: Path, what: str) -> None:
    """Three gigabytes of zeros in a file of two kilobytes are refused, and whatever else a tar file can hold."""
    images = write(tmp_path / "set", {"one.jpg": b"x" * 700})
    shard = tmp_path / "set/shards/00000.tar"
    member = tarfile.TarInfo("one.jpg")
    if what == "sparse":
        shard.write_bytes(sparse_header("one.jpg", 3 * 10**9) + bytes(1024))
    elif what == "sparse by pax":
        sparse = {"major": "0", "minor": "1", "size": "3000000000", "map": "3000000000,0", "numblocks": "1"}
        member.pax_headers = {f"GNU.sparse.{name}": value for name, value in sparse.items()}
        tar_of(shard, member)
    elif what == "large":
        member.size = 3 * 10**9
        tar_of(shard, member, b"x" * 700)
    else:
        kinds = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE}
        member.type = (kinds | {"folder": tarfile.DIRTYPE, "device": tarfile.CHRTYPE})[what]
        member.linkname = "/dev/zero" if "link" in what else ""
        tar_of(shard, member)
    tracemalloc.start()
    with pytest.raises(InputError, match="00000"):
        read(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**7
