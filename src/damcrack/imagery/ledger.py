"""The ledger: what was taken in, keyed by content; and claims, so that two runs do not do the same work.

Correctness rests on one thing: an entry is created at most once. Claims and marks only spare work. A run that is
killed leaves its claim behind; once the lease is over, the next attempt is free to take.
"""

import itertools
import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from typing import Literal

from damcrack.files import InputError, sha256_bytes
from damcrack.storage.store import Store, Stored


@dataclass(frozen=True)
class Item:
    """A photo, or a photo with its mask (a label), as it was taken in; files are names in the store.

    `name` is what the photo was called where it arrived; it is shown, and never used as a path.
    """

    name: str
    sha256: str
    verdict: Literal["accepted", "quarantined"]
    reason: str = ""
    file: str = ""
    size_bytes: int = 0
    height_px: int = 0
    width_px: int = 0
    mask_sha256: str = ""
    mask_file: str = ""
    mask_size_bytes: int = 0

    @property
    def id(self) -> str:
        """The key in the ledger."""
        return item_id(self.sha256, self.mask_sha256)


def item_id(sha256: str, mask_sha256: str = "") -> str:
    """Key of a photo, or of a photo with a mask, by content."""
    return f"{sha256}.{mask_sha256}" if mask_sha256 else sha256


@dataclass(frozen=True)
class Claim:
    """The right to do a piece of work, the how-manieth time it is tried; `num_killed` tries were left unfinished."""

    what: str
    attempt: int
    num_killed: int

    @property
    def name(self) -> str:
        """The object that is the claim."""
        return f"claims/{self.what}.{self.attempt}"

    @property
    def release(self) -> str:
        """The object that ends it early."""
        return f"{self.name}.released"


class Ledger:
    """Entries, marks and claims in a store; `run_id` tells apart who wrote them."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id

    def ids(self) -> set[str]:
        """Keys of all entries."""
        return {stem(one.name) for one in self._store.listed("ledger/")}

    def knows(self, key: str) -> bool:
        """Tell whether there is an entry, without a listing."""
        return self._store.age_s(f"ledger/{key}.json") is not None

    def enter(self, item: Item) -> bool:
        """Enter an item for good; False if another run was first, whose entry stands."""
        entry = {"run": self._run_id, **asdict(item)}
        return self._store.create(f"ledger/{item.id}.json", json_bytes(entry))

    def item(self, key: str) -> Item:
        """Read an entry.

        Raises:
            InputError: there is none, or it is not one of ours.
        """
        try:
            entry = json.loads(self._store.read(f"ledger/{key}.json"))
            item = Item(**{field.name: entry[field.name] for field in fields(Item)})
        except FileNotFoundError as error:
            raise InputError(f"ledger/{key}.json has vanished from the store; restore it") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"ledger/{key}.json is no entry of the ledger ({error}); restore its version"
            ) from error
        if item.id != key:
            raise InputError(f"ledger/{key}.json holds the entry of {item.id}; restore its version")
        return item

    def seen(self) -> dict[str, str]:
        """Marks of objects that need no second look -> key of their entry."""
        names = (one.name.removeprefix("seen/") for one in self._store.listed("seen/"))
        return dict(name.split(".", 1) for name in names)

    def mark(self, mark: str, key: str) -> None:
        """Note that the object with this mark holds the item of that key."""
        self._store.create(f"seen/{mark}.{key}", b"")

    def claim(self, what: str, lease_s: float, again: bool = False) -> Claim | None:
        """Claim a piece of work; None while another one's claim holds.

        Threads of one run are others to each other: copies of a photo arrive together. With `again`, for work that a
        run does one by one, an earlier claim of this run counts as abandoned: it is the same run, tried again.
        """
        who = {"run": self._run_id, "claim": uuid.uuid4().hex}
        num_killed = 0
        for attempt in itertools.count(1):
            claim = Claim(what, attempt, num_killed)
            if self._store.create(claim.name, json_bytes(who)):
                return claim
            if self._store.age_s(claim.release) is not None:
                continue
            age_s = self._store.age_s(claim.name)
            held = age_s is not None and age_s < lease_s
            if held and not (again and json.loads(self._store.read(claim.name)).get("run") == self._run_id):
                return None
            num_killed += 1
        raise AssertionError

    @contextmanager
    def released_on_error(self, claim: Claim) -> Iterator[None]:
        """Let the next run try at once where this one met an error and was not killed."""
        try:
            yield
        except Exception:
            with suppress(InputError):  # the store itself may be what fails; then the lease has to end
                self._store.create(claim.release, b"")
            raise


def mark_of(stored: Stored, *more: str) -> str:
    """Name an object's content without reading it: a renamed, replaced or touched one has another mark."""
    return sha256_bytes(json_bytes([stored.name, stored.etag, stored.size_bytes, *more]))[:32]


def stem(name: str) -> str:
    """The last part of an object's name without its last suffix."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def numbers(listed: Iterable[Stored]) -> list[int]:
    """Sorted numbers of objects that are named by one."""
    return sorted(int(stem(one.name)) for one in listed if stem(one.name).isdigit())


def json_bytes(value: object) -> bytes:
    """Indented JSON, ASCII only: a name with broken letters stays printable."""
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()
