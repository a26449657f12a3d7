import errno
import io
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from damcrack.data.config import MiniimagenetConfig
from damcrack.data.imageset import ImageSet, ImageSetWriter
from damcrack.data.miniimagenet import miniimagenet
from damcrack.data.snapshot import snapshot
from damcrack.files import InputError
from damcrack.run import Run
from damcrack.storage.source import open_source
from photo_folders import encoded, fill, reasons

CONFIG = MiniimagenetConfig(source="sample", sample_classes=3, sample_per_class=5, image_px=16)


def folders(per_class: dict[str, int], under: str = "train") -> dict[str, bytes]:
    """ImageFolder files, every image different."""
    names = [f"{under}/{label}/{number}.jpg" for label, count in per_class.items() for number in range(count)]
    return {name: encoded(number) for number, name in enumerate(names)}


def take(tmp_path: Path, files: dict[str, bytes], **changes) -> tuple[ImageSet, dict[str, object]]:
    """Write files, snapshot them, run the stage."""
    config = replace(CONFIG, source=fill(tmp_path / "in", files), **changes)
    snapshot(config.sources, tmp_path / "s.csv", open_source, Run())
    summary = miniimagenet(tmp_path / "s.csv", tmp_path / "out", config, open_source, Run())
    return ImageSet.open(tmp_path / "out"), summary


def counts(images: ImageSet) -> Counter:
    """Images per class and split."""
    return Counter((row["class"], row["split"]) for row in images.rows)


def test_classes_are_balanced_and_split_alike(tmp_path):
    """The scarcest class decides for all; labels follow the alphabet; each class gives its share to val."""
    images, _ = take(tmp_path, folders({"toad": 10, "cat": 14, "ship": 23}))
    assert images.classes == ("cat", "ship", "toad")
    assert counts(images) == {
        (name, split): n for name in images.classes for split, n in (("train", 8), ("val", 2))
    }
    assert all(images.classes[int(row["label"])] == row["class"] for row in images.rows)


def test_found_splits_are_merged_and_drawn_anew(tmp_path):
    """Classes that only train or only val has end up in both."""
    files = folders({"cat": 10, "dog": 5}) | folders({"dog": 5, "toad": 10}, "val")
    files = {name: encoded(number) for number, name in enumerate(files)}
    images, _ = take(tmp_path, files)
    assert set(counts(images).values()) == {8, 2}


@pytest.mark.parametrize(
    "name", ["train/cat/images/1.jpg", "set/val/cat/1.jpg", "cat/1.jpg", "animals/cat/1.jpg"]
)
def test_the_innermost_folder_is_the_class(tmp_path, name):
    """Tiny-ImageNet's `images/` and outer folders do not count."""
    images, _ = take(tmp_path, folders({"cat": 3, "dog": 4}) | {name: encoded(99)})
    assert images.classes == ("cat", "dog")
    assert len(images) == 8


def test_split_lists_give_the_classes(tmp_path):
    """train.csv, val.csv and test.csv are merged; wrong rows are set aside, unlisted files left alone."""
    files = {f"images/{number}.jpg": encoded(number) for number in range(14)}
    lists = {"train.csv": range(6), "val.csv": range(6, 12)}
    for file, numbers in lists.items():
        rows = "".join(f"{number}.jpg,{'cat' if number < 6 else 'dog'}\n" for number in numbers)
        files[file] = b"filename,label\n" + rows.encode()
    files["test.csv"] = b"filename,label\nnone.jpg,cat\n../up.jpg,cat\n0.jpg,dog\n"
    images, summary = take(tmp_path, files)
    assert counts(images) == {("cat", "train"): 4, ("cat", "val"): 1, ("dog", "train"): 4, ("dog", "val"): 1}
    found = reasons(tmp_path / "out")
    assert "no such file" in found["images/none.jpg"]
    assert "cat and dog" in found["images/0.jpg"]
    assert "outside" in found["images/../up.jpg"]
    assert summary["other files, left alone"] == 2


def test_images_are_square_rgb_jpegs(tmp_path):
    """Grey, wide and small images all arrive in the same shape."""
    files = {"cat/1.jpg": encoded(1, mode="L"), "cat/2.jpg": encoded(2, (90, 31))}
    files |= {"dog/1.jpg": encoded(3, (9, 9), mode="CMYK"), "dog/2.jpg": encoded(4)}
    images, _ = take(tmp_path, files)
    for _, jpeg in images.encoded():
        image = Image.open(io.BytesIO(jpeg))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (16, 16))


