"""A survey in parts: cut by names alone, and joined into what one machine would write."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from damcrack.cli.main import cli
from damcrack.files import InputError
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.sources import Part
from damcrack.inspection.survey import Survey
from damcrack.run import Run
from damcrack.storage import source as storage
from damcrack.storage.source import open_source
from surveys import cracked, save
from walls import write_darkness_detector


@pytest.fixture(scope="module")
def alone(tmp_path_factory, model):
    """The survey of a single machine, beside its photos.

    They lie in two folders: copies under other names, broken ones, copies of those, and files that are no photos.
    """
    root = tmp_path_factory.mktemp("alone")
    for seed in range(6):
        path = root / f"in/{'left' if seed % 2 else 'right'}/wall {seed}.jpg"
        save(path, cracked((224, 336), (150, 110, 20 * seed, 150, 5.0), seed=seed))
    content = path.read_bytes()
    for number in range(4):
        (root / f"in/copy-{number}.jpg").write_bytes(content)
        (root / f"in/broken-{number}.jpg").write_bytes(content[:300])
    (root / "in/notes.txt").write_text("text")
    inspect(model, root / "in", root / "alone")
    return root


@pytest.fixture
def photos(alone, tmp_path, monkeypatch):
    """The same photos in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(alone / "in", "in")
    return Path("in")


def inspect(model, photos, out, part=None):
    return inspect_photos([str(photos)], model, Path(out), InspectConfig(), open_source, Run(), part=part)


def published(out):
    """Everything that a survey says but where its photos lie."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(Path(out).rglob("*"))
        if path.is_file() and path.name != ".damcrack-output"
    }


def test_parts_make_the_survey_of_a_single_machine(alone, photos, model, monkeypatch):
    """Tables, page and pictures are the same bytes; whoever joins looks at no photo again."""
    for number in (1, 2, 3):
        inspect(model, photos, f"part-{number}", Part(number, 3))
        assert not Path(f"part-{number}/survey.json").exists()
        shutil.copytree(f"part-{number}", "joined", dirs_exist_ok=True)
    looked = []
    write = Survey._write
    monkeypatch.setattr(
        Survey, "_write", lambda self, out, *rest: looked.append(out) or write(self, out, *rest)
    )
    inspect(model, photos, "joined")
    assert not looked
    assert published("joined") == published(alone / "alone")


def test_parts_may_be_written_into_one_folder_one_after_the_other(alone, photos, model):
    """As a night job that is stopped each morning."""
    for number in (2, 1):
        inspect(model, photos, "joined", Part(number, 2))
    inspect(model, photos, "joined")
    assert published("joined") == published(alone / "alone")


def test_each_file_is_in_one_part_whatever_else_there_is():
    """A name says it all; parts are about equally large."""
    names = [f"2026/DJI_{number:04d}.JPG" for number in range(1000)]
    parts = [[name for name in names if Part(number, 4).holds(name)] for number in range(1, 5)]
    assert sorted(name for part in parts for name in part) == names
    assert all(200 < len(part) < 300 for part in parts)


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "1/0", "a/b", "1/2/3", "-1/4", "1/ 4", ""])
def test_a_part_that_is_none_is_refused(text):
    """Before anything is read."""
    with pytest.raises(InputError, match="expected NUMBER/OF"):
        Part.read(text)


def test_the_command_takes_a_part(photos, model):
    """And leaves the survey unfinished; a part without a photo is no mistake."""
    names = [path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")]
    empty = next(number for number in range(1, 41) if not any(Part(number, 40).holds(name) for name in names))
    arguments = ["inspect", str(photos), "--model", str(model), "--out", "out"]
    for part in ("1/1", f"{empty}/40"):
        done = CliRunner().invoke(cli, [*arguments, "--part", part])
        assert done.exit_code == 0, done.exception
        assert not Path("out/photos.csv").exists()
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0 and Path("out/photos.csv").is_file()


@pytest.fixture
def bucket(s3, photos):
    """A bucket with the photos under in/."""
    files = {path.as_posix(): path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    return s3(files)


@pytest.mark.slow
def test_machines_that_share_a_bucket_make_the_survey_of_one(alone, bucket, model, monkeypatch):
    """The same bytes; one that was killed resumes, and the last looks at none of the photos that others did."""
    given, out = f"s3://{bucket}/in", f"s3://{bucket}/survey"
    create, left = storage.Bucket.create, [9]

    def killed(self, name, content):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return create(self, name, content)

    monkeypatch.setattr(storage.Bucket, "create", killed)
    arguments = ["inspect", given, "--model", str(model), "--out", out]
    assert CliRunner().invoke(cli, [*arguments, "--part", "1/2"]).exit_code != 0
    monkeypatch.setattr(storage.Bucket, "create", create)
    for part in ("1/2", "2/2"):
        done = CliRunner().invoke(cli, [*arguments, "--part", part])
        assert done.exit_code == 0, done.exception
    monkeypatch.setattr(Survey, "_write", None)  # of no use to the last one
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.exception
    store = open_source(out)
    for name, content in published(alone / "alone").items():
        assert store.read(name) == content, name
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, InputError)
    Path("back").mkdir()
    for one in store.listed():
        path = Path("back") / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read(one.name))
    done = CliRunner().invoke(cli, ["export-survey", "back", "--format", "jpeg", "--out", "files"])
    assert done.exit_code == 0, done.exception


@pytest.mark.slow
def test_another_model_in_the_same_bucket_is_refused(bucket, model, tmp_path):
    """Before its findings lie beside those of the first; and a place among the photos is refused at once."""
    other = write_darkness_detector(tmp_path / "other.onnx", tile_px=56)
    arguments = ["inspect", f"s3://{bucket}/in", "--part", "1/1", "--out", f"s3://{bucket}/survey"]
    assert CliRunner().invoke(cli, [*arguments, "--model", str(model)]).exit_code == 0
    done = CliRunner().invoke(cli, [*arguments, "--model", str(other)])
    assert isinstance(done.exception, InputError) and "another model" in str(done.exception)
    done = CliRunner().invoke(cli, [*arguments[:-1], f"s3://{bucket}/in/x", "--model", str(model)])
    assert isinstance(done.exception, InputError) and "lies in" in str(done.exception)
