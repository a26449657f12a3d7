"""The graph of dvc.yaml as a pipeline sees it: stages in order, their parents, and what each needs of a machine."""

import json
import logging
import os
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from damcrack.files import InputError, temporary_folder

SITE_CACHE = "DVC_SITE_CACHE_DIR"
TOLERATION = {"key", "operator", "value", "effect"}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Needs:
    """What a stage needs, from its `meta:` in dvc.yaml.

    `image` is cpu (no torch) or train; `gpu` a count, `gpu_type` the resource's name on a node. `timeout` is a
    number with s, m, h or d. `restore_if` is for a stage that acts outside the graph: a command that succeeds if
    the effect of the stage is still there; otherwise the stage runs again, whatever is cached.
    """

    cpu: float = 1
    memory: str = "2Gi"
    gpu: int = 0
    gpu_type: str = "nvidia.com/gpu"
    image: str = "train"
    shm: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, str]] = ()
    retries: int = 2
    timeout: str = "1d"
    restore_if: str | None = None

    @property
    def timeout_s(self) -> int:
        """Seconds after which the task is ended."""
        return int(self.timeout[:-1]) * _SECONDS[self.timeout[-1]]


@dataclass(frozen=True)
class Node:
    """One stage (with `@item` where it has some).

    `parents` are the stages whose outputs it reads, `sources` the paths that it reads and no stage writes.
    """

    name: str
    parents: tuple[str, ...]
    needs: Needs
    command: str
    sources: tuple[str, ...]
    outs: tuple[str, ...]


def derive(checkout: Path, params_text: str) -> list[Node]:
    """Resolve dvc.yaml in `checkout`, and what it includes, with these values; parents come before their children.

    Raises:
        InputError: dvc.yaml cannot be resolved with the values, or takes a section that they lack, or a stage's `meta`
            is wrong.
    """
    from dvc.exceptions import DvcException

    if not (checkout / "dvc.yaml").is_file():
        raise InputError(f"{checkout} has no dvc.yaml; run in a checkout, or set DAMCRACK_CHECKOUT")
    logging.getLogger("dvc").setLevel(logging.WARNING)
    with temporary_folder() as folder:
        for file in filter(Path.is_file, checkout.glob("*.yaml")):
            shutil.copy(file, folder)
        Path(folder, "params.yaml").write_text(params_text, encoding="utf-8")
        try:
            with new_repo(Path(folder)) as repo:
                _check_sections(repo.index.graph, yaml.safe_load(params_text) or {})
                return _nodes(repo.index.graph)
        except (DvcException, yaml.YAMLError) as error:
            raise InputError(f"dvc.yaml cannot be resolved with these values: {_sentence(error)}") from error


@contextmanager
def new_repo(root: Path) -> Iterator[Any]:
    """A new DVC repository in a folder of ours, its site cache too: DVC opens that to every user of the machine."""
    from dvc.repo import Repo

    before = os.environ.get(SITE_CACHE)
    os.environ[SITE_CACHE] = str(root / ".dvc/site")
    try:
        with Repo.init(str(root), no_scm=True) as repo:
            yield repo
    finally:
        os.environ.pop(SITE_CACHE)
        os.environ |= {} if before is None else {SITE_CACHE: before}


def _check_sections(graph: Any, params: Mapping[str, Any]) -> None:
    for stage in graph:
        named = {name for dep in stage.deps if dep.def_path == "params.yaml" for name in dep.params}
        for section in sorted({name.split(".")[0] for name in named} - params.keys()):
            raise InputError(
                f"stage {stage.name} takes section {section!r} of params.yaml, which has none; add it"
            )


def _nodes(graph: Any) -> list[Node]:
    outs = {out.fs_path for stage in graph for out in stage.outs}
    stages = {stage.name: stage for stage in graph}
    parents = {name: sorted(one.name for one in graph.successors(stages[name])) for name in sorted(stages)}
    return [
        Node(
            name,
            tuple(parents[name]),
            needs_of(name, stages[name].meta or {}),
            str(stages[name].cmd),
            tuple(sorted({dep.def_path for dep in stages[name].deps if _is_source(dep, outs)})),
            tuple(out.def_path for out in stages[name].outs),
        )
        for name in TopologicalSorter(parents).static_order()
    ]


def _is_source(dep: Any, outs: set[str]) -> bool:
    path = Path(dep.fs_path)
    made = any(path.is_relative_to(out) or Path(out).is_relative_to(path) for out in outs)
    return dep.def_path != "params.yaml" and not made


def check_graph(nodes: Sequence[Node], configs: Mapping[str, Any], checkout: Path | None = None) -> list[str]:
    """Refuse a graph that would fail after hours of training: it reads a network that no stage makes, or that is unfit.

    `configs` are those of a whole params file by section, or section@item; returned are items that no stage runs.
    A network that `checkout` holds may be read all the same.

    Raises:
        InputError: the first mistake, with the stage that would fail.
    """
    _check_names(nodes, checkout)
    calls = [dict(pairwise(shlex.split(node.command))) for node in nodes]  # of each word the next
    names = ["@".join(word for key in ("damcrack", "--item") if (word := call.get(key))) for call in calls]
    made = {out: configs.get(name) for node, name in zip(nodes, names, strict=True) for out in node.outs}
    for name, call in zip(names, calls, strict=True):
        for option in ("init", "teacher"):
            if hasattr(configs.get(name), option):
                _check_option(name, option, configs[name], call.get(f"--{option}"), made)
        if name == "export" and getattr(made.get(call.get("--model", "")), "pixel_channels", 1) is None:
            raise InputError(
                f"export.experiment: {call['--model']} has a tile head alone; give it pixel_channels"
            )
    return sorted(name for name in configs.keys() - set(names) if "@" in name)


