import shutil
import textwrap
from pathlib import Path

import pytest

from damcrack.kubeflow.graph import derive
from damcrack.kubeflow.task import Done, Task, run_task

TOY_GRAPH = """
stages:
  first:
    cmd: echo "first ${first.word}" >> $TOY_LOG && mkdir -p data && echo ${first.word} > data/first
    deps: [code.txt]
    params: [first]
    outs: [data/first]
    meta: {image: cpu}
  double:
    foreach: ${double.items}
    do:
      cmd: echo "double ${key}" >> $TOY_LOG && mkdir -p data/double && cat data/first data/first > data/double/${key}
      deps: [data/first, code.txt]
      params: ["double.items.${key}"]
      outs: ["data/double/${key}"]
  last:
    cmd: echo last >> $TOY_LOG && mkdir -p out && cat data/double/* > out/last
    deps: [data/double, data/first]
    outs: [out/last]
  act:
    cmd: echo act >> $TOY_LOG && touch $TOY_EFFECT && mkdir -p out && cp out/last out/act
    deps: [out/last]
    outs: [out/act]
    meta: {image: cpu, restore_if: test -f $TOY_EFFECT}
"""
TOY_PARAMS = "first: {word: crack}\ndouble: {items: {a: {n: 1}, b: {n: 2}}}\n"


@pytest.fixture(scope="session", autouse=True)
def quick(patched_kfp):
    """In all tests here."""


class Toy:
    """A checkout with a graph of shell commands, a remote, and a log of the commands that really ran."""

    def __init__(self, root: Path) -> None:
        self.checkout, self.remote, self.log = root / "checkout", root / "remote", root / "log"
        self.effect = root / "effect"
        self.params = TOY_PARAMS
        self.checkout.mkdir()
        self.remote.mkdir()
        (self.checkout / "dvc.yaml").write_text(textwrap.dedent(TOY_GRAPH))
        (self.checkout / "code.txt").write_text("code\n")
        self.parts: dict[str, str] = {}

    def run(self, stage: str, **changed: object) -> Done:
        node = next(one for one in derive(self.checkout, self.params) if one.name == stage)
        parts = [self.parts[parent] for parent in node.parents]
        done = run_task(Task(**{**self.task(stage, parts).__dict__, **changed}))
        self.parts[stage] = done.lock_part
        return done

    def task(self, stage: str, parts: list[str]) -> Task:
        return Task(stage, parts, self.params, str(self.remote))

    def run_all(self) -> dict[str, bool]:
        """Run the graph in order; whether each stage was restored."""
        return {node.name: self.run(node.name).restored for node in derive(self.checkout, self.params)}

    def ran(self) -> list[str]:
        """Commands that ran since the last call."""
        lines = self.log.read_text().splitlines() if self.log.is_file() else []
        self.log.unlink(missing_ok=True)
        return lines


def use(toy: Toy, patch: pytest.MonkeyPatch) -> Toy:
    """Make the toy graph this process's checkout."""
    patch.setenv("DAMCRACK_CHECKOUT", str(toy.checkout))
    patch.setenv("TOY_LOG", str(toy.log))
    patch.setenv("TOY_EFFECT", str(toy.effect))
    for name in ("DAMCRACK_IMAGE", "DAMCRACK_REVISION", "DAMCRACK_SCRATCH"):
        patch.delenv(name, raising=False)
    return toy


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A toy graph of which nothing has run."""
    monkeypatch.chdir(tmp_path)
    return use(Toy(tmp_path), monkeypatch)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Folder and lock parts of a toy graph that has run once."""
    root = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        toy = use(Toy(root), patch)
        assert not any(toy.run_all().values())
        assert toy.ran() == ["first crack", "double a", "double b", "last", "act"]
    return root, toy.parts


@pytest.fixture
def finished(first_run: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A toy graph that has run once on another machine: its remote and its lock parts are there."""
    root, parts = first_run
    toy = Toy(tmp_path)
    shutil.copytree(root / "remote", toy.remote, dirs_exist_ok=True)
    toy.effect.touch()
    toy.parts |= parts
    monkeypatch.chdir(tmp_path)
    return use(toy, monkeypatch)
