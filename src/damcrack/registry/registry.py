"""The MLflow model registry: versions found by hash, their decision records, aliases and addresses.

A version's tags hold the sha256 of each of its files (`files`). The tags lie in the server's database, the files in
its artifact store: whoever changes a file does not change its tag, and the file is refused. Whoever may write both
still cannot put a model into service where DAMCRACK_APPROVED names a folder or s3:// prefix: it holds an object for
each model that may be loaded, named by the sha256 of its model.onnx.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from damcrack.files import (
    InputError,
    new_directory,
    one_at_a_time,
    remove_output,
    sha256_file,
    temporary_folder,
)
from damcrack.messages import without_passwords
from damcrack.registry import registration
from damcrack.registry.champion import CHALLENGER, CHAMPION, Entry, Record, present_champion
from damcrack.registry.registration import FILES_TAG, code_facts
from damcrack.storage.source import open_source
from damcrack.tracking.recorded import caller_tags, user_name
from damcrack.tracking.send import send_later
from damcrack.tracking.store import AWAY, Store, one_line, sending_errors, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ADDRESS = "models:/"
CACHE = Path(".damcrack/models")
DECISION = "decision."  # a tag per decision, with its time; others may have tags of such names too
DECISION_TAG = re.compile(r"decision\.\d{20}")

Found = TypeVar("Found")


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Turn the errors of a registry that does not answer, or refuses, into an InputError."""
    if find_spec("mlflow") is None:
        raise InputError("mlflow is not installed; run `pip install damcrack[track]`")
    try:
        yield
    except InputError:
        raise
    except sending_errors() as error:
        meaning = one_line(error)
        fix = "start the server or set MLFLOW_TRACKING_URI, then" if meaning == AWAY else "fix that and"
        raise InputError(
            f"the model registry at {without_passwords(tracking_uri())} did not {what} ({meaning}); "
            f"{fix} run the same command again"
        ) from error


