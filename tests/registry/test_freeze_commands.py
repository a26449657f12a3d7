import pytest

from damcrack.files import InputError
from damcrack.registry.frozen import fetch_set, freeze, open_set
from damcrack.run import SilentRun
from damcrack.storage.source import open_source
from detectors import cut_tiles, draw_photos


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A frozen set on disk."""
    root = tmp_path_factory.mktemp("frozen")
    photos = draw_photos(root / "photos", num=10)
    freeze(photos, cut_tiles(photos, root / "tiles"), root / "set", SilentRun())
    return root


def objects(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {f"frozen/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}


def test_set_is_fetched_from_s3_by_its_digest(made, s3, tmp_path):
    """A set in a bucket is fetched whole once, checked, and needs no bucket the next time."""
    digest = open_set(made / "set").digest
    place = f"s3://{s3(objects(made / 'set'))}/frozen"
    fetched = fetch_set(place, digest, open_source, tmp_path)
    assert fetched.digest == digest
    assert sum(len(numbers) for numbers, _ in fetched.batches()) == len(fetched.images)
    assert fetch_set("s3://nowhere/frozen", digest, open_source, tmp_path).digest == digest


def test_s3_set_of_another_digest_leaves_nothing(made, s3, tmp_path):
    """Another content than agreed on is refused before its tiles are read, and not kept."""
    place = f"s3://{s3(objects(made / 'set'))}/frozen"
    with pytest.raises(InputError, match=r"expected 000000000000: it was changed"):
        fetch_set(place, "0" * 64, open_source, tmp_path)
    assert not list((tmp_path / "evaluation-sets").iterdir())
    with pytest.raises(InputError, match="its digest is missing"):
        fetch_set(place, None, open_source, tmp_path)