def test_bad_images_are_replaced_from_their_class(tmp_path):
    """A corrupt image costs nothing while its class has more; it and copies are set aside."""
    files = folders({"cat": 10, "dog": 10})
    files |= {"train/cat/bad.jpg": b"text", "train/cat/cut.jpg": encoded(77)[:200], "stray.jpg": encoded(78)}
    files |= {"train/dog/copy.jpg": files["train/cat/0.jpg"], "list.txt": b""}
    files["train/dog/late.jpg"] = encoded(79)
    images, summary = take(tmp_path, files)
    assert len(images) == 20
    found = reasons(tmp_path / "out")
    assert "the same bytes as train/cat/0.jpg" in found["train/dog/copy.jpg"]
    assert "no class folder" in found["stray.jpg"]
    assert all("expected" in reason for name, reason in found.items() if "cat" in name)
    assert summary["other files, left alone"] == 1


def test_a_class_that_runs_short_pulls_all_down(tmp_path):
    """Balance holds even where the scarcest class turns out to have bad images."""
    files = folders({"cat": 6, "dog": 9}) | {"train/cat/0.jpg": b"text", "train/cat/1.jpg": b"more text"}
    images, _ = take(tmp_path, files)
    assert counts(images) == {("cat", "train"): 3, ("cat", "val"): 1, ("dog", "train"): 3, ("dog", "val"): 1}


def test_limits_keep_the_first_classes_and_a_draw_of_each(tmp_path):
    """`max_classes` goes by the alphabet, `max_per_class` by the seed, and another seed draws others."""
    files = folders({"a": 12, "b": 12, "c": 12})
    drawn = []
    for seed in (0, 0, 1):
        images, _ = take(tmp_path, files, max_classes=2, max_per_class=4, split_seed=seed)
        assert images.classes == ("a", "b")
        assert len(images) == 8
        drawn.append([row["source_name"] for row in images.rows])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_new_class_does_not_change_the_draw_of_others(tmp_path):
    """Growing the set keeps what was validation before as validation."""
    files = folders({"b": 12, "c": 12})
    before = {row["source_name"]: row["split"] for row in take(tmp_path, files)[0].rows}
    images, _ = take(tmp_path, {**files, **{f"train/a/{n}.jpg": encoded(100 + n) for n in range(12)}})
    assert before.items() <= {row["source_name"]: row["split"] for row in images.rows}.items()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"cat/1.jpg": encoded(1), "cat/2.jpg": encoded(2)}, "1 classes, expected at least 2"),
        ({"cat/1.jpg": encoded(1), "dog/1.jpg": encoded(2)}, "has 1 usable images"),
        ({"cat/1.jpg": b"?", "dog/1.jpg": b"!"}, "has 0 usable images"),
        ({**{f"cat/{n}.jpg": encoded(n) for n in range(5)}, "dog/1.jpg": encoded(9)}, "class dog has 1"),
        ({"images/1.jpg": encoded(1), "train.csv": b"filename,label\n1.jpg\n"}, "1.jpg alone"),
        ({"train.csv": b"name,class\n1.jpg,cat\n"}, "no columns filename,label"),
    ],
)
def test_too_little_is_a_clear_error(tmp_path, files, says):
    """No set is made that cannot train and validate two classes."""
    with pytest.raises(InputError, match=says):
        take(tmp_path, files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "s.csv"]


def test_the_sample_has_its_classes_and_repeats(tmp_path):
    """The built-in sample needs no snapshot and gives the same bytes twice."""
    for place in ("one", "two"):
        miniimagenet(tmp_path / "none.csv", tmp_path / place, CONFIG, open_source, Run())
    images = ImageSet.open(tmp_path / "one")
    assert len(images.classes) == 3
    assert set(counts(images).values()) == {4, 1}
    for file in ("images.csv", "shards/00000.tar", "set.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    """ENOSPC while the shards are written comes out as it is, without a half set."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ImageSetWriter, "add", full)
    with pytest.raises(OSError, match="No space left"):
        take(tmp_path, folders({"cat": 3, "dog": 3}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "s.csv"]
