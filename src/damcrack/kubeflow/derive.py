"""The graph of dvc.yaml as a pipeline sees it: stages in order, their parents, and what each needs of a machine."""

import json
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from damcrack.files import InputError

IMAGES = ("cpu", "train")
_QUANTITY = re.compile(r"\d+(\.\d+)?(Ki|Mi|Gi|Ti|K|M|G|T)?")
_DURATION = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Needs:
    """What a stage needs, from its `meta:` in dvc.yaml.

    `image` is cpu (no torch) or train; `gpu` a count, `gpu_type` the resource's name on a node. `timeout` is a
    number with s, m, h or d. `restore_if` is for a stage that acts outside the graph: a command that succeeds if what
    the stage did there still stands; if not, the stage runs again, whatever is cached.
    """

    cpu: float = 1
    memory: str = "2Gi"
    gpu: int = 0
    gpu_type: str = "nvidia.com/gpu"
    image: str = "train"
    shm: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    retries: int = 2
    timeout: str = "1d"
    restore_if: str | None = None

    def __post_init__(self) -> None:
        if self.image not in IMAGES:
            raise ValueError(f"image: {self.image!r}; allowed are {', '.join(IMAGES)}")
        for name in ("memory", "shm"):
            value = getattr(self, name)
            if value is not None and not _QUANTITY.fullmatch(str(value)):
                raise ValueError(f"{name}: {value!r}; expected a quantity such as 8Gi")
        for name in ("gpu", "retries"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)!r}; expected a whole number from 0 on")
        if isinstance(self.cpu, bool) or not isinstance(self.cpu, int | float) or self.cpu <= 0:
            raise ValueError(f"cpu: {self.cpu!r}; expected a number above 0")
        if self.restore_if is not None and not isinstance(self.restore_if, str):
            raise ValueError(f"restore_if: {self.restore_if!r}; expected a command")
        if not _DURATION.fullmatch(str(self.timeout)):
            raise ValueError(f"timeout: {self.timeout!r}; expected a number with s, m, h or d, such as 6h")

    @property
    def timeout_s(self) -> int:
        """Seconds after which the task is ended."""
        number, unit = str(self.timeout)[:-1], str(self.timeout)[-1]
        return int(number) * _SECONDS[unit]


@dataclass(frozen=True)
class Node:
    """One stage (with `@item` where it has some), the stages whose outputs it reads, and its needs."""

    name: str
    parents: tuple[str, ...]
    needs: Needs


def derive(checkout: Path, params_text: str) -> list[Node]:
    """The graph that dvc.yaml in `checkout` makes with these values; parents come before their children.

    Raises:
        InputError: dvc.yaml cannot be resolved with the values, or a stage's `meta` is wrong.
    """
    if not (checkout / "dvc.yaml").is_file():
        raise InputError(f"{checkout} has no dvc.yaml; run in a checkout, or set DAMCRACK_CHECKOUT")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(checkout / "dvc.yaml", folder)
        (folder / "params.yaml").write_text(params_text)
        with new_repo(folder) as repo:
            return nodes_of(repo)


def new_repo(folder: Path) -> Any:
    """Make a folder a DVC workspace without git; use it in a `with` statement."""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    return Repo.init(str(folder), no_scm=True)


def nodes_of(repo: Any) -> list[Node]:
    """The graph of an opened workspace; parents come before their children.

    Raises:
        InputError: dvc.yaml cannot be resolved with the values, or a stage's `meta` is wrong.
    """
    from dvc.exceptions import DvcException

    try:
        graph = repo.index.graph
        parents = {
            stage.name: tuple(sorted(parent.name for parent in graph.successors(stage))) for stage in graph
        }
        needs = {stage.name: needs_of(stage.name, stage.meta or {}) for stage in graph}
    except (DvcException, yaml.YAMLError) as error:
        raise InputError(f"dvc.yaml cannot be resolved with these values: {one_sentence(error)}") from error
    order = TopologicalSorter(dict(sorted(parents.items()))).static_order()
    return [Node(name, parents[name], needs[name]) for name in order]


def one_sentence(error: BaseException) -> str:
    """What an exception of DVC says, its causes included, in one line."""
    said: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        text = " ".join(str(seen).split())
        if text and text not in " ".join(said):
            said.append(text)
        seen = seen.__cause__
    return ": ".join(said)[:600] or type(error).__name__


def needs_of(stage: str, meta: Mapping[str, Any]) -> Needs:
    """Check a stage's `meta`; a name that says nothing to a pipeline is left alone, with a warning.

    Raises:
        InputError: a value is not allowed.
    """
    known = {one.name for one in fields(Needs)}
    given = {name: value for name, value in meta.items() if name in known}
    for name in sorted(set(meta) - known):
        warnings.warn(f"dvc.yaml: meta of {stage}: {name} says nothing to a pipeline", stacklevel=2)
    if "tolerations" in given:
        given["tolerations"] = tuple(given["tolerations"])
    try:
        return Needs(**given)
    except ValueError as error:
        raise InputError(f"dvc.yaml: meta of {stage}: {error}") from error


def as_text(nodes: list[Node]) -> str:
    """The names and edges as one JSON text: what a compiled pipeline tells each of its tasks."""
    return json.dumps({node.name: list(node.parents) for node in nodes}, sort_keys=True)


def check_same_graph(compiled: str, nodes: list[Node], why: str) -> None:
    """Refuse values that make other tasks or edges than those that were compiled.

    Raises:
        InputError: they differ; the message names how.
    """
    before, now = json.loads(compiled), {node.name: list(node.parents) for node in nodes}
    if before == now:
        return
    missing, more = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    moved = sorted(name for name in set(now) & set(before) if now[name] != before[name])
    words = {"no longer there": missing, "new": more, "with other inputs": moved}
    raise InputError(
        f"{why} make another graph than the pipeline was compiled for: "
        + "; ".join(f"{title}: {', '.join(names)}" for title, names in words.items() if names)
        + "; compile the pipeline anew for them: damcrack pipeline compile"
    )
