"""Runs and schedules of Kubeflow in the words of dvc.yaml: stages in place of Argo's nodes."""

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
PERIODS = 3  # a schedule may be late by a run in flight
LONGEST_REASON = 200
STATES = {
    "Succeeded": "done",
    "Running": "running",
    "Pending": "pending",
    "Failed": "failed",
    "Error": "failed",
}
TRY = r"(\(\d+\))?(\.executor)?(\(\d+\))?$"  # what follows a task's path in the name of a try, or of its pod


class Stage(NamedTuple):
    """`state` is done, running, pending or failed; `reason` what Argo says of a pod that waits or failed."""

    name: str
    state: str
    reason: str


def nodes_of(workflow: str) -> list[dict[str, Any]]:
    """Argo's record of a run; above 1 MB Argo compresses it."""
    status = json.loads(workflow or "{}").get("status") or {}
    if packed := status.get("compressedNodes"):
        return list(json.loads(gzip.decompress(base64.b64decode(packed))).values())
    return list((status.get("nodes") or {}).values())


def stages_of(spec: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]]) -> list[Stage]:
    """Each stage that has begun, or whose driver waits or failed; of a loop's stage, each round.

    A node's name is the path to it, with the number of the try: `RUN(0).root(0).run-stage-7(0).executor(1)`; before it
    comes `run-stage-7-driver`, which prepares the stage's pod.
    """
    names, tasks, pods, reasons = _stage_names(spec), dict[str, str](), dict[str, str](), dict[str, str]()
    for node in sorted(nodes, key=lambda node: (node.get("startedAt") or "", node["type"] == "Retry")):
        path, state = re.sub(TRY, "", node["name"], count=1), STATES.get(node["phase"], "")
        if node["name"] == path:
            tasks[path] = state
        if node["type"] == "Pod":
            pods[path] = state
        reasons[path] = node.get("message") or reasons.get(path, "")
    begun = list[Stage]()
    for path, state in tasks.items():
        task, pod = path.rpartition(".")[2], pods.get(path)
        state = "pending" if (state, pod) == ("running", "pending") else state
        stage = names.get(task.removesuffix("-driver"))
        if stage and (task in names or state in ("pending", "failed")):
            begun.append(Stage(stage, state, "" if pod in ("done", "running") else reasons[path]))
    return begun


def _stage_names(spec: Mapping[str, Any]) -> dict[str, str]:
    """Task in the compiled spec, nested pipelines included, to the name that it shows; groups are left out."""
    spec = spec.get("pipeline_spec", spec)
    components = spec.get("components", {})
    dags = [one["dag"] for one in (spec.get("root", {}), *components.values()) if "dag" in one]
    return {
        name: task.get("taskInfo", {}).get("name", name)
        for dag in dags
        for name, task in dag["tasks"].items()
        if "executorLabel" in components.get(task["componentRef"]["name"], {})
    }


def in_words(stages: Iterable[Stage]) -> str:
    """What a run that is not through does: `7 done; running: tile; failed: export (main: Error (exit code 137))`."""
    shown: dict[str, list[str]] = {"done": [], "running": [], "pending": [], "failed": []}
    for name, state, reason in stages:
        if state:
            shown[state].append(f"{name} ({' '.join(reason.split())[:LONGEST_REASON]})" if reason else name)
    num_done = len(shown.pop("done"))
    parts = [f"{state}: {', '.join(sorted(set(found)))}" for state, found in shown.items() if found]
    return "; ".join([f"{num_done} done", *parts])


def cron_of(schedule: Any) -> str:
    """Schedules that others made in the experiment may count seconds instead."""
    cron = schedule.trigger and schedule.trigger.cron_schedule
    return str(cron.cron) if cron else "no cron line"


def lateness(client: Any, schedule: Any) -> str:
    """A remark on a schedule that has let pass `PERIODS` of its times, and on the run that it waits for."""
    from croniter import CroniterError, croniter

    ours = {"operation": "EQUALS", "key": "recurring_run_id", "stringValue": schedule.recurring_run_id}
    runs = client.list_runs(
        page_size=1, sort_by="created_at desc", filter=json.dumps({"predicates": [ours]}),
        experiment_id=schedule.experiment_id,
    ).runs  # fmt: skip
    last, cron = runs[0].created_at if runs else schedule.created_at, cron_of(schedule)
    if schedule.mode != "ENABLE" or not last or len(cron.split()) != 6:
        return ""
    try:
        times = croniter(cron.replace("?", "*"), last, second_at_beginning=True)
        due = [times.get_next(datetime) for _ in range(PERIODS)][-1]
    except CroniterError:
        return ""
    if due >= datetime.now(UTC):
        return ""
    in_flight = runs and runs[0].state not in ENDED  # its finished_at says 1970 until then
    waits = f", waits for its run; to stop that: damcrack pipeline stop {runs[0].run_id}" if in_flight else ""
    return f"  has not run since {last:%Y-%m-%d %H:%M}{waits}"
