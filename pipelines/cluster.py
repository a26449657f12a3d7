"""Kubeflow Pipelines' service: submit a compiled pipeline, put it on a schedule, see how runs are.

Its errors become one sentence; everything that can be checked is checked before the first call.
"""

import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from damcrack.files import InputError

PAUSE_S = 5.0
# States of a run that is over; everything else may still be working.
OVER = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
PAGE = 100


@dataclass(frozen=True)
class RunState:
    """One run as `damcrack pipeline status` shows it; `failed` names its failed tasks."""

    name: str
    run_id: str
    state: str
    created: str
    failed: Sequence[str] = ()


class Cluster:
    """One Kubeflow Pipelines service and our experiment in it."""

    def __init__(self, host: str | None, experiment: str, namespace: str | None = None) -> None:
        self._host = host or os.environ.get("KF_PIPELINES_ENDPOINT") or ""
        if not self._host:
            raise InputError("no Kubeflow Pipelines service: give --host or set KF_PIPELINES_ENDPOINT")
        self._experiment = experiment
        self._namespace = namespace
        with self._answering(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            from kfp.client import Client

            token = os.environ.get("DAMCRACK_KFP_TOKEN")
            self._client = Client(host=self._host, existing_token=token, namespace=namespace or "kubeflow")

    def submit(self, package: Path, name: str, parameters: Mapping[str, Any]) -> str:
        """Start one run; return its id."""
        with self._answering():
            run = self._client.run_pipeline(
                experiment_id=self._experiment_id(),
                job_name=name,
                pipeline_package_path=str(package),
                params=dict(parameters),
            )
            return str(run.run_id)

    def schedule(self, package: Path, name: str, cron: str, most_at_once: int, wait_s: float) -> str:
        """Put the pipeline on a schedule in place of what had this name; return the id of the schedule.

        There is no call that changes a schedule, and deleting one kills its run in flight. So the new one is made
        switched off, the old ones are switched off, their runs are waited for, then they are deleted and the new one
        is switched on. Cut off anywhere, the next call goes on from there.

        Raises:
            InputError: a run of the old one goes on for longer than `wait_s`; everything is then as it was.
        """
        with self._answering():
            old = self._schedules(name)
            new = self._create_schedule(package, name, cron, most_at_once)
            were_on = [one for one in old if one.mode == "ENABLE"]
            for one in were_on:
                self._client.disable_recurring_run(one.recurring_run_id)
            running = self._wait_for_runs({one.recurring_run_id for one in old}, wait_s)
            if running:
                self._client.delete_recurring_run(new)
                for one in were_on:
                    self._client.enable_recurring_run(one.recurring_run_id)
                raise InputError(
                    f"run {running[0]} of the old schedule {name!r} still goes on after {wait_s:.0f} s, and replacing "
                    "the schedule would kill it; nothing was changed: try again later, or with a longer --wait"
                )
            for one in old:
                self._client.delete_recurring_run(one.recurring_run_id)
            self._client.enable_recurring_run(new)
            return new

    def status(self, limit: int) -> list[RunState]:
        """The latest runs, newest first."""
        with self._answering():
            runs = self._client.list_runs(
                page_size=limit,
                sort_by="created_at desc",
                experiment_id=self._experiment_id(),
                namespace=self._namespace,
            )
            return [_state(run) for run in runs.runs or []]

    def schedules(self) -> list[tuple[str, str, str]]:
        """Name, cron line and mode of each schedule of our experiment."""
        with self._answering():
            return [(one.display_name, one.trigger.cron_schedule.cron, str(one.mode)) for one in self._all()]

    def _create_schedule(self, package: Path, name: str, cron: str, most_at_once: int) -> str:
        made = self._client.create_recurring_run(
            experiment_id=self._experiment_id(),
            job_name=name,
            cron_expression=cron,
            max_concurrency=most_at_once,
            no_catchup=True,
            enabled=False,
            pipeline_package_path=str(package),
        )
        return str(made.recurring_run_id)

    def _schedules(self, name: str) -> list[Any]:
        return [one for one in self._all() if one.display_name == name]

    def _all(self) -> list[Any]:
        experiment_id = self._experiment_id()
        found: list[Any] = []
        token = ""
        while True:
            page = self._client.list_recurring_runs(
                page_token=token, page_size=PAGE, experiment_id=experiment_id, namespace=self._namespace
            )
            found += page.recurring_runs or []
            token = page.next_page_token
            if not token:
                return found

    def _wait_for_runs(self, schedules: set[str], wait_s: float) -> list[str]:
        """Ids of the schedules' runs that are not over after at most `wait_s` seconds."""
        until = time.monotonic() + wait_s
        while True:
            running = [run.run_id for run in self._runs() if run.recurring_run_id in schedules]
            if not running or time.monotonic() >= until:
                return running
            time.sleep(min(PAUSE_S, max(0.0, until - time.monotonic())))

    def _runs(self) -> Iterator[Any]:
        """Runs of our experiment that are not over."""
        experiment_id, token = self._experiment_id(), ""
        while True:
            page = self._client.list_runs(
                page_token=token,
                page_size=PAGE,
                sort_by="created_at desc",
                experiment_id=experiment_id,
                namespace=self._namespace,
            )
            yield from (run for run in page.runs or [] if str(run.state) not in OVER)
            token = page.next_page_token
            if not token:
                return

    def _experiment_id(self) -> str:
        made = self._client.create_experiment(
            self._experiment, namespace=self._namespace
        )  # or the one there is
        return str(made.experiment_id)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn the client's errors into one sentence."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise InputError(
                f"Kubeflow Pipelines at {self._host} answered {error.status} {error.reason}: {_said(error)}"
            ) from None
        except (HTTPError, OSError) as error:
            raise InputError(
                f"Kubeflow Pipelines at {self._host} cannot be reached ({type(error).__name__}); "
                "check --host and the network"
            ) from None


def _said(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])[:300]
    except (TypeError, ValueError, KeyError):
        return "check the token in DAMCRACK_KFP_TOKEN and your rights"


def _state(run: Any) -> RunState:
    details = run.run_details.task_details if run.run_details and run.run_details.task_details else []
    failed = sorted({task.display_name for task in details if str(task.state) == "FAILED"})
    return RunState(run.display_name, run.run_id, str(run.state), str(run.created_at), failed)
