import shutil
from dataclasses import replace

import numpy as np
import pytest

from damcrack.data.imageset import ImageSet
from damcrack.files import OUTPUT_MARKER, InputError, read_csv, sha256_file, write_csv
from damcrack.registry.evaluation_set import fetch_set, freeze, open_set, training_photos
from damcrack.run import Run
from damcrack.storage.source import open_source
from detectors import THIN_PX, TILING, WIDE_PX, cut_tiles, draw_photos

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos, their tiles and the evaluation set."""
    root = tmp_path_factory.mktemp("evaluation-set")
    photos = draw_photos(root / "photos", num=24)
    tiles = cut_tiles(photos, root / "tiles")
    freeze(photos, tiles, root / "set", Run())
    return root


def test_holds_the_test_tiles_and_nothing_else(made):
    """The same encoded tiles as in the test split, whole photos, none of them in training."""
    chosen, tiles = open_set(made / "set"), ImageSet.open(made / "tiles")
    expected = [tiles.rows[row] for row in tiles.where("test")]
    assert [row["sha256"] for row in chosen.images.rows] == [row["sha256"] for row in expected]
    trained = {row["sha256"] for row in training_photos(made / "photos", made / "tiles")}
    assert trained and not trained & set(chosen.column("photo_sha256"))
    assert {len(numbers) for numbers, _ in chosen.batches()} <= {64, len(expected) % 64}


def test_same_photos_give_the_same_digest(made, tmp_path):
    """Freezing again gives the same bytes: the digest is a function of photos and tiles."""
    freeze(made / "photos", made / "tiles", tmp_path / "again", Run())
    for name in ("tiles.csv", "set.json", "shards/00000.tar"):
        assert (tmp_path / "again" / name).read_bytes() == (made / "set" / name).read_bytes()


def test_widths_are_those_of_the_drawn_lines(made):
    """A line of 3 px is measured as 3, one of 12 as 12, no line as 0."""
    truth = open_set(made / "set").truth
    crack = truth.labels_N == 1
    thin, wide = (np.abs(truth.width_px_N - width) < 1.01 for width in (THIN_PX, WIDE_PX))
    assert np.all(truth.width_px_N[~crack] == 0)
    assert np.all((thin | wide)[crack]) and thin[crack].any() and wide[crack].any()


def test_changed_tile_is_refused_by_name(made, tmp_path):
    """One byte of one tile that is another is found when the set is scored."""
    shutil.copytree(made / "set", tmp_path / "set")
    shard = tmp_path / "set/shards/00000.tar"
    content = bytearray(shard.read_bytes())
    content[512 + 300] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"photo\d+_\d+_\d+\.jpg in .* is not the one that tiles\.csv names"):
        list(open_set(tmp_path / "set").batches())


@pytest.mark.parametrize(("column", "value"), [("label", "7"), ("crack_width_px", "wide")])
def test_a_set_edited_by_hand_is_refused(made, tmp_path, column, value):
    """Where no digest is asked for, a label or width that is none is found when the set is opened."""
    shutil.copytree(made / "set", tmp_path / "set")
    rows = read_csv(tmp_path / "set/tiles.csv")
    write_csv(tmp_path / "set/tiles.csv", list(rows[0]), [rows[0] | {column: value}, *rows[1:]])
    with pytest.raises(InputError):
        open_set(tmp_path / "set")


def test_another_digest_is_refused(made, tmp_path):
    """A set that was changed since it was agreed on is not used: both digests are named."""
    digest = open_set(made / "set").digest
    shutil.copytree(made / "set", tmp_path / "set")
    rows = (tmp_path / "set/tiles.csv").read_text().splitlines(keepends=True)
    (tmp_path / "set/tiles.csv").write_text("".join(rows[:-1]))
    assert open_set(made / "set", digest).digest == digest
    with pytest.raises(InputError, match=rf"has digest \w+, expected {digest[:12]}: it was changed"):
        open_set(tmp_path / "set", digest)


def test_tiles_are_no_evaluation_set(made):
    """An ordinary tile set lacks what the gate needs, and is refused."""
    with pytest.raises(InputError, match=r"not an evaluation set: .*damcrack freeze"):
        open_set(made / "tiles")


def test_without_test_tiles_the_validation_tiles_are_taken(made, tmp_path):
    """As in `evaluate`; their photos are among those that chose the model."""
    tiles = cut_tiles(made / "photos", tmp_path / "tiles", replace(TILING, test_fraction=0.0))
    freeze(made / "photos", tiles, tmp_path / "set", Run())
    seen = {row["sha256"] for row in training_photos(made / "photos", tiles)}
    assert set(open_set(tmp_path / "set").column("photo_sha256")) <= seen


def test_photos_of_other_tiles_are_refused(made, tmp_path):
    """Photos that the tiles were not cut from are named."""
    other = draw_photos(tmp_path / "photos", num=2, source="dam")
    with pytest.raises(InputError, match=r"tiles of wall/\d+\.png, which is not among the photos"):
        freeze(other, made / "tiles", tmp_path / "set", Run())
    assert not (tmp_path / "set").exists()


def test_shard_names_are_not_trusted(made, tmp_path):
    """A shard name that leads out of the set is refused before anything is read by it."""
    evil = tmp_path / "evil"
    shutil.copytree(made / "set", evil)
    (evil / "tiles.csv").write_text((evil / "tiles.csv").read_text().replace("00000.tar", "../../x.tar"))
    with pytest.raises(InputError, match=r"names the shard '\.\./\.\./x\.tar'"):
        digest = sha256_file(evil / "tiles.csv")
        fetch_set("s3://x/y", digest, lambda uri: open_source(str(evil)), tmp_path)


def objects(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {f"set/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}


def test_set_is_fetched_from_s3_by_its_digest(made, s3, tmp_path):
    """A set in a bucket is fetched whole once, checked, and needs no bucket the next time."""
    digest = open_set(made / "set").digest
    place = f"s3://{s3(objects(made / 'set'))}/set"
    fetched = fetch_set(place, digest, open_source, tmp_path)
    assert fetched.digest == digest
    assert sum(len(numbers) for numbers, _ in fetched.batches()) == len(fetched.images)
    assert fetch_set("s3://nowhere/set", digest, open_source, tmp_path).digest == digest
    (fetched.images.root / "tiles.csv").write_text("cut")
    (fetched.images.root / OUTPUT_MARKER).unlink()
    assert fetch_set(place, digest, open_source, tmp_path).digest == digest


def test_s3_set_of_another_digest_leaves_nothing(made, s3, tmp_path):
    """Another content than agreed on is refused before its tiles are read, and not kept."""
    place = f"s3://{s3(objects(made / 'set'))}/set"
    with pytest.raises(InputError, match=r"expected 000000000000: it was changed"):
        fetch_set(place, "0" * 64, open_source, tmp_path)
    assert not list((tmp_path / "evaluation-sets").iterdir())
    with pytest.raises(InputError, match="its digest is missing"):
        fetch_set(place, None, open_source, tmp_path)
