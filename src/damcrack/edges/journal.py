"""The local record of one run: every event is on disk before anybody tries to send it.

    .damcrack/journal/NAME.jsonl    one JSON event a line, "start" first, "end" last
    .damcrack/journal/NAME.sent     which store has acknowledged how many of them
    .damcrack/journal/NAME/0/x.png  copies of the artifacts

Whoever writes or sends a journal holds a lock on its file, which the kernel drops when the last of them dies.
"""

import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from damcrack.errors import InputError
from damcrack.outputs import write_json

JOURNALS = Path(".damcrack/journal")
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

    def append(self, event: str, **fields: Any) -> None:
        """Add one event that happened now."""
        line = json.dumps({"event": event, "time_ms": time.time_ns() // 1_000_000, **fields})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def close_if_cut_off(self) -> None:
        """End the record of a process that died without a word; call only under the lock."""
        if not any(event["event"] == "end" for event in self.events()):
            self._drop_torn_line()
            self.append("end", status="KILLED")

    def delete(self) -> None:
        """Remove the journal with its copies, the events last."""
        shutil.rmtree(self.path.with_suffix(""), ignore_errors=True)
        self._receipt_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    @property
    def _receipt_path(self) -> Path:
        return self.path.with_suffix(".sent")

    def _drop_torn_line(self) -> None:
        content = self.path.read_bytes()
        os.truncate(self.path, content.rfind(b"\n") + 1)


class JournalWriter:
    """A new journal, locked until `close`; `fileno` lets a child process share the lock."""

    def __init__(self, name: str, folder: Path = JOURNALS) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        words = re.sub(r"[^\w@=+-]", "_", name)
        self.journal = Journal(folder / f"{stamp}-{words}-{uuid.uuid4().hex[:8]}.jsonl")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.journal.path.open("x")
        except OSError as error:
            raise InputError(
                f"cannot write {folder}: {error.strerror}; run damcrack in a folder that you may write"
            ) from error
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._num_kept = 0

    def append(self, event: str, **fields: Any) -> None:
        """Add one event that happened now."""
        self.journal.append(event, **fields)

    def keep(self, path: Path) -> str:
        """Copy a file into the journal and return its name there: the original may change or go."""
        kept = f"{self._num_kept}/{path.name}"
        target = self.journal.artifact(kept)
        target.parent.mkdir(parents=True)
        shutil.copyfile(path, target)
        self._num_kept += 1
        return kept

    def fileno(self) -> int:
        """The descriptor that carries the lock."""
        return self._file.fileno()

    def close(self) -> None:
        """Give the lock back, unless a child process still shares it."""
        self._file.close()


def waiting_journals(folder: Path = JOURNALS) -> Sequence[Journal]:
    """Journals on disk, oldest first."""
    return [Journal(path) for path in sorted(folder.glob("*.jsonl"))]


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock of a file; with `wait` false, yield False at once if somebody else holds it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
