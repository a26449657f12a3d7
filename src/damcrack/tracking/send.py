"""Sends runs from disk to MLflow: each while it is recorded, or all that are left.

    .damcrack/pending/NAME.jsonl    what one run says, one event a line, "start" first, its status last
    .damcrack/pending/NAME/0/x.png  copies of its artifacts
    .damcrack/pending/NAME.damaged  a run that has arrived but for lines that could not be read

Whoever records or sends a run holds a lock on its file, which the kernel drops when the process dies.
"""

import fcntl
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from damcrack.files import InputError, one_at_a_time
from damcrack.messages import without_passwords
from damcrack.tracking.store import (
    AWAY,
    GRAPH_RUN,
    MAX_DIGEST,
    RESTORED_FROM,
    STAGE,
    STORE_LOCK,
    Store,
    one_line,
    sending_errors,
    tracking_uri,
)

PENDING = Path(".damcrack/pending")
# Tags by which a run that was sent before is found again: the name of a run's file, and of a whole graph's run.
RECORD, GRAPH = "damcrack.record", "damcrack.graph"
EVERY_S = 5.0
LONGEST_PAUSE_S = 600.0
Event = dict[str, Any]
ENDS = ("FINISHED", "FAILED", "KILLED")
MAX_NUMBER = 2**53  # of milliseconds and of steps
FIELDS: dict[str, dict[str, type]] = {
    "start": {
        "name": str,
        "experiment": str,
        "tags": dict,
        "params": dict,
        "graph": str,
        "graph_params": dict,
    },
    "metrics": {"values": dict, "step": int},
    "dataset": {"name": str, "digest": str, "source": str, "role": str},
    "artifact": {"file": str},
    "tags": {"values": dict},
    "restored": {"output": str},
    **{end: {} for end in ENDS},
}


def read_events(path: Path) -> tuple[list[Event], list[int]]:
    """The events of a run's file, and the numbers of the lines that are torn or not ours."""
    events, unreadable = [], []
    *lines, torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        event = _event(line, path.with_suffix(""))
        if event is None:
            unreadable.append(number)
        else:
            events.append(event)
    return events, unreadable + ([len(lines) + 1] if torn else [])


def _event(line: bytes, folder: Path) -> Event | None:
    """The event of a line, None if it is none of ours; only a copy in the run's own folder may be uploaded."""
    try:
        event: Event = json.loads(line)
        json.dumps(event, ensure_ascii=False).encode()  # half a surrogate is no text
        fields = {"time_ms": int, **FIELDS[event["event"]]}
        ours = all(isinstance(event[name], kind) for name, kind in fields.items())
        ours = ours and all(abs(event[name]) < MAX_NUMBER for name, kind in fields.items() if kind is int)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if ours and event["event"] == "metrics":
        ours = all(isinstance(value, float) for value in event["values"].values())
    if ours and event["event"] == "artifact":
        copy = (folder / event["file"]).resolve()
        ours = copy.is_file() and copy.is_relative_to(folder.resolve())
    return event if ours else None


