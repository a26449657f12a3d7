"""The MLflow model registry: versions named by hashes, the runs that made them, and who is champion.

A version's tags hold the sha256 of each of its files (`files`). The tags lie in the server's database, the files in
its artifact store: whoever changes a file does not change its tag, and the file is refused by name.
"""

import getpass
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from damcrack.files import InputError, new_directory, sha256_file
from damcrack.registry.ledger import TAG, Ledger, find, find_or_make, fits, registered_model
from damcrack.registry.register import Entry
from damcrack.registry.registration import FILES_TAG, add, code_facts
from damcrack.registry.settle import BY_HAND, CHAMPION, Move, Reign
from damcrack.tracking.recorded import caller_tags, send_later
from damcrack.tracking.store import (
    QUIET,
    Store,
    experiment_name,
    one_line,
    sending_errors,
    set_defaults,
    shown_uri,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# A model of 90 MB takes its time to a distant store, and nothing is being trained meanwhile.
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
FETCHED = Path(".damcrack/models")
KEPT_FILES = ("model.onnx", "model.json", "photos.csv")
DECISION_TAG = "decision"


@dataclass(frozen=True)
class MlflowRegistry:
    """A registry in the MLflow of MLFLOW_TRACKING_URI (and MLFLOW_REGISTRY_URI, if set).

    `trigger` is the command that decides, for its records.
    """

    trigger: str = "damcrack register"

    @cached_property
    def store(self) -> Store:
        """The tracking store; an error if MLflow is not installed."""
        if find_spec("mlflow") is None:
            raise InputError("mlflow is not installed; run `pip install damcrack[track]`")
        set_defaults(QUIET | PATIENT)
        return Store(tracking_uri())

    @property
    def client(self) -> "MlflowClient":
        """The store's client."""
        return self.store.client

    def add(self, entry: Entry) -> str:
        """Register the model, or refresh tags, description and card of the version with the same hashes.

        Returns its version.

        Raises:
            InputError: the registry does not answer, or refuses.
        """
        with answering():
            send_later()  # the runs that made the model must be there to be found
            return add(self, entry)

    def reign(self, model_name: str, must_exist: bool = True) -> Reign:
        """Say who is champion; finish a move whose alias has not followed, and take note of one made by hand.

        Raises:
            InputError: the champion's version or alias was deleted, and `must_exist`.
        """
        with answering("say who is champion"):
            model = registered_model(self.client, model_name)
            if model is None or not (model.tags.get(TAG) or CHAMPION in model.aliases):
                return Reign(None, 0)
            return self._settled_reign(model_name, self.ledger(model_name), must_exist)

    def _settled_reign(self, model_name: str, ledger: Ledger, must_exist: bool) -> Reign:
        while True:
            moves, settled = ledger.moves()
            if not settled:
                self._follow(model_name, ledger, moves[-1])
                continue
            aliased, number = self.aliased(model_name, CHAMPION), len(moves)
            last = moves[-1].version if moves else None
            if aliased is not None and aliased != last and self.version(model_name, aliased):
                reason = f"alias {CHAMPION} was set to version {aliased} outside of damcrack"
                record = {"decision": BY_HAND, "reason": reason} | self._circumstances()
                ledger.append(Move(number + 1, aliased, last, BY_HAND, reason, record))
                continue
            if must_exist and last is not None:
                self._check_there(model_name, last, aliased)
            return Reign(last, number)

    def _check_there(self, model_name: str, last: str, aliased: str | None) -> None:
        mend = "nothing was moved; `damcrack rollback --reason ...` returns to the champion before"
        if self.version(model_name, last) is None:
            raise InputError(f"version {last} of {model_name} is champion but was deleted: {mend}")
        if aliased is None:
            raise InputError(f"alias {CHAMPION} of {model_name} was taken off version {last} by hand: {mend}")

    def _follow(self, model_name: str, ledger: Ledger, move: Move) -> None:
        """Let tags and alias follow the last move, which may be another process's that was interrupted."""
        if self.version(model_name, move.version) is not None:
            self._keep(model_name, move.version, move.record)
            if ledger.moves()[0][-1] == move:
                self._set_alias(model_name, CHAMPION, move.version)
            latest = ledger.moves()[0][-1]
            if latest != move and self.version(model_name, latest.version) is not None:
                self._set_alias(model_name, CHAMPION, latest.version)  # we were late
        ledger.settled(move)

    def moves(self, model_name: str) -> Sequence[Move]:
        """All changes of champion, oldest first."""
        with answering("tell its history"):
            ledger = find(self.client, model_name)
            return ledger.moves()[0] if ledger else []

    def succeed(
        self, model_name: str, reign: Reign, version: str, how: str, record: Mapping[str, Any]
    ) -> bool:
        """Make a version champion if `reign` is still the last word; say whether it was."""
        with answering():
            ledger = self.ledger(model_name)
            complete = {**record, **self._circumstances()}
            move = Move(reign.move + 1, version, reign.version, how, str(record["reason"]), complete)
            if not ledger.append(move):
                return False
            self._settled_reign(model_name, ledger, must_exist=False)
            if not fits(move):
                self._keep(model_name, version, complete)
            return True

    def fetch(self, model_name: str, version: str) -> Path:
        """Folder with the files of a version, each checked against the hash that the registry holds.

        A version is fetched once and checked every time.

        Raises:
            InputError: no such version, it has no hashes, or a file is missing or was changed.
        """
        with answering("give the model"):
            found = self.version(model_name, version)
            if found is None:
                raise InputError(f"{model_name} has no version {version}, or it was deleted; name another")
            name = f"{model_name} version {version}"
            expected = _expected_files(found, name)
            kept = FETCHED / f"{model_name}-{version}-{expected['model.onnx'][:12]}"
            if _changed(kept, {file: expected[file] for file in KEPT_FILES if file in expected}):
                self._download(found, expected, kept, name)
        return kept

    def _download(self, found: "ModelVersion", expected: Mapping[str, str], kept: Path, name: str) -> None:
        from mlflow.artifacts import download_artifacts

        with new_directory(kept) as folder, tempfile.TemporaryDirectory() as given:
            got = Path(download_artifacts(found.source, dst_path=given, tracking_uri=self.store.uri))
            for file in expected:
                paths = [path for path in (got / file, got / "extra_files" / file) if path.is_file()]
                if not paths:
                    raise InputError(f"{file} of {name} is missing in the artifact store; register it again")
                shutil.copyfile(paths[0], folder / file)
            changed = _changed(folder, expected)
            if changed:
                raise InputError(
                    f"{changed} of {name} was changed: its sha256 is {sha256_file(folder / changed)[:12]}, the "
                    f"registry expects {expected[changed][:12]}; it is not used, and nothing was moved"
                )
            for file in set(expected) - set(KEPT_FILES):
                (folder / file).unlink()

    def note(self, model_name: str, version: str, record: Mapping[str, Any]) -> None:
        """Keep a decision with its version."""
        with answering():
            if self.version(model_name, version) is not None:  # the champion that goes may have been deleted
                self._keep(model_name, version, {**record, **self._circumstances()})

    def _keep(self, model_name: str, version: str, record: Mapping[str, Any]) -> None:
        """The last decision as tag `decision`, and each as one with its time."""
        text = json.dumps(record)
        key = f"{DECISION_TAG}.{re.sub('[^0-9]', '', record['at'][:23])}"
        self.set_tags(model_name, version, {key: text, DECISION_TAG: text})

    def _circumstances(self) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        by = {"user": getpass.getuser(), "command": self.trigger, **caller_tags()}
        return {"at": now, "by": by, "code": code_facts()}

    def aliased(self, model_name: str, alias: str) -> str | None:
        """The version that an alias points to, None if there is no such model or alias."""
        model = registered_model(self.client, model_name)
        number = model.aliases.get(alias) if model else None
        return None if number is None else str(number)

    def version(self, model_name: str, version: str) -> "ModelVersion | None":
        """A version as the registry knows it, None if there is none."""
        from mlflow.exceptions import MlflowException

        try:
            found: ModelVersion = self.client.get_model_version(model_name, version)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return found

    def point(self, model_name: str, alias: str, version: str) -> None:
        """Make an alias other than the champion's point to a version."""
        with answering():
            self._set_alias(model_name, alias, version)

    def _set_alias(self, model_name: str, alias: str, version: str) -> None:
        _put(self.client.set_registered_model_alias, model_name, alias, version)

    def set_tags(self, model_name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version; MLflow's errors pass."""
        for key, value in tags.items():
            _put(self.client.set_model_version_tag, model_name, version, key, value)

    def ledger(self, model_name: str) -> Ledger:
        """The ledger of a model; both are made if there is none."""
        experiment_id = self.store.experiment_id(experiment_name())
        return find_or_make(self.client, model_name, experiment_id, "Crack or no crack on dam tiles.")

    def holding(self, model_name: str, weights_sha256: str, onnx_sha256: str) -> "ModelVersion | None":
        """The version that holds a model with these hashes, None if there is none."""
        same = (
            f"name = '{model_name}' and tags.weights_sha256 = '{weights_sha256}' and "
            f"tags.onnx_sha256 = '{onnx_sha256}'"
        )
        return min(
            self.client.search_model_versions(same), key=lambda found: int(found.version), default=None
        )


def fetch_model(uri: str) -> Path:
    """Folder with the exported files of models:/NAME@ALIAS or models:/NAME/VERSION, each checked by its hash.

    Raises:
        InputError: mlflow is missing, the registry does not answer, has no such version, or a file was changed.
    """
    registry = MlflowRegistry("damcrack inspect")
    return registry.fetch(*named(registry, uri))


def named(registry: MlflowRegistry, uri: str) -> tuple[str, str]:
    """Model name and version of a models:/ address.

    Raises:
        InputError: another form of address, or no such alias.
    """
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not at:
        name, slash, number = name.partition("/")
        if not (slash and number.isdigit() and name):
            raise InputError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
        return name, number
    with answering("give the model"):
        version = registry.aliased(name, alias)
        if version is None and alias == CHAMPION:
            registry.reign(name)  # knows better what became of it
    if version is None:
        raise InputError(f"{uri}: the model has no alias {alias}; register one, or name a version")
    return name, version


@contextmanager
def answering(what: str = "take the model") -> Iterator[None]:
    """Turn a registry that is away or unwilling into words."""
    try:
        yield
    except sending_errors() as error:
        raise InputError(
            f"the model registry at {shown_uri(tracking_uri())} did not {what} ({one_line(error)}); "
            "start the server or set MLFLOW_TRACKING_URI, then run the same command again"
        ) from error


def _put(write: Callable[..., None], *arguments: str) -> None:
    """Set an alias or a tag, once more if its row appeared between MLflow's look for it and MLflow's insert.

    Where two processes set what nobody had set before, both may insert; the database refuses the later one. The second
    try finds the row and updates it.
    """
    from mlflow.exceptions import MlflowException

    try:
        write(*arguments)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":  # as MLflow calls an error of its database
            raise
        write(*arguments)


def _expected_files(found: "ModelVersion", name: str) -> dict[str, str]:
    expected: dict[str, str] = json.loads(found.tags.get(FILES_TAG, "{}"))
    if "model.onnx" not in expected or any(Path(file).name != file for file in expected):
        raise InputError(
            f"{name} carries no hashes of its files (tag {FILES_TAG}), so they cannot be trusted; "
            "register it again; if it is the champion, take its alias away in MLflow first"
        )
    return expected


def _changed(folder: Path, expected: Mapping[str, str]) -> str | None:
    """The first file that is not there or not what is expected."""
    for file, sha256 in expected.items():
        path = folder / file
        if not path.is_file() or sha256_file(path) != sha256:
            return file
    return None
