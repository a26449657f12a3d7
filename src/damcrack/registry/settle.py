"""The one gate that every new champion passes, and the way back.

Who is champion is a row of numbered moves, each made once; a move names the one before it that it was decided on. If
another promotion came first, the move fails and the decision is taken anew, against the new champion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from damcrack.files import InputError
from damcrack.inspection.detector import OnnxDetector
from damcrack.registry.contest import Contest, Contestant
from damcrack.registry.frozen import FrozenSet
from damcrack.registry.policy import Policy, Verdict, judge
from damcrack.run import Run

FORMAT = 1
CHAMPION, CHALLENGER = "champion", "challenger"
PROMOTED, BROUGHT_BACK, WITHDRAWN, BY_HAND = "promoted", "brought back", "withdrawn", "moved by hand"


@dataclass(frozen=True)
class Reign:
    """Which version is champion (None: none yet) and the number of the move that made it so (0: no move yet)."""

    version: str | None
    move: int


@dataclass(frozen=True)
class Move:
    """One change of champion: `how` is promoted, brought back or moved by hand; `record` says why, by whom and when."""

    number: int
    version: str
    before: str | None
    how: str
    reason: str
    record: Mapping[str, Any]


class Registry(Protocol):
    """Where versions are kept, and which of them is champion."""

    def reign(self, model_name: str, must_exist: bool = True) -> Reign:
        """Say who is champion, after finishing a move that broke off; InputError if it was deleted."""

    def moves(self, model_name: str) -> Sequence[Move]:
        """All changes of champion, oldest first."""

    def succeed(
        self, model_name: str, reign: Reign, version: str, how: str, record: Mapping[str, Any]
    ) -> bool:
        """Make a version champion if `reign` is still the last word; say whether it was."""

    def fetch(self, model_name: str, version: str) -> Path:
        """Folder with the files of a version, each checked against the hash that the registry holds."""

    def note(self, model_name: str, version: str, record: Mapping[str, Any]) -> None:
        """Keep a decision with its version."""

    def point(self, model_name: str, alias: str, version: str) -> None:
        """Make an alias other than the champion's point to a version."""


@dataclass(frozen=True)
class Gate:
    """Decides over versions of one model on one evaluation set by one policy."""

    model_name: str
    policy: Policy
    frozen: FrozenSet
    registry: Registry
    run: Run

    def contest(self, name: str, folder: Path, photos: Path | None = None) -> Contest:
        """A contest of the challenger in `folder`; see `Contestant.load` for what is refused."""
        challenger = Contestant.load(name, folder, self.frozen, photos)
        return Contest(challenger, self.frozen, self.policy, self.run)

    def champion(self, reign: Reign) -> Contestant | None:
        """Load the champion from the registry."""
        if reign.version is None:
            return None
        folder = self.registry.fetch(self.model_name, reign.version)
        name = f"champion {self.model_name} version {reign.version}"
        try:
            return Contestant.load(name, folder, self.frozen)
        except InputError as error:
            raise InputError(
                f"{error}; nothing was moved. `damcrack rollback` returns to the champion before"
            ) from error

    def settle(self, version: str, contest: Contest) -> tuple[Verdict, dict[str, Any]]:
        """Decide whether `version`, the contest's challenger, becomes champion; keep the record; move the alias."""
        name = self.model_name
        while True:
            reign = self.registry.reign(name)
            if reign.version == version:
                return Verdict("kept", "it is the champion already"), {}
            gone = withdrawn(self.registry.moves(name), version)
            if gone is not None:
                return Verdict("refused", _why_not_again(version, gone)), {}
            evidence, numbers = contest.against(self.champion(reign))
            verdict = judge(evidence, self.policy)
            record = _record(name, version, reign, verdict) | numbers
            if verdict.decision != "promoted":
                self.registry.note(name, version, record)
                return verdict, record
            if self.registry.succeed(name, reign, version, PROMOTED, record):
                return verdict, record
            self.run.say("another promotion came first: deciding anew, against the new champion")


def withdrawn(moves: Sequence[Move], version: str) -> Move | None:
    """The move that went back from a version, if it was not made champion since: evidence alone is not enough then."""
    last = next((move for move in reversed(moves) if version in (move.version, move.before)), None)
    gone = last is not None and last.how == BROUGHT_BACK and last.before == version
    return last if gone else None


def _why_not_again(version: str, gone: Move) -> str:
    return (
        f"version {version} was champion and was withdrawn in move {gone.number} ({gone.reason}); "
        f"`damcrack rollback --to {version} --reason ...` brings it back"
    )


def _record(model_name: str, version: str, reign: Reign, verdict: Verdict) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model_name": model_name,
        "version": version,
        "decision": verdict.decision,
        "reason": verdict.reason,
        "champion_before": reign.version,
        "checks": [
            {
                "name": c.name,
                "found": None if c.found != c.found else c.found,
                "asked": c.asked,
                "passed": c.passed,
            }
            for c in verdict.checks
        ],
    }


def roll_back(model_name: str, reason: str, to: str | None, registry: Registry) -> dict[str, Any]:
    """Make the champion before the present one champion again, or version `to`, once its files are checked.

    The version that goes is withdrawn: the gate does not promote it again, whatever its numbers are.

    Raises:
        InputError: no reason, nothing to go back to, or its files are gone or changed; nothing is moved then.
    """
    if not reason.strip():
        raise InputError("--reason is empty; say why the champion goes, whoever asks later will want to know")
    while True:
        reign = registry.reign(model_name, must_exist=False)
        version = to or previous(registry.moves(model_name))
        if version is None:
            raise InputError(
                f"{model_name} has no earlier champion to go back to; name a version with --to, or promote one"
            )
        if version == reign.version and to is not None:
            raise InputError(f"version {version} of {model_name} is the champion already; nothing was moved")
        OnnxDetector.load(registry.fetch(model_name, version))
        record = {
            "format": FORMAT,
            "model_name": model_name,
            "version": version,
            "decision": BROUGHT_BACK,
            "reason": reason.strip(),
            "champion_before": reign.version,
        }
        if registry.succeed(model_name, reign, version, BROUGHT_BACK, record):
            if reign.version not in (None, version):
                gone = {"version": reign.version, "decision": WITHDRAWN, "champion_now": version}
                registry.note(model_name, str(reign.version), record | gone)
            return record


def previous(moves: Sequence[Move]) -> str | None:
    """The champion before the present one: going back twice goes two champions back, not forth again."""
    line: list[str] = []
    for move in moves:
        if move.how == BROUGHT_BACK and move.version in line:
            while line[-1] != move.version:
                line.pop()
        else:
            line.append(move.version)
    return line[-2] if len(line) > 1 else None
