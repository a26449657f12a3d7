"""A small HTTP service in the place of Kubeflow Pipelines' API: what is posted is in its lists.

It answers as Kubeflow Pipelines 2.17.0 did: `kubeflow/answers` holds what that service answered to our commands,
without the pipelines that it repeats. Only the calls that we use are here; every other one answers 404, so that a
client that asks for something else fails.
"""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

KINDS = {
    "experiments": ("experiment_id", "experiments", "experiment_created"),
    "recurringruns": ("recurring_run_id", "recurringRuns", "schedule_created"),
    "runs": ("run_id", "runs", "run_created"),
}


def recorded(name: str) -> tuple[int, Any]:
    """Status and answer of the real service."""
    found = json.loads((Path(__file__).parent / "kubeflow/answers" / f"{name}.json").read_text())
    return found["status"], found["answer"]


class Kubeflow:
    """The posted bodies by kind, tokens of all requests; with `refusal` (status, answer) that is all it answers."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        self.tokens: set[str | None] = set()
        self.refusal: tuple[int, Any] | None = None
        self.health = recorded("health")[1]
        self.nodes: dict[str, dict[str, Any]] = {}  # Argo's, by run

    def answer(self, method: str, path: str, body: Any, query: dict[str, list[str]]) -> tuple[int, Any]:
        if self.refusal and not path.endswith("/healthz"):
            return self.refusal
        match method, path.removeprefix("/apis/v2beta1/").split("/"):
            case "GET", ["", "apis", "v1beta1", "runs", run_id]:
                workflow = json.dumps({"status": {"nodes": self.nodes.get(run_id, {})}})
                return 200, {"pipeline_runtime": {"workflow_manifest": workflow}}
            case "GET", ["healthz"]:
                return 200, self.health
            case "GET", [kind] if kind in KINDS:
                found = [one for one in self.lists[kind] if self._wanted(one, query)]
                return 200, {KINDS[kind][1]: found[::-1], "total_size": len(found)} if found else {}
            case "POST", [kind] if kind in KINDS:
                return self._make(kind, body)
            case "POST", [kind, named] if kind in KINDS and self._change(kind, *named.split(":")):
                return recorded("schedule_disabled")
        return 404, {"code": 5, "message": f"{method} {path}"}

    def _make(self, kind: str, body: dict[str, Any]) -> tuple[int, Any]:
        """What is empty is left out of the answer, and a 64-bit number is a text."""
        status, made = recorded(KINDS[kind][2])
        posted = {
            key: str(value) if isinstance(made.get(key), str) else value
            for key, value in body.items()
            if value not in ("", {"parameters": {}})
        }
        self.lists[kind].append(made | posted | {KINDS[kind][0]: str(uuid.uuid4())})
        return status, self.lists[kind][-1]

    def _change(self, kind: str, name: str, verb: str = "") -> bool:
        """Do `verb` to the one of that id; whether there is one."""
        found = [one for one in self.lists[kind] if one[KINDS[kind][0]] == name]
        for one in found:
            one |= {
                "disable": {"mode": "DISABLE", "status": "DISABLED"},
                "terminate": {"state": "CANCELING"},
            }[verb]
        return bool(found)

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
