"""A small real HTTP service that speaks the calls of Kubeflow Pipelines' v2beta1 API that we use, with its JSON.

No Kubeflow backend runs in a test. Requests and answers have the shapes of kfp_server_api's models; a call that is
not here answers 404, so that a client that asks for something else fails. Deleting a schedule kills its runs, as the
real one does.
"""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

API = "/apis/v2beta1"


class Kubeflow:
    """What the service holds; `calls` are method and path of all requests that changed something."""

    def __init__(self) -> None:
        self.experiments: list[dict[str, Any]] = []
        self.schedules: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.refuse: int | None = None

    def answer(  # noqa: C901 - one branch for each call
        self, method: str, path: str, query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        if self.refuse:
            return self.refuse, {"message": "no rights here"}
        if method != "GET":
            self.calls.append(f"{method} {path}")
        match method, path.removeprefix(API).strip("/").split("/"):
            case "GET", ["healthz"]:
                return 200, {"multi_user": False}
            case "GET", ["experiments"]:
                return 200, {"experiments": self.experiments}
            case "POST", ["experiments"]:
                return 200, self._add(self.experiments, "experiment_id", body)
            case "GET", ["recurringruns"]:
                return 200, self._page(self.schedules, "recurringRuns", query)
            case "POST", ["recurringruns"]:
                return 200, self._add(self.schedules, "recurring_run_id", body)
            case "POST", ["recurringruns", named]:
                schedule, verb = named.split(":")
                self._schedule(schedule)["mode"] = {"enable": "ENABLE", "disable": "DISABLE"}[verb]
                return 200, {}
            case "DELETE", ["recurringruns", schedule]:
                self.schedules.remove(self._schedule(schedule))
                for run in self.runs:
                    if run.get("recurring_run_id") == schedule and run["state"] == "RUNNING":
                        run["state"] = "CANCELED"
                return 200, {}
            case "GET", ["runs"]:
                return 200, self._page(self.runs, "runs", query)
            case "POST", ["runs"]:
                return 200, self._add(self.runs, "run_id", {**body, "state": "PENDING"})
        return 404, {"message": f"{method} {path}"}

    def _add(self, where: list[dict[str, Any]], key: str, body: dict[str, Any]) -> dict[str, Any]:
        where.append({**body, key: str(uuid.uuid4()), "created_at": "2026-01-01T00:00:00Z"})
        return where[-1]

    def _page(self, rows: list[dict[str, Any]], name: str, query: dict[str, str]) -> dict[str, Any]:
        """Pages of at most two, so that a client that reads one page alone is found out."""
        first = int(query.get("page_token") or 0)
        rest = {"next_page_token": str(first + 2)} if first + 2 < len(rows) else {}
        return {name: rows[first : first + 2], **rest}

    def _schedule(self, named: str) -> dict[str, Any]:
        return next(one for one in self.schedules if one["recurring_run_id"] == named)


@contextmanager
def serving(kubeflow: Kubeflow) -> Iterator[str]:
    """The address of a service that answers for `kubeflow`."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            url = urlparse(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, answer = kubeflow.answer(self.command, url.path, query, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _do

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
