"""Carries journals to an MLflow store: live beside a running stage, or later.

The live sender is a process of its own (`python -m damcrack.tracking.sender JOURNAL`): importing MLflow
costs four to six seconds, and neither that nor a server that hangs may hold up the training.
"""

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from damcrack.tracking.graph_run import GraphRun
from damcrack.tracking.journal import Event, Journal, Receipt, locked, waiting_journals
from damcrack.tracking.store import (
    QUICK_FAILURE,
    QUIET,
    Store,
    experiment_name,
    one_line,
    sending_errors,
    set_defaults,
    shown_uri,
    tracking_uri,
)

__all__ = [
    "QUICK_FAILURE",
    "QUIET",
    "LiveSender",
    "Sender",
    "Sent",
    "Store",
    "experiment_name",
    "one_line",
    "send_later",
    "sending_errors",
    "set_defaults",
    "shown_uri",
    "tracking_uri",
]

FIRST_PAUSE_S = 15.0
LONGEST_PAUSE_S = 600.0
# MLflow's limit on a data set's digest, in characters.
MAX_DIGEST = 36


@dataclass(frozen=True)
class Sender:
    """Replays journals into one store; whatever is sent twice arrives once."""

    store: Store

    def send(self, journal: Journal) -> bool:
        """Send what the store has not acknowledged; once the end has arrived, delete it and return True.

        MLflow ignores a metric with known key, step, time and value, and parameters, tags, inputs and
        artifacts that it already holds, so repeating the event before a crash is harmless.

        Raises:
            MlflowException, OSError: the store cannot be reached or refuses; the journal stays.
        """
        receipt = journal.receipt(self.store.key)
        events = journal.events()
        graph = self._graph(events[: receipt.num_sent])
        for number, event in enumerate(events[receipt.num_sent :], receipt.num_sent + 1):
            graph = self._graph([event]) or graph
            run_id = receipt.run_id or self._run_of(journal, events[0], graph)
            self._deliver(journal, run_id, event, graph)
            receipt = Receipt(self.store.key, run_id, number)
            journal.acknowledge(receipt)
        whole = bool(events) and events[-1]["event"] == "end"
        if whole:
            journal.put_away()
        return whole

    def _graph(self, events: Sequence[Event]) -> GraphRun | None:
        """The run of the graph that the stage was last started by."""
        openings = [event for event in events if event["event"] in ("start", "resume") and event.get("graph")]
        if not openings:
            return None
        graph = openings[-1]["graph"]
        return GraphRun(self.store, openings[-1], graph["name"], graph["params"])

    def _run_of(self, journal: Journal, start: Event, graph: GraphRun | None) -> str:
        experiment_id = self.store.experiment_id(start["experiment"])
        client = self.store.client
        same = f"tags.`damcrack.journal` = '{journal.key}'"
        known = client.search_runs([experiment_id], same, max_results=1)
        if known:
            return str(known[0].info.run_id)
        tags = {**start["tags"], **(graph.child_tags() if graph else {}), "damcrack.journal": journal.key}
        run = client.create_run(experiment_id, start["time_ms"], tags=tags, run_name=start["name"])
        return str(run.info.run_id)

    def _deliver(self, journal: Journal, run_id: str, event: Event, graph: GraphRun | None) -> None:
        client = self.store.client
        match event["event"]:
            case "resume":
                client.update_run(run_id, status="RUNNING")
                self._tags(run_id, {**event["tags"], **(graph.child_tags() if graph else {})})
            case "params":
                self.store.params(run_id, event["values"])
            case "metrics":
                self.store.metrics(run_id, event["values"], event["time_ms"], event["step"])
                if graph:
                    graph.metrics(event)
            case "dataset":
                self._dataset(run_id, event)
            case "artifact":
                client.log_artifact(run_id, str(journal.artifact(event["kept"])))
            case "tags":
                self._tags(run_id, event["values"])
            case "restored":
                self.store.client.set_tag(run_id, "restored_from", self._maker_of(event["output"], run_id))
            case "end":
                self._end(run_id, event, graph)

    def _end(self, run_id: str, event: Event, graph: GraphRun | None) -> None:
        self.store.client.set_terminated(run_id, event["status"], event["time_ms"])
        if graph:
            self._tags(run_id, graph.child_tags())
            graph.add_up()

    def _tags(self, run_id: str, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            self.store.client.set_tag(run_id, key, value)

    def _maker_of(self, digest: str, run_id: str) -> str:
        """The oldest run that made an output, or the output's digest where this store knows none."""
        client = self.store.client
        experiments = [one.experiment_id for one in client.search_experiments()]
        made = f"tags.`damcrack.output` = '{digest}'"
        for run in client.search_runs(experiments, made, order_by=["start_time ASC"]):
            if run.info.run_id != run_id and "restored_from" not in run.data.tags:
                return str(run.info.run_id)
        return f"output {digest}"

    def _dataset(self, run_id: str, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=event["name"],
            digest=event["digest"][:MAX_DIGEST],
            source_type="local",
            source=json.dumps({"uri": event["source"]}),
            profile=json.dumps({"digest": event["digest"]}),
        )
        role = InputTag("mlflow.data.context", event["role"])
        self.store.client.log_inputs(run_id, [DatasetInput(dataset, [role])])


@dataclass(frozen=True)
class Sent:
    """How a replay went: journals sent whole, journals still waiting, and why they wait."""

    num_sent: int
    num_waiting: int
    problems: Sequence[str] = ()

    def __str__(self) -> str:
        waiting = (
            f", {self.num_waiting} still waiting ({'; '.join(self.problems)})" if self.num_waiting else ""
        )
        return f"runs sent to {shown_uri(tracking_uri())}: {self.num_sent}{waiting}"


def send_later() -> Sent:
    """Replay all waiting journals of finished or dead runs, oldest first; runs in progress are left alone."""
    if not any(_is_free(journal) for journal in waiting_journals()):
        return Sent(0, 0)
    set_defaults(QUIET | QUICK_FAILURE)
    sender = Sender(Store(tracking_uri()))
    problems: dict[str, None] = {}
    num_sent = num_waiting = 0
    for journal in waiting_journals():
        problem = _send_if_free(sender, journal)
        num_sent += problem == ""
        num_waiting += bool(problem)
        if problem:
            problems[problem] = None
    return Sent(num_sent, num_waiting, list(problems))


def _is_free(journal: Journal) -> bool:
    with locked(journal.path) as mine:
        return mine


def _send_if_free(sender: Sender, journal: Journal) -> str | None:
    """Return "" when sent, the reason when not, None when the journal's run is still in progress."""
    with locked(journal.path) as mine:
        if not mine:
            return None
        journal.close_if_cut_off()
        if not journal.events():  # its process was killed before it could say anything
            journal.delete()
            return None
        try:
            sender.send(journal)
        except sending_errors() as error:
            return one_line(error)
    return ""


class LiveSender:
    """Sends a journal while its stage runs; after each failure it waits longer before it tries again."""

    def __init__(self, journal: Journal, sender: Sender) -> None:
        self._journal = journal
        self._sender = sender
        self._pause_s = 0.0
        self._next_try_s = 0.0
        self._whole = False

    def follow(self, wakes: Iterable[str]) -> bool:
        """Send at each wake and once more when they end, which also means that the stage is over.

        Returns whether everything has arrived.
        """
        for _ in wakes:
            if time.monotonic() >= self._next_try_s:
                self._try()
        if not self._whole:
            self._journal.close_if_cut_off()
            self._try()
        return self._whole

    def _try(self) -> None:
        if self._whole:
            return
        try:
            self._whole = self._sender.send(self._journal)
        except sending_errors() as error:
            self._failed(error)
            return
        if self._pause_s:
            print("MLflow answers again", flush=True)
            self._pause_s = 0.0

    def _failed(self, error: Exception) -> None:
        if not self._pause_s:
            print(
                f"MLflow at {shown_uri(self._sender.store.uri)} does not take the record of this run "
                f"({one_line(error)}): the work goes on; later, `damcrack track send` sends it",
                flush=True,
            )
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._next_try_s = time.monotonic() + self._pause_s


def main(arguments: Sequence[str]) -> int:
    """Follow the journal named by the only argument; a line on standard input means new events."""
    set_defaults(QUIET | QUICK_FAILURE)
    live = LiveSender(Journal(Path(arguments[0])), Sender(Store(tracking_uri())))
    return 0 if live.follow(sys.stdin) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
