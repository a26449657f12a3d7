"""The gate that every new champion passes, the rollback, and the history of both.

The registry's alias `champion` says which version is champion. Each decision is one record on the version that it is
about, written before the alias moves: whoever is killed in between leaves the champion of before, and the same command
decides the same again. An alias never names a version whose promotion no record explains, unless it was set by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from damcrack.cracks.detector import OnnxDetector
from damcrack.files import InputError
from damcrack.registry.comparison import ScoredModel, compare_models, without_nan
from damcrack.registry.config import Policy
from damcrack.registry.evaluation_set import EvaluationSet
from damcrack.registry.policy import Decision, decide
from damcrack.run import Run

FORMAT = 2
CHAMPION, CHALLENGER = "champion", "challenger"
PROMOTED, ROLLED_BACK, UNRECORDED = "promoted", "rolled back", "unrecorded"

Record = Mapping[str, Any]


class VersionStore(Protocol):
    """Where versions, aliases and decision records are stored."""

    def aliased(self, model_name: str, alias: str) -> str | None:
        """The version that an alias names, None if there is no such model or alias."""

    def set_alias(self, model_name: str, alias: str, version: str) -> None:
        """Make an alias name a version."""

    def records(self, model_name: str) -> Sequence[Record]:
        """The records of all versions that there are, oldest first."""

    def write_record(self, model_name: str, record: Record) -> None:
        """Add a record to the version that it names, with time, user and code."""

    def fetch(self, model_name: str, version: str) -> Path:
        """Folder with the files of a version, each checked against the hash that the registry holds."""


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
        decided = version if record["decision"] in (PROMOTED, ROLLED_BACK) else before
        known = after if after in (before, decided) else decided
        at, by = record.get("at", ""), record.get("by")
        steps.append(Step(version, record["decision"], record["reason"], before, known, at, by))
        if after != known:
            steps.append(_unrecorded(known, after))
    return steps


def _unrecorded(before: str | None, after: str | None) -> Step:
    reason = f"alias {CHAMPION} was set without a decision, or the decision was deleted with its version"
    return Step(after, UNRECORDED, reason, before, after)


def champion_before(steps: Sequence[Step], champion: str | None) -> str | None:
    """The version to go back to: two rollbacks go two champions back, not forth again.

    If no version is champion, because its alias or version was deleted, it is the last one that was promoted.
    """
    if champion is None:
        promoted = [step.version for step in steps if step.decision in (PROMOTED, ROLLED_BACK)]
        return promoted[-1] if promoted else None
    champions: list[str | None] = []
    for step in steps:
        if step.after == step.before:
            continue
        if step.decision == ROLLED_BACK and step.after in champions:
            while champions[-1] != step.after:
                champions.pop()
        else:
            champions.append(step.after)
    return champions[-2] if len(champions) > 1 else None


def rollback_from(steps: Sequence[Step], version: str) -> Step | None:
    """The rollback that replaced a version, unless it became champion again since."""
    moves = (step for step in reversed(steps) if step.after != step.before)
    last = next((step for step in moves if version in (step.before, step.after)), None)
    return last if last and last.decision == ROLLED_BACK and last.before == version else None


def present_champion(registry: VersionStore, model_name: str, version: str | None = None) -> str | None:
    """The champion, None if there never was one; `version` may have been interrupted while it became the first.

    Raises:
        InputError: the champion's version or its alias was deleted.
    """
    champion = registry.aliased(model_name, CHAMPION)
    if champion is None:
        records = registry.records(model_name)
        last = champion_before(history(records, None), None)
        never = all(record["champion_before"] is None for record in records)
        if last is not None and not (never and last == version):
            raise InputError(
                f"{model_name} has no alias {CHAMPION} any more: it was removed, or its version was deleted; "
                f"`damcrack rollback --reason ...` makes version {last}, the last one with a record, champion again"
            )
    return champion


@dataclass(frozen=True)
class Gate:
    """Decides over versions of one model on one evaluation set by one policy."""

    model_name: str
    policy: Policy
    evaluation_set: EvaluationSet
    registry: VersionStore
    run: Run

    def decide(self, challenger: ScoredModel, version: str | None) -> tuple[Decision, dict[str, Any]]:
        """Decide whether the challenger, `version` or not registered yet, becomes champion; nothing is written.

        Returns the decision and its record, which is empty if nothing was compared.
        """
        champion = present_champion(self.registry, self.model_name, version)
        if version is not None and champion == version:
            return Decision("kept", "it is the champion already"), {}
        steps = history(self.registry.records(self.model_name), champion)
        rollback = rollback_from(steps, version) if version is not None else None
        if rollback is not None:
            reason = (
                f"version {version} was rolled back ({rollback.reason}); "
                f"`damcrack rollback --to {version} --reason ...` makes it champion again"
            )
            return Decision("refused", reason), {}
        scores, gain, details = compare_models(
            challenger, self._load(champion), self.evaluation_set, self.policy
        )
        decision = decide(scores, gain, self.policy)
        checks = [without_nan(check._asdict()) for check in decision.checks]
        record = _record(self.model_name, version, decision.outcome, decision.reason, champion)
        return decision, record | {"checks": checks} | details

    def _load(self, champion: str | None) -> ScoredModel | None:
        if champion is None:
            return None
        folder = self.registry.fetch(self.model_name, champion)
        name = f"champion {self.model_name} version {champion}"
        try:
            return ScoredModel.load(name, folder, self.evaluation_set, self.run)
        except InputError as error:
            raise InputError(
                f"{error}; the champion was not changed. `damcrack rollback` returns to the champion before"
            ) from error


def _record(
    model_name: str, version: str | None, decision: str, reason: str, champion: str | None
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model_name": model_name,
        "version": version,
        "decision": decision,
        "reason": reason,
        "champion_before": champion,
    }


def carry_out(registry: VersionStore, record: Record) -> None:
    """Write the record first, then move the alias if it says so."""
    registry.write_record(record["model_name"], record)
    if record["decision"] in (PROMOTED, ROLLED_BACK):
        registry.set_alias(record["model_name"], CHAMPION, record["version"])


def roll_back(model_name: str, reason: str, to: str | None, registry: VersionStore) -> dict[str, Any]:
    """Make the champion before the present one champion again, or version `to`, once its files are checked.

    The gate does not promote the replaced version again, whatever its scores are.

    Raises:
        InputError: no reason, no version to go back to, or its files are missing or changed; the champion stays then.
    """
    if not reason.strip():
        raise InputError("--reason is empty; say why the champion is replaced, the history shows it")
    champion = registry.aliased(model_name, CHAMPION)
    version = to or champion_before(history(registry.records(model_name), champion), champion)
    if version is None:
        raise InputError(
            f"{model_name} has no earlier champion to go back to; name a version with --to, or promote one"
        )
    if version == champion:
        raise InputError(f"version {version} of {model_name} is the champion already; nothing was changed")
    OnnxDetector.load(registry.fetch(model_name, version))
    record = _record(model_name, version, ROLLED_BACK, reason.strip(), champion)
    carry_out(registry, record)
    return record
