"""The moves of the champion, in order and each once, kept where MLflow lets nothing be overwritten.

An MLflow alias is set by whoever comes last, and its past is not kept. A *parameter* of a run is written once: the
database refuses a second value, whoever is first. So each registered model has one run whose parameters
`move.00001`, `move.00002`, ... are the moves, and the alias follows them. Who has decided on move 4 can only write
move 5; if somebody else has, it learns so and decides anew. `settled.00005` says that the alias has followed.
"""

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from damcrack.registry.settle import Move

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

TAG = "damcrack.moves_run"
MOVE, SETTLED = "move.", "settled."
LONGEST_VALUE = 6000  # MLflow's limit for parameters


class Ledger:
    """The moves of one registered model, in the run that the model's tag names."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client = client
        self._run_id = run_id

    def moves(self) -> tuple[list[Move], bool]:
        """All moves, oldest first, and whether the alias has followed the last one."""
        params = self._client.get_run(self._run_id).data.params
        moves = [_read(key, text) for key, text in sorted(params.items()) if key.startswith(MOVE)]
        return moves, not moves or f"{SETTLED}{moves[-1].number:05d}" in params

    def append(self, move: Move) -> bool:
        """Write a move under its number; False if somebody else's has that number.

        Raises:
            MlflowException: the store is away, and whether it took the move is not known.
        """
        from mlflow.exceptions import MlflowException

        claim = uuid.uuid4().hex  # without it the same move twice would both seem to be first
        key, text = f"{MOVE}{move.number:05d}", _written(move, claim)
        try:
            self._client.log_param(self._run_id, key, text)
        except MlflowException:
            known = self._client.get_run(self._run_id).data.params.get(key)
            if known is None:
                raise
            return bool(json.loads(known)["claim"] == claim)
        return True

    def settled(self, move: Move) -> None:
        """Remember that the alias has followed."""
        self._client.log_param(self._run_id, f"{SETTLED}{move.number:05d}", "yes")


def _written(move: Move, claim: str) -> str:
    content: dict[str, Any] = {
        "claim": claim,
        "version": move.version,
        "before": move.before,
        "how": move.how,
        "reason": move.reason[:1000],
        "record": move.record,
    }
    if not fits(move):  # the whole record is with the version; here its head is enough
        content["record"] = {
            name: move.record[name] for name in ("at", "by", "decision") if name in move.record
        }
    return json.dumps(content, separators=(",", ":"))


def fits(move: Move) -> bool:
    """Whether the ledger takes a move with its whole record."""
    return len(json.dumps(move.record)) + len(move.reason) < LONGEST_VALUE - 300


def _read(key: str, text: str) -> Move:
    content: Mapping[str, Any] = json.loads(text)
    return Move(
        number=int(key.removeprefix(MOVE)),
        version=content["version"],
        before=content["before"],
        how=content["how"],
        reason=content["reason"],
        record=content["record"],
    )


def find_or_make(client: "MlflowClient", model_name: str, experiment_id: str, description: str) -> Ledger:
    """The ledger of a registered model, which is made if it does not exist: model and ledger appear together."""
    from mlflow.exceptions import MlflowException

    known = find(client, model_name)
    if known is not None:
        return known
    run_id = _new_run(client, model_name, experiment_id)
    try:
        client.create_registered_model(model_name, tags={TAG: run_id}, description=description)
    except MlflowException:  # it exists: made by hand, or by another process a moment ago
        if find(client, model_name) is None:
            client.set_registered_model_tag(model_name, TAG, run_id)
    found = find(client, model_name)
    assert found is not None
    if found._run_id != run_id:
        client.delete_run(run_id)
    return found


def find(client: "MlflowClient", model_name: str) -> Ledger | None:
    """The ledger of a registered model, None if there is no such model or nothing was ever decided about it."""
    model = registered_model(client, model_name)
    run_id = model.tags.get(TAG) if model else None
    return Ledger(client, run_id) if run_id else None


def registered_model(client: "MlflowClient", model_name: str) -> "RegisteredModel | None":
    """A registered model with its tags and aliases, None if there is none of this name."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(model_name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _new_run(client: "MlflowClient", model_name: str, experiment_id: str) -> str:
    name = f"champions of {model_name}"
    run = client.create_run(experiment_id, tags={"damcrack.stage": "champions"}, run_name=name)
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)
