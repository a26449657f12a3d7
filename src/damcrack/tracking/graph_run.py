"""The run of a whole graph: parent of its stages' runs, with all values of params.yaml and the final scores.

It holds nothing that its stages' runs do not say, so that whoever sends last, from whatever machine, leaves the
same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from damcrack.tracking.journal import Event
from damcrack.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"
GRAPH = "damcrack.graph_run"
# The stage whose metrics sum the graph up.
SUMMING_UP = "evaluate"
CODE_TAGS = ("mlflow.user", "mlflow.source.git.commit", "damcrack.git_dirty", "damcrack.code_version")


@dataclass(frozen=True)
class GraphRun:
    """A graph's run in a store, made by the first stage that needs it; `opening` is that stage's first event."""

    store: Store
    opening: Event
    name: str
    params: Mapping[str, str]

    def child_tags(self) -> dict[str, str]:
        """Tags of a run that belongs to the graph."""
        return {PARENT: self._run_id, GRAPH: self.name}

    def metrics(self, event: Event) -> None:
        """Show the scores of the graph's models at the graph's run too."""
        if self.opening["tags"].get("damcrack.stage") == SUMMING_UP:
            values = {key: value for key, value in event["values"].items() if not key.startswith("system/")}
            self.store.metrics(self._run_id, values, event["time_ms"], event["step"])

    def add_up(self) -> None:
        """Give the graph's run the state and the end that its stages' runs have together, the last of each stage."""
        client, run_id = self.store.client, self._run_id
        children = client.search_runs(
            [self._experiment_id], f"tags.`{PARENT}` = '{run_id}'", order_by=["attributes.start_time ASC"]
        )
        statuses = set({child.info.run_name: child.info.status for child in children}.values())
        status = next((bad for bad in ("RUNNING", "FAILED", "KILLED") if bad in statuses), "FINISHED")
        ended = max((child.info.end_time or 0 for child in children), default=0)
        if status == "RUNNING":
            client.update_run(run_id, status=status)
        else:
            client.set_terminated(run_id, status, ended)

    @cached_property
    def _experiment_id(self) -> str:
        return self.store.experiment_id(self.opening["experiment"])

    @cached_property
    def _run_id(self) -> str:
        found = self._found() or self._create()
        keep = min(found, key=lambda run: str(run.info.run_id))
        for double in found:  # two machines began the graph at the same moment
            if double is not keep:
                self.store.client.delete_run(double.info.run_id)
        run_id = str(keep.info.run_id)
        if not keep.data.params:
            self.store.params(run_id, self.params)
        return run_id

    def _found(self) -> Sequence["Run"]:
        same = f"tags.`{GRAPH}` = '{self.name}' and tags.`damcrack.stage` = 'graph'"
        found: Sequence[Run] = self.store.client.search_runs([self._experiment_id], same)
        return found

    def _create(self) -> Sequence["Run"]:
        tags = {key: self.opening["tags"][key] for key in CODE_TAGS if key in self.opening["tags"]}
        tags |= {GRAPH: self.name, "damcrack.stage": "graph", "mlflow.source.name": "dvc repro"}
        self.store.client.create_run(
            self._experiment_id, self.opening["time_ms"], tags=tags, run_name=f"graph {self.name}"
        )
        return self._found()
