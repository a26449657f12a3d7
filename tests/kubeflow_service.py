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
from urllib.parse import parse_qs, urlparse


class Kubeflow:
    """The posted bodies by kind, tokens of all requests; with `refuse` it answers that status and sentence."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {"experiments": [], "recurringruns": [], "runs": []}
        self.tokens: set[str | None] = set()
        self.refuse: int | None = None
        self.says = "no rights here"
        self.health = {"commit_sha": "4a3592cb", "tag_name": "2.17.0", "multi_user": False}

    def answer(self, method: str, path: str, body: Any, query: dict[str, list[str]]) -> tuple[int, Any]:
        if self.refuse and not path.endswith("/healthz"):
            return self.refuse, {"message": self.says}
        match method, path.removeprefix("/apis/v2beta1/").split("/"):
            case "GET", ["healthz"]:
                return 200, self.health
            case "GET", [kind] if kind in self.lists:
                found = [one for one in self.lists[kind] if self._wanted(one, query)]
                return 200, {"recurringRuns" if kind == "recurringruns" else kind: found[::-1]}
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

    def _wanted(self, one: dict[str, Any], query: dict[str, list[str]]) -> bool:
        predicates = json.loads(query.get("filter", ['{"predicates": []}'])[0])["predicates"]
        return all(one.get(each["key"]) == each["stringValue"] for each in predicates)


@contextmanager
def serving(kubeflow: Kubeflow) -> Iterator[str]:
    """The address of a service that answers for `kubeflow`."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            kubeflow.tokens.add(self.headers.get("Authorization"))
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            url = urlparse(self.path)
            status, answer = kubeflow.answer(self.command, url.path, body, parse_qs(url.query))
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
