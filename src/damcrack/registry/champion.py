"""Which version is champion, by whose decision, and the way back.

The registry's alias `champion` says which version it is. Each decision is one record on the version that it is about,
written before the alias moves: whoever is killed in between leaves the champion of before, and the same command
decides the same again. An alias never names a version whose promotion no record explains, unless it was set by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from damcrack.cracks.detector import OnnxDetector
from damcrack.files import InputError

FORMAT = 2
CHAMPION, CHALLENGER = "champion", "challenger"
PROMOTED, ROLLED_BACK, UNRECORDED = "promoted", "rolled back", "unrecorded"
MOVES = (PROMOTED, ROLLED_BACK)  # the decisions that move the alias

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A model to register: the files of an export with its `model.json`, its card and the tags of its version.

    The tags `weights_sha256` and `onnx_sha256` say which model it is.
    """

    model_name: str
    export: Path
    metrics: Path
    photos: Path
    card: Path
    model: Mapping[str, Any]
    tags: Mapping[str, str]


class Registry(Protocol):
    """Where models are stored, by name, version and alias; with the decisions about them."""

    def find(self, model_name: str, weights_sha256: str, onnx_sha256: str) -> str | None:
        """The version with these hashes, None if there is none."""

    def add(self, entry: Entry) -> str:
        """Register the model, or refresh the tags of the version with the same hashes; return its version."""

    def fetch(self, model_name: str, version: str) -> Path:
        """Folder with the files of a version, each checked against the hash that the registry holds."""

    def aliased(self, model_name: str, alias: str) -> str | None:
        """The version that an alias names, None if there is no such model or alias."""

    def set_alias(self, model_name: str, alias: str, version: str) -> None:
        """Make an alias name a version."""

    def records(self, model_name: str) -> Sequence[Record]:
        """The records of all versions that there are, oldest first."""

    def write_record(self, model_name: str, record: Record) -> None:
        """Add a record to the version that it names, with time, user and code."""


@dataclass(frozen=True)
class Step:
    """A decision about `version`, and which version was champion before and after it."""

    version: str | None
    decision: str
    reason: str
    before: str | None
    after: str | None
    at: str = ""
    by: Mapping[str, str] | None = None


def history(records: Sequence[Record], champion: str | None) -> list[Step]:
    """Every decision with the champion after it: the one that the next decision found, or the present `champion`.

    If that is still the champion of before, the alias did not follow: the promotion was interrupted, or undone by hand.
    If it is a third version, a step `unrecorded` says that it became champion without a decision.
    """
    found = [*(record["champion_before"] for record in records), champion]
    steps = [] if found[0] is None else [_unrecorded(None, found[0])]
    for record, after in zip(records, found[1:], strict=True):
        before, version = record["champion_before"], record["version"]
        decided = version if record["decision"] in MOVES else before
        known = after if after in (before, decided) else decided
        at, by = record.get("at", ""), record.get("by")
        steps.append(Step(version, record["decision"], record["reason"], before, known, at, by))
        if after != known:
            steps.append(_unrecorded(known, after))
    return steps


def _unrecorded(before: str | None, after: str | None) -> Step:
    reason = f"alias {CHAMPION} was set without a decision, or the decision was deleted with its version"
    return Step(after, UNRECORDED, reason, before, after)


def champion_before(records: Sequence[Record], champion: str | None) -> str | None:
    """The version to go back to: the one that the champion replaced when the gate promoted it.

    So two rollbacks go two champions back, not forth again. Of a champion that no record explains, or that was
    deleted, it is the last other version that became champion.
    """
    own = [record for record in records if record["version"] == champion]
    for decision in MOVES:
        if made := [record["champion_before"] for record in own if record["decision"] == decision]:
            return made[-1]  # type: ignore[no-any-return]
    others = [r["version"] for r in records if r["decision"] in MOVES and r["version"] != champion]
    return others[-1] if others else None


def rollback_from(records: Sequence[Record], version: str) -> Record | None:
    """The rollback that replaced a version, unless another made it champion again since."""
    for record in reversed(records):
        if record["decision"] == ROLLED_BACK and version in (record["version"], record["champion_before"]):
            return record if record["champion_before"] == version else None
    return None


def present_champion(registry: Registry, model_name: str, version: str | None = None) -> str | None:
    """The champion, None if there never was one; `version` may have been interrupted while it became the first.

    Raises:
        InputError: the champion's version or its alias was deleted.
    """
    champion = registry.aliased(model_name, CHAMPION)
    if champion is None:
        records = registry.records(model_name)
        last = champion_before(records, None)
        never = all(record["champion_before"] is None for record in records)
        if last is not None and not (never and last == version):
            raise InputError(
                f"{model_name} has no alias {CHAMPION} any more: it was removed, or its version was deleted; "
                f"`damcrack rollback --reason ...` makes version {last}, the last one with a record, champion again"
            )
    return champion


def new_record(
    model_name: str, version: str | None, decision: str, reason: str, champion: str | None
) -> dict[str, Any]:
    """A decision about `version`, None if it is not registered yet."""
    return {
        "format": FORMAT,
        "model_name": model_name,
        "version": version,
        "decision": decision,
        "reason": reason,
        "champion_before": champion,
    }


def carry_out(registry: Registry, record: Record) -> None:
    """Write the record first, then move the alias if it says so."""
    registry.write_record(record["model_name"], record)
    if record["decision"] in MOVES:
        registry.set_alias(record["model_name"], CHAMPION, record["version"])


def roll_back(model_name: str, reason: str, to: str | None, registry: Registry) -> dict[str, Any]:
    """Make the champion before the present one champion again, or version `to`, once its files are checked.

    The gate does not promote the replaced version again, whatever its scores are.

    Raises:
        InputError: no reason, no version to go back to, or its files are missing or changed; the champion stays then.
    """
    if not reason.strip():
        raise InputError("--reason is empty; say why the champion is replaced, the history shows it")
    champion = registry.aliased(model_name, CHAMPION)
    version = to or champion_before(registry.records(model_name), champion)
    if version is None:
        raise InputError(
            f"{model_name} has no earlier champion to go back to; name a version with --to, or promote one"
        )
    if version == champion:
        raise InputError(f"version {version} of {model_name} is the champion already; nothing was changed")
    OnnxDetector.load(registry.fetch(model_name, version))
    record = new_record(model_name, version, ROLLED_BACK, reason.strip(), champion)
    carry_out(registry, record)
    return record
