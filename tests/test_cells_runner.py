"""The runner of cells in one process: the same cells as DVC's, in a workable order, and what a failure costs."""

import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from damcrack.params import check_params, read_params
from damcrack.stage_table import STAGES
from experiments.cells import Cell, chosen, read_cells, run_cells

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STUDIES = ("paper", "scale")


def test_cells_are_those_that_dvc_resolves() -> None:
    """Name, command and output of every cell of the paper's experiments."""
    repo = pytest.importorskip("dvc.repo")
    file = str(Path("experiments/paper/dvc.yaml"))
    resolved = {
        (stage.name, stage.cmd, *(out.def_path for out in stage.outs))
        for stage in repo.Repo(str(ROOT)).stage.load_file(str(ROOT / file))
    }
    ours = [(cell.name, cell.command, str(cell.out)) for cell in read_cells(ROOT / "experiments/paper")]
    assert len(ours) == len(resolved) and set(ours) == resolved


@pytest.mark.parametrize("study", STUDIES)
def test_each_cell_comes_after_what_it_reads(study: str) -> None:
    """Whatever a command names beside its own output was made before."""
    cells = read_cells(ROOT / "experiments" / study)
    place = {str(cell.out): number for number, cell in enumerate(cells)}
    for number, cell in enumerate(cells):
        named = [place[word] for word in cell.command.split() if word in place]
        assert max(named) == number, cell.name


@pytest.mark.parametrize("study", STUDIES)
def test_cells_are_of_items_that_there_are(study: str) -> None:
    """The values of a study are valid, and the cells are of all its items and of no others."""
    names = set(check_params(read_params(ROOT / "experiments" / study / "params.yaml"), list(STAGES)))
    words = [cell.command.split() for cell in read_cells(ROOT / "experiments" / study)]
    named = {"@".join([one[1], *(one[3:4] if one[2] == "--item" else [])]) for one in words}
    assert named == names - {"evaluate", "export", "inspect", "register"}


def test_a_failing_cell_does_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told with its reason; the next is run and its seconds are noted; what is there is left alone."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    Path("there").mkdir()
    cells = [
        Cell("bad", "damcrack check absent.yaml", Path("bad")),
        Cell("wrong", "damcrack check --nonsense", Path("wrong")),
        Cell("good", "damcrack check params.yaml", Path("good")),
        Cell("old", "damcrack check absent.yaml", Path("there")),
    ]
    outcome = run_cells(cells)
    assert set(outcome.failures) == {"bad", "wrong"} and set(outcome.seconds) == {"good"}
    assert outcome.failures["bad"].startswith("InputError: absent.yaml is missing")
    assert Path("cells-seconds.csv").read_text().split(",")[:2] == ["cell", "seconds\ngood"]


def test_no_cell_is_started_after_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are left are named, and are no failures."""
    monkeypatch.chdir(tmp_path)
    outcome = run_cells([Cell("late", "damcrack check", Path("late"))], until_s=-1)
    assert outcome.left == ["late"] and not outcome.failures


def test_stages_are_chosen_by_name_or_pattern() -> None:
    """A name is one stage or one cell of the graph's file, a pattern several; what is named first comes first."""
    cells = read_cells(ROOT / "experiments/scale")
    assert {cell.stage for cell in chosen(cells, ["pretrain"])} == {"pretrain"}
    assert len({cell.stage for cell in chosen(cells, ["tile", "finetune-*"])}) == 8
    assert [cell.name for cell in chosen(cells, ["pretrain@resnet50-*"])] == ["pretrain@resnet50-0"]
    swapped = chosen(cells, ["distill", "pretrain", "distill@*"])
    assert [cell.stage for cell in swapped] == ["distill", "distill", "pretrain", "pretrain"]
    with pytest.raises(ValueError, match="no such stage or cell"):
        chosen(cells, ["finetune"])


def test_one_seed_is_that_of_the_resnets() -> None:
    """`make paper SEED=1` names cells that there are: all of that seed but the rivals, the sweep and the options."""
    said = subprocess.run(
        ["make", "-n", "paper", "SEED=1"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = re.search("--glob (.*?);", said.stdout)
    assert found is not None
    patterns = shlex.split(found[1])
    names = [cell.name for cell in read_cells(ROOT / "experiments/paper")]
    chosen_names = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    assert len(chosen_names) == 22
    assert all(name.endswith("-1") and "resnet50-soft" not in name for name in chosen_names)
    assert not [name for name in chosen_names if "-more" in name]
