"""Run the cells of a study in one process, without DVC: imports, decoded images and compiled kernels serve them all.

    python -m experiments.cells experiments/scale --stages miniimagenet tile "pretrain@resnet50-*" --until-s 500

STUDY holds params.yaml and cells.yaml; the graph is experiments/paper/dvc.yaml, with STUDY as the working directory.
Cells are run in the order of the names after --stages, and of that file, in which each comes after what it reads. One
whose output is there is skipped, whatever made it; one that fails is told at the end and loses no other, so the same
command fills the holes. Several of these commands may run side by side, on different cells.
DVC knows nothing of what is made here: it would make it again.

STUDY/cells-seconds.csv     cell,seconds of each cell that was run to its end
"""

import argparse
import csv
import gc
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
import yaml

from damcrack.cli.main import cli
from damcrack.files import InputError

GRAPH = Path(__file__).parent / "paper/dvc.yaml"
SECONDS = Path("cells-seconds.csv")
PLACE = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class Cell:
    """One command of the graph and the folder that it makes; `name` is DVC's, STAGE or STAGE@VALUE-VALUE."""

    name: str
    command: str
    out: Path

    @property
    def stage(self) -> str:
        """Its key in dvc.yaml."""
        return self.name.partition("@")[0]


@dataclass
class Outcome:
    """What became of cells that were not there: seconds, reasons of failure, and those for which no time was left."""

    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def read_cells(study: Path) -> list[Cell]:
    """All cells of a study, in the order of the graph's file."""
    lists = yaml.safe_load((study / "cells.yaml").read_text())
    stages = yaml.safe_load(GRAPH.read_text())["stages"]
    return [cell for name, stage in stages.items() for cell in _cells_of(name, stage, lists)]


def _cells_of(name: str, stage: Mapping[str, Any], lists: Mapping[str, Any]) -> Iterator[Cell]:
    matrix = {key: _looked_up(place.strip("${}"), lists) for key, place in stage.get("matrix", {}).items()}
    for values in product(*matrix.values()):
        known = {**lists, "item": dict(zip(matrix, values, strict=True))}
        (out,) = stage["outs"]
        full_name = f"{name}@{'-'.join(map(str, values))}" if values else name
        yield Cell(full_name, _filled(stage["cmd"], known), Path(_filled(out, known)))


def _filled(text: str, values: Mapping[str, Any]) -> str:
    return PLACE.sub(lambda place: str(_looked_up(place[1], values)), text)


def _looked_up(dotted: str, values: Any) -> Any:
    for key in dotted.split("."):
        values = values[key]
    return values


def run_cells(cells: Sequence[Cell], until_s: float | None = None) -> Outcome:
    """Run the cells that are not there, from the study's folder; start none after `until_s` seconds."""
    started_s, outcome = time.monotonic(), Outcome()
    for cell in cells:
        if cell.out.exists():
            continue
        if until_s is not None and time.monotonic() - started_s > until_s:
            outcome.left.append(cell.name)
            continue
        begun_s = time.monotonic()
        failure = _failure(cell)
        seconds = time.monotonic() - begun_s
        if failure is None:
            outcome.seconds[cell.name] = seconds
            _note(cell, seconds)
        else:
            outcome.failures[cell.name] = failure
        print(f"{cell.name}: {seconds:.1f} s{'' if failure is None else ', failed'}", flush=True)
    return outcome


def _failure(cell: Cell) -> str | None:
    """Run a cell; why it failed, or None."""
    try:
        cli.main(args=shlex.split(cell.command)[1:], prog_name="damcrack", standalone_mode=False)
    except click.exceptions.Abort:  # what click makes of Ctrl-C
        raise KeyboardInterrupt from None
    except Exception as error:  # whatever it is, the other cells go on
        if not isinstance(error, InputError | torch.OutOfMemoryError):
            traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    finally:
        gc.collect()  # networks refer to themselves
        torch.cuda.empty_cache()  # the next cell asks how much is free
    return None


def _note(cell: Cell, seconds: float) -> None:
    is_new = not SECONDS.exists()
    with SECONDS.open("a", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows([("cell", "seconds")] if is_new else [])
        rows.writerow((cell.name, f"{seconds:.1f}"))


def chosen(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """Cells whose stage or name fits a pattern: those of the first pattern first, each once.

    Raises:
        InputError: a pattern fits none of them.
    """
    stages = dict.fromkeys(cell.stage for cell in cells)
    found: dict[Cell, None] = {}
    for pattern in patterns:
        fitting = [
            cell for cell in cells if any(fnmatchcase(name, pattern) for name in (cell.stage, cell.name))
        ]
        if not fitting:
            raise InputError(f"--stages {pattern}: no such stage or cell; the stages are {', '.join(stages)}")
        found |= dict.fromkeys(fitting)
    return list(found)


def main() -> None:
    """Run what is missing; end with an error if a cell failed."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("study", type=Path, help="folder with params.yaml and cells.yaml")
    parser.add_argument(
        "--stages", nargs="+", default=["*"], metavar="NAME", help="stages of dvc.yaml, cells, or patterns"
    )
    parser.add_argument("--until-s", type=float, help="start no cell after N seconds")
    options = parser.parse_args()
    os.environ.setdefault("DAMCRACK_TRACK", "later")  # `damcrack track send` in STUDY sends the runs
    try:
        cells = chosen(read_cells(options.study), options.stages)
    except (InputError, OSError) as error:
        sys.exit(str(error))
    os.chdir(options.study)
    outcome = run_cells(cells, options.until_s)
    print(f"{len(outcome.seconds)} cells in {sum(outcome.seconds.values()):.0f} s")
    if outcome.left:
        print(f"no time was left for {len(outcome.left)}: {', '.join(outcome.left)}")
    if outcome.failures:
        told = "\n".join(f"  {name}: {why}" for name, why in outcome.failures.items())
        sys.exit(f"{len(outcome.failures)} cells failed; the same command runs only what is missing:\n{told}")


if __name__ == "__main__":
    main()
