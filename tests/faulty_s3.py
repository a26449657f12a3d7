"""A faulty S3 on loopback, in front of a real one, and what four commands make of it.

    python tests/faulty_s3.py SHARE NUM     the share of requests that fail, and photos of each command

It needs DAMCRACK_TEST_S3 and AWS_*. Reads are requests of objects: those that failed, and those that did not.
"""

import http.client
import http.server
import os
import random
import socket
import socketserver
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from pathlib import Path

import numpy as np

from damcrack.data.config import PhotosConfig
from damcrack.data.photo import encode_jpeg
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.imagery import arrivals, inspections
from damcrack.imagery.config import ImageryConfig
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.run import Run
from damcrack.storage.source import open_source
from walls import write_darkness_detector

# Error answers, connections that end before or after the service has acted, bodies cut with a length that says so
# (short) or that does not (cut), bodies of other bytes, another ETag, a slow answer.
BODY_FAULTS = ("500", "503", "drop-before", "drop-after", "cut", "short", "other-bytes", "etag")
FAULTS = (*BODY_FAULTS, "slow")
OTHER_ETAG = f'"{"0" * 32}"'


class FaultyS3(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """`fault(method, path)` names what goes wrong with the next answer; "" for nothing."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.backend = urllib.parse.urlparse(endpoint).netloc
        self.fault = lambda method, path: ""
        self.counts: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()  # GETs of objects, and of those the ones with a fault
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that goes away, as its connection broke

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def at_random(self, share: float, seed: int, kinds: tuple[str, ...] = FAULTS) -> None:
        """Let a share of all requests fail."""
        rng = random.Random(seed)
        self.fault = lambda method, path: rng.choice(kinds) if rng.random() < share else ""

    def note(self, method: str, path: str) -> str:
        with self.lock:
            fault = self.fault(method, urllib.parse.unquote(path))
            self.counts["requests"] += 1
            self.counts["faults"] += bool(fault)
            if method == "GET" and "list-type" not in path:
                self.reads["reads"] += 1
                self.reads["failed"] += fault in BODY_FAULTS
        return fault


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def log_message(self, *_: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        self.send_response_only(100)
        self.end_headers()
        return True

    def _go(self) -> None:
        try:
            self._answer(self._body())
        except OSError:
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _go

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _answer(self, sent: bytes) -> None:
        fault = self.server.note(self.command, self.path)
        if fault == "drop-before":
            return self._drop()
        if fault in ("500", "503", "refused"):
            code = {"500": "InternalError", "503": "SlowDown", "refused": "AccessDenied"}[fault]
            error = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
            return self._send(403 if fault == "refused" else int(fault), [], error)
        status, headers, body = self._forwarded(sent)
        if fault == "drop-after":
            return self._drop()
        if fault == "etag":
            headers = [(name, OTHER_ETAG if name.lower() == "etag" else value) for name, value in headers]
        if fault in ("short", "empty"):
            body = body[: len(body) // 2] if fault == "short" else b""
        if fault == "other-bytes" and status in (200, 206):
            body = body[: len(body) // 2] + bytes(len(body) - len(body) // 2)
        return self._send(status, headers, body, fault)

    def _forwarded(self, sent: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.backend, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "expect", "content-length"):
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(sent)))
        connection.endheaders(sent or None)
        answer = connection.getresponse()
        ours = ("content-length", "connection", "transfer-encoding")
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in ours]
        body = answer.read()
        self.length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else None
        connection.close()
        return answer.status, headers, body

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str = "") -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", getattr(self, "length", None) or str(len(body)))
        self.length = None
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "slow":
            time.sleep(0.2)
        sent = body[: len(body) // 2] if fault == "cut" else body
        self.server.counts["bytes"] += len(sent)
        self.wfile.write(sent)
        if fault == "cut":
            self._drop()

    def _drop(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def picture(seed: int) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(90, 200, (120, 160, 3), dtype=np.uint8), 80)


class Campaign:
    """Four commands on the photos under s3://BUCKET/in, results in folders below `root`."""

    def __init__(self, bucket: str, root: Path) -> None:
        self.bucket, self.root = bucket, root
        root.mkdir(parents=True)

    def snapshot(self) -> object:
        snapshot({"dam": f"s3://{self.bucket}/in"}, self.root / "photos.csv", open_source, Run())
        return (self.root / "photos.csv").read_text()

    def photos(self) -> object:
        config = PhotosConfig(sources={"dam": f"s3://{self.bucket}/in"}, min_side_px=32)
        photos(self.root / "photos.csv", self.root / "photos", config, open_source, Run())
        return [(self.root / "photos" / name).read_text() for name in ("photos.csv", "quarantine.csv")]

    def inspect(self) -> object:
        model, out = write_darkness_detector(self.root / "model.onnx"), self.root / "survey"
        places = [f"s3://{self.bucket}/in"]
        inspect_photos(places, model, out, InspectConfig(), open_source, Run())
        return [(out / name).read_text() for name in ("photos.csv", "set-aside.csv")]

    def imagery(self) -> object:
        places = (f"s3://{self.bucket}/in", f"s3://{self.bucket}/{self.root.name}")
        config = ImageryConfig(*places, min_side_px=32)
        incoming, store = map(open_source, places)
        done = arrivals.take_in(incoming, store, config, Run())
        model = write_darkness_detector(self.root / "model.onnx")
        reports = inspections.inspect_batches(store, done.catalogue, lambda: model, InspectConfig(), Run())
        return sorted((one.name, one.sha256, one.reason) for one in done.catalogue.entries()), len(reports)


COMMANDS = ("snapshot", "photos", "inspect", "imagery")


def fill(bucket: str, num: int) -> None:
    import boto3

    client = boto3.client("s3")
    for number in range(num):
        client.put_object(Bucket=bucket, Key=f"in/{number:04d}.jpg", Body=picture(number))


def main() -> None:
    import boto3

    share, num = float(sys.argv[1]), int(sys.argv[2])
    endpoint = os.environ["AWS_ENDPOINT_URL"] = os.environ["DAMCRACK_TEST_S3"]
    bucket = f"faulty-{os.getpid()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    fill(bucket, num)
    print(
        "| command | requests | faults | seconds | ended | photos | failed reads | other reads |\n"
        + "| --- " * 8
        + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        right, trial = (Campaign(bucket, Path(folder, name)) for name in ("right", "trial"))
        for seed, name in enumerate(COMMANDS):
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            expected, server = getattr(right, name)(), FaultyS3(endpoint)
            server.at_random(share, seed)
            os.environ["AWS_ENDPOINT_URL"] = server.endpoint
            started = time.monotonic()
            try:
                ended = "complete" if getattr(trial, name)() == expected else "incomplete"
            except Exception as error:
                ended = f"{type(error).__name__}: {str(error)[:90]}"
            seconds = time.monotonic() - started
            server.shutdown()
            reads, counts = server.reads, server.counts
            row = [name, counts["requests"], counts["faults"], f"{seconds:.0f}", ended, num]
            print(
                "|",
                " | ".join(map(str, [*row, reads["failed"], reads["reads"] - reads["failed"]])),
                "|",
                flush=True,
            )
            if not (trial.root / "photos.csv").exists():
                (trial.root / "photos.csv").write_bytes((right.root / "photos.csv").read_bytes())


if __name__ == "__main__":
    main()
