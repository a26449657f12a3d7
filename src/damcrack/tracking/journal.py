"""The local record of one run: every event is on disk before anybody tries to send it.

    .damcrack/journal/NAME.jsonl    one JSON event a line, "start" first, "end" last
    .damcrack/journal/NAME.sent     which store has acknowledged how many of them
    .damcrack/journal/NAME/0/x.png  copies of the artifacts
    .damcrack/journal/killed/       sent records of stages that were killed: when one is started again with the same
                                    inputs it goes on from its checkpoint, and its record goes on here

Whoever writes or sends a journal holds a lock on its file, which the kernel drops when the last of them dies.
"""

import fcntl
import json
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from damcrack.files import InputError, write_json

JOURNALS = Path(".damcrack/journal")
KILLED = "killed"
MAX_KILLED = 50
Event = dict[str, Any]


@dataclass(frozen=True)
class Receipt:
    """What one store has acknowledged of a journal."""

    store: str
    run_id: str
    num_sent: int


@dataclass(frozen=True)
class Journal:
    """One run's events on disk; `path` ends in .jsonl."""

    path: Path

    @property
    def key(self) -> str:
        """Unique over all runs; the store's run carries it, so that a second replay finds the same run."""
        return self.path.stem

    def events(self) -> list[Event]:
        """All whole lines; a line torn by a crash was never acknowledged to anyone and is left out."""
        lines = self.path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def receipt(self, store: str) -> Receipt:
        """What `store` has acknowledged; nothing if the journal went to another store before."""
        if self._receipt_path.is_file():
            receipt = Receipt(**json.loads(self._receipt_path.read_text()))
            if receipt.store == store:
                return receipt
        return Receipt(store, "", 0)

    def acknowledge(self, receipt: Receipt) -> None:
        """Remember what has arrived; a crash before this line only repeats what the store ignores."""
        write_json(self._receipt_path, asdict(receipt))

    def artifact(self, kept: str) -> Path:
        """Where the copy of an artifact lies, by the name that `JournalWriter.keep` gave it."""
        return self.path.with_suffix("") / kept

    def append(self, event: str, time_ms: int, **fields: Any) -> None:
        """Add one event, whole or not at all."""
        line = json.dumps({"event": event, "time_ms": time_ms, **fields})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def close_if_cut_off(self) -> None:
        """End the record of a process that died without a word, when it was last heard of; only under the lock."""
        events = self.events()
        if events and events[-1]["event"] != "end":
            self.drop_torn_line()
            self.append("end", events[-1]["time_ms"], status="KILLED")

    def drop_torn_line(self) -> None:
        """Cut off what a crash left of a last line."""
        content = self.path.read_bytes()
        os.truncate(self.path, content.rfind(b"\n") + 1)

    def put_away(self) -> None:
        """Nothing is left to send: keep the record of a killed stage, which may go on; delete any other."""
        events = self.events()
        if events and events[-1].get("status") == "KILLED" and _stage_key(events[0]):
            self._move(self.path.parent / KILLED)
            for old in waiting_journals(self.path.parent / KILLED)[:-MAX_KILLED]:
                old.delete()
        else:
            self.delete()

    def delete(self) -> None:
        """Remove the journal with its copies, the events last."""
        shutil.rmtree(self.path.with_suffix(""), ignore_errors=True)
        self._receipt_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def reopen(self, folder: Path) -> "Journal":
        """Take up the record of a killed stage again, in `folder`; call only under the lock."""
        self.drop_torn_line()
        return self if self.path.parent == folder else self._move(folder)

    def _move(self, folder: Path) -> "Journal":
        folder.mkdir(exist_ok=True)
        moved = Journal(folder / self.path.name)
        for here in (self.path.with_suffix(""), self._receipt_path, self.path):
            if here.exists():
                here.rename(folder / here.name)
        return moved

    @property
    def _receipt_path(self) -> Path:
        return self.path.with_suffix(".sent")


def _stage_key(start: Event) -> str:
    return str(start.get("tags", {}).get("damcrack.stage_key", ""))


class JournalWriter:
    """A journal of ours, locked until `close`; `fileno` lets a child process share the lock.

    The record of the same stage with the same inputs is taken up again if it was killed; `known` are its events.
    """

    def __init__(self, name: str, stage_key: str = "", experiment: str = "", folder: Path = JOURNALS) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = _reopened(stage_key, experiment, folder) if stage_key else None
            self.journal, self._file = found or _new(name, folder)
        except OSError as error:
            raise InputError(
                f"cannot write {folder}: {error.strerror}; run damcrack in a folder that you may write"
            ) from error
        self.known = self.journal.events()
        self._last_ms = self.known[-1]["time_ms"] if self.known else 0
        self._num_kept = sum(event["event"] == "artifact" for event in self.known)
        self._turn = threading.Lock()

    def append(self, event: str, **fields: Any) -> None:
        """Add one event that happened now; a clock that is set back does not turn the order around."""
        with self._turn:
            self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
            self.journal.append(event, self._last_ms, **fields)

    def keep(self, path: Path) -> str:
        """Copy a file into the journal and return its name there: the original may change or go."""
        kept = f"{self._num_kept}/{path.name}"
        target = self.journal.artifact(kept)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        self._num_kept += 1
        return kept

    def fileno(self) -> int:
        """The descriptor that carries the lock."""
        return self._file.fileno()

    def close(self) -> None:
        """Give the lock back, unless a child process still shares it."""
        self._file.close()


def _new(name: str, folder: Path) -> tuple[Journal, IO[str]]:
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    words = re.sub(r"[^\w@=+-]", "_", name)
    journal = Journal(folder / f"{stamp}-{words}-{uuid.uuid4().hex[:8]}.jsonl")
    file = journal.path.open("x")
    fcntl.flock(file, fcntl.LOCK_EX)
    return journal, file


def _reopened(stage_key: str, experiment: str, folder: Path) -> tuple[Journal, IO[str]] | None:
    """The newest record of this stage with these inputs that was killed and that nobody holds, locked."""
    for journal in reversed([*waiting_journals(folder / KILLED), *waiting_journals(folder)]):
        with suppress(FileNotFoundError):  # whoever was sending it has just put it away
            events = journal.events()
            if not (events and _was_killed(events, stage_key, experiment)):
                continue
            file = journal.path.open("r+")
            if _try_lock(file):
                return journal.reopen(folder), file
            file.close()
    return None


def _was_killed(events: Sequence[Event], stage_key: str, experiment: str) -> bool:
    same = _stage_key(events[0]) == stage_key and events[0].get("experiment") == experiment
    return same and (events[-1]["event"] != "end" or events[-1]["status"] == "KILLED")


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def waiting_journals(folder: Path = JOURNALS) -> Sequence[Journal]:
    """Journals on disk, oldest first."""
    return [Journal(path) for path in sorted(folder.glob("*.jsonl"))]


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file; yield False at once if somebody else holds it."""
    with path.open("a") as file:
        yield _try_lock(file)
