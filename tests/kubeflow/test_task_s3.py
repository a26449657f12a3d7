"""A task with a real S3 service as its DVC remote."""

import pytest

pytest.importorskip("dvc", reason='needs pip install "damcrack[graph]"')

from damcrack.files import InputError
from damcrack.kubeflow.task import Task, run_task

pytestmark = pytest.mark.slow

GRAPH = """
stages:
  make:
    cmd: echo made >> $TOY_LOG && mkdir -p data/out && echo made > data/out/file
    deps: [snapshots/make.csv]
    outs: [data/out]
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one stage."""
    folder = tmp_path / "checkout"
    (folder / "snapshots").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "snapshots/make.csv").write_text("rows\n")
    monkeypatch.setenv("DAMCRACK_CHECKOUT", str(folder))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_bucket_carries_results_from_machine_to_machine(s3, checkout, tmp_path):
    """Two workspaces, one bucket: the second restores; its snapshot is read from the bucket and has the same rows."""
    bucket = s3({"snapshots/same.csv": b"rows\n"})
    snapshots = {"make": f"s3://{bucket}/snapshots/same.csv"}
    first = run_task(Task("make", [], "{}", f"s3://{bucket}/dvc"))
    (checkout / "snapshots/make.csv").write_text("others\n")
    second = run_task(Task("make", [], "{}", f"s3://{bucket}/dvc", snapshots))
    assert (first.restored, second.restored) == (False, True)
    assert first.lock_part == second.lock_part
    assert (tmp_path / "log").read_text() == "made\n"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "the S3 endpoint cannot be reached"),
        ("AWS_SECRET_ACCESS_KEY", "wr0ng", "access refused"),
    ],
)
def test_a_remote_that_cannot_be_used_is_refused_before_anything_runs(
    s3, checkout, tmp_path, monkeypatch, name, value, says
):
    """Unreachable or wrong credentials: one sentence without them, and no command ran."""
    bucket = s3({})
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        with pytest.raises(InputError, match=says) as caught:
            run_task(Task("make", [], "{}", f"s3://{bucket}/dvc"))
    assert "wr0ng" not in str(caught.value)
    assert not (tmp_path / "log").exists()


def test_a_missing_snapshot_is_named(s3, checkout):
    """An object that vanished is one sentence."""
    bucket = s3({})
    with pytest.raises(InputError, match=r"gone\.csv does not exist"):
        run_task(Task("make", [], "{}", f"s3://{bucket}/dvc", {"make": f"s3://{bucket}/gone.csv"}))