def _check_names(nodes: Sequence[Node], checkout: Path | None) -> None:
    folders = {Path(out).parts[0] for node in nodes for out in node.outs}
    for node in nodes:
        for source in node.sources:
            if Path(source).parts[0] in folders and not (checkout and (checkout / source).exists()):
                raise InputError(
                    f"stage {node.name} reads {source}, which no stage writes; fix the name in params.yaml"
                )


def _check_option(name: str, option: str, config: Any, path: str | None, made: Mapping[str, Any]) -> None:
    named, other = getattr(config, option), made.get(path or "")
    if (named is None) != (path is None):
        raise InputError(
            f"{name}: {option} is {named!r}, its command gets {path}; set it, or use another group of dvc.yaml"
        )
    if option == "init" and other and other.network != config.network:
        raise InputError(f"{name}: network is {config.network}; its init {named!r} is a {other.network}")
    if option == "teacher" and other and (other.pixel_channels is None) != (config.pixel_channels is None):
        raise InputError(f"{name}: pixel_channels: set it in the teacher {named!r} too, or in neither")


def _sentence(error: BaseException | None) -> str:
    """An exception of DVC in one line, its causes included."""
    texts: list[str] = []
    while error is not None:
        text = " ".join(str(error).split())
        if text and text not in " ".join(texts):
            texts.append(text)
        error = error.__cause__
    sentence = re.sub(r"'[^']*dvc\.yaml'", "dvc.yaml", ": ".join(texts))[:600]  # not our copy of it
    return sentence + ("; a group without items is written {}" if ".foreach'" in sentence else "")


# Of each value its type, a pattern of its text, and what is expected. No pydantic: a restored task starts without it.
_ALLOWED = {
    "cpu": (int | float, r"(?=.*[1-9])[\d.]+", "a number above 0"),
    "memory": (str | int, r"\d+(\.\d+)?([KMGT]i?)?", "a quantity such as 8Gi"),
    "shm": (str | int, r"\d+(\.\d+)?([KMGT]i?)?", "a quantity such as 8Gi"),
    "gpu": (int, r"\d+", "a whole number from 0 on"),
    "retries": (int, r"\d+", "a whole number from 0 on"),
    "image": (str, "cpu|train", "cpu or train"),
    "timeout": (str, r"0*[1-9]\d*[smhd]", "a number with s, m, h or d, such as 6h"),
    "restore_if": (str, ".+", "a command"),
}


def needs_of(stage: str, meta: Mapping[str, Any]) -> Needs:
    """Check a stage's `meta`; a key unknown here is skipped with a warning.

    Raises:
        InputError: a value is not allowed.
    """
    if not isinstance(meta, Mapping):
        raise InputError(f"dvc.yaml: meta of {stage}: got {meta!r}, expected names with values")
    known = {one.name for one in fields(Needs)}
    for name in sorted(set(meta) - known):
        warnings.warn(f"dvc.yaml: meta of {stage}: unknown key {name!r} is skipped", stacklevel=2)
    for name, (kind, pattern, expected) in _ALLOWED.items():
        value = meta.get(name)
        is_kind = isinstance(value, kind) and not isinstance(value, bool)
        if name in meta and not (is_kind and re.fullmatch(pattern, str(value))):
            raise InputError(f"dvc.yaml: meta of {stage}: {name}: got {value!r}, expected {expected}")
    _check_placing(stage, meta)
    return Needs(**{name: value for name, value in meta.items() if name in known})


def _check_placing(stage: str, meta: Mapping[str, Any]) -> None:
    """Refuse labels and tolerations that the pod could not have."""
    labels, tolerations = meta.get("node_selector", {}), meta.get("tolerations", ())
    texts = [labels, *tolerations] if isinstance(tolerations, list | tuple) else [None]
    if not all(
        isinstance(one, Mapping) and all(isinstance(text, str) for text in one.values()) for one in texts
    ):
        raise InputError(
            f"dvc.yaml: meta of {stage}: got node_selector {labels!r} and tolerations {tolerations!r}, expected names "
            "with texts, and a list of these"
        )
    unknown = {name for one in tolerations for name in one} - TOLERATION
    if unknown:
        raise InputError(
            f"dvc.yaml: meta of {stage}: tolerations: got {min(unknown)!r}, expected {', '.join(sorted(TOLERATION))}"
        )


def as_text(nodes: Sequence[Node]) -> str:
    """Names and edges as JSON, which a compiled pipeline hands to each of its tasks."""
    return json.dumps({node.name: node.parents for node in nodes}, sort_keys=True)


def check_same_graph(compiled: str, nodes: Sequence[Node]) -> None:
    """Refuse a task whose image and values make other stages or edges than the compiled pipeline has.

    Raises:
        InputError: they differ; the message names the stages.
    """
    before, now = json.loads(compiled), json.loads(as_text(nodes))
    differ = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differ:
        raise InputError(
            "the values and this image's dvc.yaml make another graph than the pipeline was compiled for; missing, new "
            f"or with other inputs: {', '.join(differ)}. Compile the pipeline again: damcrack pipeline compile"
        )