@dataclass(frozen=True)
class MlflowRegistry:
    """The `Registry` in the MLflow of MLFLOW_TRACKING_URI (and MLFLOW_REGISTRY_URI, if set).

    `command` is the one that decides, for its records. Every method raises InputError if MLflow does not answer.
    """

    command: str = "damcrack register"

    @cached_property
    def store(self) -> Store:
        return Store(tracking_uri())

    @property
    def client(self) -> "MlflowClient":
        return self.store.client

    @answering("take the model")
    def add(self, entry: Entry) -> str:
        send_later()  # the runs behind the model must have arrived to be found
        return registration.add(self.store, entry)

    @answering("search its versions")
    def find(self, model_name: str, weights_sha256: str, onnx_sha256: str) -> str | None:
        found = registration.find_version(self.client, model_name, weights_sha256, onnx_sha256)
        return None if found is None else str(found.version)

    @answering("name its aliases")
    def aliased(self, model_name: str, alias: str) -> str | None:
        model = found_or_none(self.client.get_registered_model, model_name)
        number = model.aliases.get(alias) if model else None
        return None if number is None else str(number)

    @answering("set an alias")
    def set_alias(self, model_name: str, alias: str, version: str) -> None:
        self.client.set_registered_model_alias(model_name, alias, version)

    @answering("list its decisions")
    def records(self, model_name: str) -> list[Record]:
        versions = self.client.search_model_versions(f"name = '{model_name}'")
        records = [record for version in versions for record in records_of(version)]
        return sorted(records, key=lambda record: str(record["at"]))

    @answering("take the decision")
    def write_record(self, model_name: str, record: Record) -> None:
        """Add a record in one tag: in one request."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        by = {"user": user_name(), "command": self.command, **caller_tags()}
        key = DECISION + re.sub(r"\D", "", now.partition("+")[0])
        text = json.dumps({**record, "at": now, "by": by, "code": code_facts()})
        self.client.set_model_version_tag(model_name, record["version"], key, text)

    @answering("find the version")
    def version(self, model_name: str, version: str) -> "ModelVersion":
        """A version with its tags; InputError if there is none."""
        found = found_or_none(self.client.get_model_version, model_name, version)
        if found is None:
            raise InputError(f"{model_name} has no version {version}, or it was deleted; name another")
        return found

    @answering("send the model")
    def fetch(self, model_name: str, version: str) -> Path:
        """Folder with the files of a version, each checked against the hash that the registry holds.

        A version is downloaded once and checked every time.

        Raises:
            InputError: no such version, it has no hashes, or a file is missing or was changed.
        """
        found, name = self.version(model_name, version), f"{model_name} version {version}"
        expected = _expected_files(found, name)
        _check_approved(expected["model.onnx"], name)
        cached = CACHE / f"{model_name}-{version}-{expected['model.onnx'][:12]}"
        with one_at_a_time(CACHE):
            if _changed(cached, expected):
                remove_output(cached)  # it is not there yet, or damaged
                self._download(found, expected, cached, name)
        return cached

    def version_at(self, target: str, model_name: str = "") -> tuple[str, str]:
        """Model name and version of models:/NAME@ALIAS or models:/NAME/VERSION.

        With a `model_name` also VERSION, NAME/VERSION, NAME@ALIAS, and NAME, which means its challenger.

        Raises:
            InputError: another form of address, or the registry knows no such alias.
        """
        target = target.removeprefix(ADDRESS)
        name, slash, number = target.rpartition("/")
        if number.isdecimal() and "/" not in name and (name or (model_name and not slash)):
            return name or model_name, str(int(number))  # 07 is 7, also for who looks for its decisions
        name, at, alias = target.partition("@")
        if model_name and not at:
            alias = CHALLENGER
        if "/" in target or not name or not alias:
            raise InputError(f"{target}: expected {ADDRESS}NAME@ALIAS or {ADDRESS}NAME/VERSION")
        version = present_champion(self, name) if alias == CHAMPION else self.aliased(name, alias)
        if version is None:
            raise InputError(f"{target}: the model has no alias {alias}; register one, or name a version")
        return name, version

    def _download(self, found: "ModelVersion", expected: Mapping[str, str], cached: Path, name: str) -> None:
        from mlflow.artifacts import download_artifacts

        with new_directory(cached) as folder, temporary_folder() as temporary:
            source = Path(
                download_artifacts(found.source, dst_path=str(temporary), tracking_uri=self.store.uri)
            )
            for file in expected:
                paths = [path for path in (source / file, source / "extra_files" / file) if path.is_file()]
                if not paths:
                    raise InputError(f"{file} of {name} is missing in the artifact store; register it again")
                shutil.copyfile(paths[0], folder / file)
            changed = _changed(folder, expected)
            if changed:
                raise InputError(
                    f"{changed} of {name} was changed: its sha256 is {sha256_file(folder / changed)[:12]}, the "
                    f"registry expects {expected[changed][:12]}; it is not used, and the champion was not changed"
                )


def records_of(version: "ModelVersion") -> list[dict[str, Any]]:
    """The decision records of a version, oldest first."""
    keys = sorted(key for key in version.tags if DECISION_TAG.fullmatch(key))
    return [json.loads(version.tags[key]) | {"version": str(version.version)} for key in keys]


def found_or_none(read: Callable[..., Found], *arguments: str) -> Found | None:
    """What MLflow reads, None if it does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return read(*arguments)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def files_of(version: "ModelVersion") -> dict[str, str]:
    """The sha256 of each file of a version; empty where we did not write its tag."""
    try:
        return dict(json.loads(version.tags.get(FILES_TAG, "{}")))
    except (ValueError, TypeError):
        return {}


def _expected_files(found: "ModelVersion", name: str) -> dict[str, str]:
    expected = files_of(found)
    if "model.onnx" not in expected or any(Path(file).name != file for file in expected):
        raise InputError(
            f"{name} carries no hashes of its files (tag {FILES_TAG}), so they cannot be trusted; "
            "register it again; if it is the champion, take its alias away in MLflow first"
        )
    return expected


def _check_approved(sha256: str, name: str) -> None:
    place = os.environ.get("DAMCRACK_APPROVED")
    if place and sha256 not in {one.name for one in open_source(place).listed(sha256)}:
        raise InputError(
            f"{name} is not approved: {place} holds no {sha256}; who may approve models puts an object of that name "
            "there (docs/promotion.md)"
        )


def _changed(folder: Path, expected: Mapping[str, str]) -> str | None:
    """The first file that is missing or has another hash than expected."""
    for file, sha256 in expected.items():
        path = folder / file
        if not path.is_file() or sha256_file(path) != sha256:
            return file
    return None
