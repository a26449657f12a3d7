"""What a training takes up again, and when: the same code's checkpoint and soft targets, never another's."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damcrack import code
from damcrack.params import read_params, stage_config
from damcrack.run import Run
from damcrack.train import frozen
from damcrack.train.checkpoint import Checkpoint
from damcrack.train.distill import distill
from damcrack.train.pretrain import pretrain
from trainings import write_set

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small")]

PARAMS = read_params(Path(__file__).parents[2] / "params/demo.yaml")
SMALL = {"network": "small", "batch_size": 4, "epochs": 3}


class PowerCut(Exception):  # noqa: N818 - a signal, not an error
    pass


class Watched(Run):
    """Notes which epochs are trained; may stop in one."""

    def __init__(self, scratch: Path, stop_in: int | None = None) -> None:
        super().__init__(scratch)
        self.epochs: list[int | None] = []
        self._stop_in = stop_in

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.epochs.append(step)
        if step == self._stop_in:
            raise PowerCut


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve small images in two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    return write_set(tmp_path / "images", pixels, [0, 1] * 6, ["val"] * 4 + ["train"] * 8).root


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Edits losses.py, in a copy of the package that stands for the running one."""

    def edit_losses() -> None:
        copy = tmp_path / "damcrack"
        shutil.copytree(code.PACKAGE, copy)
        losses = copy / "train/losses.py"
        losses.write_text(losses.read_text() + "# another loss\n")
        monkeypatch.setattr(code, "PACKAGE", copy)
        code.code_sha256.cache_clear()

    yield edit_losses
    code.code_sha256.cache_clear()


def student_config(**changed: Any) -> Any:
    return stage_config(PARAMS, "distill", "fixed", SMALL | {"views": None} | changed)


@pytest.mark.parametrize("edited", [False, True], ids=["same code", "edited code"])
def test_interrupted_training_resumes_with_the_same_code_only(
    images: Path, tmp_path: Path, edit: Callable[[], None], monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    """After an edit the checkpoint of the old code is not taken up: training begins with epoch 1."""
    monkeypatch.setattr("damcrack.train.fitting.Checkpoint", partial(Checkpoint, interval_s=0.0))
    config = stage_config(PARAMS, "pretrain", "resnet18", SMALL)
    first, second = Watched(tmp_path / "scratch", stop_in=2), Watched(tmp_path / "scratch")
    with pytest.raises(PowerCut):
        pretrain(images, tmp_path / "model", "resnet18", config, first)
    if edited:
        edit()
    pretrain(images, tmp_path / "model", "resnet18", config, second)
    assert second.epochs == ([1, 2, 3] if edited else [2, 3])


def test_stored_soft_targets_serve_the_same_code_only(
    images: Path, tmp_path: Path, edit: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second student reads the teacher's stored answers; after an edit the teacher is asked again."""
    asked: list[int] = []
    answers = frozen.answers
    monkeypatch.setattr(frozen, "answers", lambda *what: (asked.append(1), answers(*what))[1])
    run, teacher = Run(tmp_path / "scratch"), tmp_path / "teacher"
    config = stage_config(PARAMS, "pretrain", "resnet18", SMALL | {"epochs": 1, "warmup_epochs": 0})
    pretrain(images, teacher, "resnet18", config, run)
    for seed, expected in ((0, 1), (1, 1)):
        distill(images, teacher, tmp_path / "student", "fixed", student_config(views=2, seed=seed), run)
        assert len(asked) == expected
    edit()
    distill(images, teacher, tmp_path / "student", "fixed", student_config(views=2, seed=1), run)
    assert len(asked) == 2
