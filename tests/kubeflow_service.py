"""A small HTTP service in the place of Kubeflow Pipelines' v2beta1 API: what is posted is in its lists.

Only the calls that we use are here; every other one answers 404, so that a client that asks for something else fails.
"""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse


class Kubeflow:
    """The posted bodies by kind, tokens of all requests; with `refuse` it answers that status."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {"experiments": [], "recurringruns": [], "runs": []}
        self.tokens: set[str | None] = set()
        self.refuse: int | None = None

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if self.refuse and not path.endswith("/healthz"):
            return self.refuse, {"message": "no rights here"}
        match method, path.removeprefix("/apis/v2beta1/").split("/"):
            case "GET", ["healthz"]:
                return 200, {"multi_user": False}
            case "GET", [kind] if kind in self.lists:
                return 200, {"recurringRuns" if kind == "recurringruns" else kind: self.lists[kind][::-1]}
            case "POST", [kind] if kind in self.lists:
                key = {"experiments": "experiment_id", "recurringruns": "recurring_run_id", "runs": "run_id"}[
                    kind
                ]
                self.lists[kind].append({**body, key: str(uuid.uuid4()), "state": "PENDING"})
                return 200, self.lists[kind][-1]
            case "POST", ["recurringruns", named] if named.endswith(":disable"):
                for one in self.lists["recurringruns"]:
                    if one["recurring_run_id"] == named.removesuffix(":disable"):
                        one["mode"] = "DISABLE"
                return 200, {}
        return 404, {"message": f"{method} {path}"}


@contextmanager
def serving(kubeflow: Kubeflow) -> Iterator[str]:
    """The address of a service that answers for `kubeflow`."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            kubeflow.tokens.add(self.headers.get("Authorization"))
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, answer = kubeflow.answer(self.command, urlparse(self.path).path, body)
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
