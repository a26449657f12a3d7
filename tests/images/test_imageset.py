import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from damcrack.images.imageset import ImageSet, ImageSetWriter

CLASSES = ("no crack", "crack")


def contents(num: int, size: int = 300_000) -> dict[str, bytes]:
    """Byte strings that stand for JPEGs, four to a shard of 1 MiB."""
    rng = np.random.default_rng(0)
    return {f"{number:03d}.jpg": rng.bytes(size + number) for number in range(num)}


def write(root: Path, images: dict[str, bytes], unwanted: tuple[str, ...] = ()) -> ImageSet:
    """Write a set and take the unwanted images out again."""
    writer = ImageSetWriter(root, shard_mib=1)
    for key, encoded in images.items():
        writer.add(key, encoded, label=0, split="train")
    writer.drop([key in unwanted for key in images])
    writer.finish("tiles.csv", CLASSES, (8, 8))
    return ImageSet.open(root)


def read(images: ImageSet) -> dict[str, bytes]:
    """All images by key, as the shards hold them."""
    return {images.rows[number]["key"]: encoded for number, encoded in images.encoded()}


def test_shards_are_the_bytes_that_tarfile_writes(tmp_path: Path) -> None:
    """Headers, padding and end are those of the standard library's plain tar writer."""
    images = {"one.jpg": b"x" * 700, "two.jpg": b"", "three.jpg": b"y" * 512}
    write(tmp_path / "set", images)
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, encoded in images.items():
            member = tarfile.TarInfo(key)
            member.size = len(encoded)
            tar.addfile(member, io.BytesIO(encoded))
    assert (tmp_path / "set/shards/00000.tar").read_bytes() == expected.getvalue()


def test_a_key_must_fit_a_tar_header(tmp_path: Path) -> None:
    """A hundred bytes are written as they are; one more is refused instead of running into the next field."""
    assert read(write(tmp_path / "fits", {"k" * 100: b"x"})) == {"k" * 100: b"x"}
    with pytest.raises(ValueError, match="a tar header holds 100"):
        write(tmp_path / "long", {"k" * 101: b"x"})


def test_images_come_back_from_several_shards(tmp_path: Path) -> None:
    """Ten images of 0.3 MB make three shards of about 1 MiB."""
    images = contents(10)
    written = write(tmp_path / "set", images)
    assert read(written) == images
    assert [row["shard"] for row in written.rows] == ["00000.tar"] * 4 + ["00001.tar"] * 4 + ["00002.tar"] * 2


def test_dropped_images_are_in_neither_index_nor_shards(tmp_path: Path) -> None:
    """Only the shard that held one is written anew; one that held nothing else is gone."""
    images = contents(10)
    write(tmp_path / "whole", images)
    unwanted = ("005.jpg", "008.jpg", "009.jpg")
    rest = write(tmp_path / "rest", images, unwanted)
    assert read(rest) == {key: encoded for key, encoded in images.items() if key not in unwanted}
    files = sorted((tmp_path / "rest/shards").iterdir())
    assert [file.name for file in files] == ["00000.tar", "00001.tar"]
    digests = [
        hashlib.sha256((tmp_path / name / "shards/00000.tar").read_bytes()) for name in ("whole", "rest")
    ]
    assert digests[0].digest() == digests[1].digest()
    with tarfile.open(files[1]) as tar:
        assert tar.getnames() == ["004.jpg", "006.jpg", "007.jpg"]