class PendingRun:
    """One run's file; `send` may be called again after any failure.

    Nothing is doubled: MLflow ignores a metric with known key, step, time and value, and parameters, tags, inputs and
    artifacts that it already holds.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self._path, self._store = path, store
        self.run_id = self._graph_id = self._name = ""
        self._num_sent = 0
        self.unreadable: list[int] = []

    def send(self, over: bool = False) -> None:
        """Send what this object has not sent yet; remove the file once its last event has arrived.

        A run that is `over` without a word has ended as killed when it was last heard of.

        Raises:
            InputError: the file is not one of ours.
            MlflowException, OSError: the store cannot be reached or refuses, or the file cannot be read.
        """
        events, self.unreadable = read_events(self._path)
        if not events or events[0]["event"] != "start":
            raise InputError(f"{self._path} does not begin like a run; it was left unchanged")
        if not self.run_id:
            self._open(events[0])
        self._deliver(events[self._num_sent :])
        self._num_sent, last = len(events), events[-1]
        if over or last["event"] in ENDS:
            status = last["event"] if last["event"] in ENDS else "KILLED"
            # A graph's run has the state of the stage that ended last.
            for run_id in filter(None, (self.run_id, self._graph_id)):
                self._store.client.set_terminated(run_id, status, last["time_ms"])
            self._remove()

    def _remove(self) -> None:
        """Remove what has arrived; a file with lines that did not is set aside with its copies."""
        if self.unreadable:
            self._path.rename(self._path.with_suffix(".damaged"))
        else:
            self._path.unlink()
            shutil.rmtree(self._path.with_suffix(""), ignore_errors=True)

    def _open(self, start: Event) -> None:
        tags = {key: str(value) for key, value in start["tags"].items()} | {RECORD: self._path.stem}
        if start["graph"]:
            ours = {key: value for key, value in tags.items() if key.startswith("mlflow.")}
            ours |= {"mlflow.source.name": "dvc repro", STAGE: "graph", GRAPH: start["graph"]}
            graph = {"name": f"graph {start['graph']}", "params": start["graph_params"], "tags": ours}
            self._graph_id = self._find_or_create({**start, **graph}, GRAPH)
            tags |= {"mlflow.parentRunId": self._graph_id, GRAPH_RUN: start["graph"]}
        self._name, self.run_id = start["name"], self._find_or_create({**start, "tags": tags}, RECORD)

    def _find_or_create(self, start: Event, key: str) -> str:
        """The run whose tag `key` has this value, which no other run has, with its parameters."""
        from mlflow.entities import Param

        client, tags = self._store.client, start["tags"]
        params = [Param(name, str(value)) for name, value in start["params"].items()]
        experiment_id = self._store.experiment_id(start["experiment"])
        with one_at_a_time(STORE_LOCK):
            known = client.search_runs([experiment_id], f"tags.`{key}` = '{tags[key]}'", max_results=1)
            new = (experiment_id, start["time_ms"], tags, start["name"])
            run = known[0] if known else client.create_run(*new)
            if len(run.data.params) < len(params):
                client.log_batch(run.info.run_id, params=params)
        if not run.info.run_id:  # a proxy that answers everything with nothing
            raise InputError("an empty answer came, expected a run; check MLFLOW_TRACKING_URI")
        return str(run.info.run_id)

    def _deliver(self, events: Sequence[Event]) -> None:
        from mlflow.entities import Metric, RunTag

        client, folder = self._store.client, self._path.with_suffix("")
        metrics: list[Metric] = []
        tags: list[RunTag] = []
        for event in events:
            match event:
                case {"event": "metrics", "values": values, "time_ms": time_ms, "step": step}:
                    metrics += [Metric(name, value, time_ms, step) for name, value in values.items()]
                case {"event": "tags", "values": values}:
                    tags += [RunTag(name, str(value)) for name, value in values.items()]
                case {"event": "restored", "output": digest}:
                    maker = self._store.maker_of(digest, self._name) or self._store.maker_of(digest)
                    name = f"output {digest}"  # of a run that this store does not know
                    if maker is not None:
                        name = maker.data.tags.get(RESTORED_FROM, maker.info.run_id)
                    tags.append(RunTag(RESTORED_FROM, name))
                case {"event": "dataset"}:
                    self._log_dataset(event)
        client.log_batch(self.run_id, metrics, tags=tags)
        # Files come last: a server may have trouble with its artifact store alone.
        for event in events:
            if event["event"] == "artifact":
                client.log_artifact(self.run_id, str(folder / event["file"]))

    def _log_dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=event["name"],
            digest=event["digest"][:MAX_DIGEST],
            source_type="local",
            source=json.dumps({"uri": event["source"]}),
            profile=json.dumps({"digest": event["digest"]}),
        )
        role = InputTag("mlflow.data.context", event["role"])
        self._store.client.log_inputs(self.run_id, [DatasetInput(dataset, [role])])


@dataclass(frozen=True)
class Sent:
    """How many runs arrived and how many still wait, and what went wrong."""

    num_sent: int
    num_waiting: int
    problems: Sequence[str] = ()

    def __str__(self) -> str:
        waiting = f", {self.num_waiting} still waiting" if self.num_waiting else ""
        problems = f" ({'; '.join(self.problems)})" if self.problems else ""
        return f"runs sent to {without_passwords(tracking_uri())}: {self.num_sent}{waiting}{problems}"


def pending_runs() -> list[Path]:
    """Files of runs that have not arrived yet, oldest first."""
    return sorted(PENDING.glob("*.jsonl"))


def remove_left_over() -> None:
    """Remove what killed processes left: files of runs that had not begun, and copies for runs that have arrived.

    Call it inside of `one_at_a_time(PENDING)`, which whoever begins a run holds too.
    """
    PENDING.mkdir(parents=True, exist_ok=True)
    for path in pending_runs():
        if path.is_file() and not path.stat().st_size:
            path.unlink()
    for folder in PENDING.glob("*/"):
        ends = (".jsonl", ".damaged")
        if folder.suffix not in ends and not any(folder.with_suffix(end).exists() for end in ends):
            shutil.rmtree(folder, ignore_errors=True)


def send_later() -> Sent:
    """Send all pending runs that nobody records or sends, oldest first; stop when the store does not answer."""
    with one_at_a_time(PENDING):
        remove_left_over()
        paths = pending_runs()
    if not paths:
        return Sent(0, 0)  # without importing MLflow
    store, problems = Store(tracking_uri()), dict[str, None]()
    num_sent = num_waiting = 0
    for number, path in enumerate(paths):
        if AWAY in problems:
            num_waiting += len(paths) - number
            break
        run = PendingRun(path, store)
        try:
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                run.send(over=True)
        except BlockingIOError:
            continue
        except sending_errors() as error:
            if path.exists():  # else somebody else has just sent it
                num_waiting += 1
                problems[one_line(error)] = None
        else:
            num_sent += 1
            problems |= {f"{path.stem}: line {line} could not be read": None for line in run.unreadable}
    return Sent(num_sent, num_waiting, list(problems))


def send_live(path: Path, over: threading.Event, say: Callable[[str], None]) -> None:
    """Send a run while it is recorded: what is new again and again, after failures less often, and once when `over`."""
    store = Store(tracking_uri())
    run, pause_s, said = PendingRun(path, store), EVERY_S, False
    last = monitored = False
    while not last:
        last = over.wait(pause_s)
        try:
            run.send()
            pause_s, said = EVERY_S, False
            if not monitored and not last:
                monitored = True
                _sample_machine(run.run_id, store.uri)
        except sending_errors() as error:
            if not said:
                say(
                    f"MLflow at {without_passwords(store.uri)} does not take the record of this run "
                    f"({one_line(error)}): the stage continues; `damcrack track send` sends it later"
                )
            pause_s, said = min(2 * pause_s, LONGEST_PAUSE_S), True


def _sample_machine(run_id: str, uri: str) -> None:
    """Let MLflow sample the machine, if asked to; its samples are not on disk first, and stop with the run."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get() and find_spec("psutil"):  # which MLflow does not install
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        SystemMetricsMonitor(run_id, tracking_uri=uri).start()
