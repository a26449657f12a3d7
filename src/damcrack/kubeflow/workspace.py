"""A DVC workspace of one task: filled from a checkout, restored from or pushed to the common remote.

Only one process may use a workspace. What two tasks share is the remote, where nothing is ever changed: outputs
are named by their content, and of a stage's run-cache entries the first that was pushed counts for everybody.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import yaml

from damcrack.files import InputError
from damcrack.kubeflow.derive import Node, new_repo, nodes_of, one_sentence
from damcrack.kubeflow.lock_parts import lock_part, read_lock, write_lock

REMOTE = "store"
RUN_CACHE_HASH = "md5-dos2unix"  # the name under which DVC keeps its run-cache


class Workspace:
    """DVC in one folder, without git; use it in a `with` statement."""

    def __init__(self, root: Path, checkout: Path, params_text: str, remote: str) -> None:
        self.root, self.checkout, self.remote = root, checkout, remote
        for name in ("dvc.yaml", ".dvcignore"):
            if (checkout / name).is_file():
                shutil.copyfile(checkout / name, root / name)
        (root / "params.yaml").write_text(params_text)
        with new_repo(root) as repo, repo.config.edit() as settings:
            settings["core"] |= {"remote": REMOTE, "analytics": False, "check_update": False}
            settings["remote"] = {REMOTE: {"url": remote}}
            settings["cache"] = {"type": ["hardlink", "copy"]}  # one copy on disk, not two

    def __enter__(self) -> Self:
        from dvc.repo import Repo

        self._repo = Repo(str(self.root))
        return self

    def __exit__(self, *_: object) -> None:
        self._repo.close()

    def nodes(self) -> list[Node]:
        """The graph of the checkout with these values."""
        return nodes_of(self._repo)

    def fill(self, snapshots: Mapping[str, str]) -> None:
        """Copy what the graph reads from the checkout; snapshots (by stage) take the place of its own."""
        for path in self._sources():
            _copy(self.checkout / path, self.root / path)
        for stage, text in snapshots.items():
            file = self.root / "snapshots" / f"{stage}.csv"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)

    def _sources(self) -> list[str]:
        """Paths that stages read and none writes."""
        stages = self._repo.index.stages
        outs = {out.fs_path for stage in stages for out in stage.outs}
        deps = {dep for stage in stages for dep in stage.deps if dep.def_path != "params.yaml"}
        made = {dep.def_path for dep in deps if any(_overlap(dep.fs_path, out) for out in outs)}
        return sorted({dep.def_path for dep in deps} - made)

    def put_parts(self, stages: Mapping[str, Any]) -> None:
        """Begin with these entries as dvc.lock."""
        write_lock(self.root / "dvc.lock", dict(stages))

    def pull_inputs(self, parents: Sequence[str]) -> None:
        """Fetch the outputs of the parents that their lock parts name.

        Raises:
            InputError: the remote lacks one of them.
        """
        if not parents:
            return
        with _told(f"the outputs of {', '.join(parents)} cannot be had from {self.remote}"):
            self._repo.pull(targets=list(parents))

    def restore(self, node: Node) -> bool:
        """Take the outputs of an earlier run of the same stage from the remote; False if there was none.

        An entry whose outputs are no longer whole in the remote counts as none, and so does one of a stage whose
        effect outside the graph is gone. Inputs are fetched only if their hashes do not stand in the parents'
        entries: where a stage reads a folder above several outputs.
        """
        from dvc.exceptions import DvcException

        one = self._stage(node.name)
        if not self._know_inputs(one, node.parents):
            self.pull_inputs(node.parents)
            one.save_deps()
        entry = self._earlier_run(one)
        if entry is None:
            return False
        lock = self.root / "dvc.lock"
        before = read_lock(lock)
        write_lock(lock, {**before, node.name: entry})
        with suppress(DvcException, OSError):
            self._repo.pull(targets=[node.name])
            if self._still_stands(node.needs.restore_if):
                return True
        write_lock(lock, before)
        return False

    def _still_stands(self, command: str | None) -> bool:
        """Ask the command of a stage that acts outside the graph; a shell runs it, as DVC runs the stage's own."""
        return command is None or subprocess.run(command, shell=True, cwd=self.root).returncode == 0

    def _know_inputs(self, stage: Any, parents: Sequence[str]) -> bool:
        """Give the stage's inputs their hashes, those of the parents' outputs from dvc.lock, without the data."""
        made = {out.fs_path: out for parent in parents for out in self._stage(parent).outs}
        for dep in stage.deps:
            if dep.fs_path in made:
                dep.hash_info, dep.meta = made[dep.fs_path].hash_info, made[dep.fs_path].meta
            elif any(_overlap(dep.fs_path, path) for path in made):
                return False
            else:
                dep.save()
        return True

    def reproduce(self, node: Node) -> None:
        """Run the stage, and write its entry into dvc.lock.

        Raises:
            InputError: its command failed; what it printed stands above.
        """
        with _told(f"stage {node.name} failed"):
            self._repo.reproduce(
                targets=[node.name], single_item=True, pull=True, run_cache=node.needs.restore_if is None
            )

    def push(self, stage: str) -> None:
        """Put outputs, then the run-cache entry, into the remote, so that an entry never names what is not there.

        Raises:
            InputError: the remote did not take them.
        """
        with _told(f"the outputs of {stage} cannot be pushed to {self.remote}"):
            self._repo.push(targets=[stage])
            self._push_run(self._stage(stage))

    def part(self, stage: str) -> str:
        """The stage's entry of dvc.lock as text."""
        return lock_part(self.root / "dvc.lock", stage)

    def outs(self, stage: str) -> list[Path]:
        """The outputs of a stage, relative to the workspace."""
        return [Path(out.def_path) for out in self._stage(stage).outs]

    def command(self, stage: str) -> str:
        """The command of a stage, values filled in."""
        return str(self._stage(stage).cmd)

    def _stage(self, name: str) -> Any:
        return self._repo.stage.load_one(name=name)

    def _earlier_run(self, stage: Any) -> dict[str, Any] | None:
        """Read this stage's run-cache entry alone: `dvc fetch --run-cache` copies those of all runs ever made."""
        with _told(f"the run-cache of {self.remote} cannot be read"):
            store = self._repo.cloud.get_remote_odb(REMOTE, "fetch", hash_name=RUN_CACHE_HASH)
            there = store.fs.join(store.path, *_run_folder(stage))
            names = sorted(store.fs.find(there)) if store.fs.exists(there) else []
            # Two machines that ran it at once may have pushed different bits: all must choose the same.
            text = store.fs.cat_file(names[0]) if names else b""
        try:
            entry = yaml.safe_load(text)
        except yaml.YAMLError:
            return None
        whole = isinstance(entry, dict) and _out_paths(entry) == [out.def_path for out in stage.outs]
        return entry if whole else None

    def _push_run(self, stage: Any) -> None:
        folder = Path(self._repo.stage_cache.cache_dir, *_run_folder(stage)[1:])
        store = self._repo.cloud.get_remote_odb(REMOTE, "push", hash_name=RUN_CACHE_HASH)
        there = store.fs.join(store.path, *_run_folder(stage))
        if store.fs.exists(there) and store.fs.find(there):
            return
        for path in sorted(folder.iterdir())[:1]:
            store.fs.makedirs(there, exist_ok=True)
            store.fs.put_file(str(path), store.fs.join(there, path.name))


def _run_folder(stage: Any) -> tuple[str, str, str]:
    """Where DVC keeps the runs of a stage with these inputs; not by its own function, which reads them."""
    from dvc.stage.cache import _get_cache_hash
    from dvc.stage.serialize import to_single_stage_lockfile

    key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
    return "runs", key[:2], key


def _out_paths(entry: Mapping[str, Any]) -> list[Any]:
    outs = entry.get("outs")
    return [out.get("path") for out in outs if isinstance(out, dict)] if isinstance(outs, list) else []


def _overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise InputError(f"{source} is missing: a stage of dvc.yaml reads it; use a whole checkout or image")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn DVC's and the remote's errors into one sentence."""
    from dvc.exceptions import DvcException

    try:
        yield
    except (DvcException, OSError) as error:
        raise InputError(f"{what}: {one_sentence(error)}") from error
