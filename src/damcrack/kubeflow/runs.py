"""Runs and schedules of Kubeflow in the words of dvc.yaml: stages in place of Argo's nodes."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
PERIODS = 3  # a schedule may be late by a run in flight


def stages_of(run: Any) -> dict[str, str]:
    """State of each stage that has begun, as Kubeflow's API calls it; `run` is what its client returns.

    The API's tasks are Argo's nodes: the run itself, root, a driver for each task, the task by its name in the spec
    (`run-stage-7`), and below that the executor and its tries, which do not say whose they are.
    """
    names, states = _stage_names(run.pipeline_spec or {}), dict[str, str]()
    for task in _tasks(run):
        node = task.display_name or ""
        stage, is_driver = names.get(node.removesuffix("-driver")), node.endswith("-driver")
        # A stage whose driver failed has a node too, that never began.
        if stage and states.get(stage) != "FAILED" and (task.state == "FAILED" or not is_driver):
            states[stage] = str(task.state)
    return states


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


def in_words(run: Any) -> str:
    """What a run that is not through does: `7 done; running: tile; failed: distill@dynamic`.

    To Kubeflow a stage runs from the time on when its pod was asked for. A pod that waits, for a node, quota or an
    image, is a pending try of a driver or an executor.
    """
    states = stages_of(run)
    parts = [f"{list(states.values()).count('SUCCEEDED')} done"]
    for wanted in ("RUNNING", "PENDING", "FAILED"):
        stages = sorted(stage for stage, state in states.items() if state == wanted)
        parts += [f"{wanted.lower()}: {', '.join(stages)}"] if stages else []
    waiting = sum(task.state == "PENDING" and _is_pod(task) for task in _tasks(run))
    if waiting:
        parts.append(
            f"pods not started: {waiting}; why: kubectl describe pods -A -l pipeline/runid={run.run_id}"
        )
    return "; ".join(parts)


def _tasks(run: Any) -> Sequence[Any]:
    return (run.run_details and run.run_details.task_details) or ()


def _is_pod(task: Any) -> bool:
    return re.fullmatch(r"(executor|.*-driver)\(\d+\)", task.display_name or "") is not None


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
