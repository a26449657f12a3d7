"""Take in what arrived: photos first, then the masks that label them.

How an object is called decides only whether it is a photo or the mask of one, as in stages.intake.layouts; what it
is stored as is decided by its content.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from damcrack.data.names import escaped, is_hidden, is_image_name
from damcrack.files import InputError, in_order, sha256_bytes
from damcrack.imagery.config import ImageryConfig
from damcrack.imagery.judgement import Judgement, judge_label, judge_photo, judge_unread
from damcrack.imagery.ledger import Item, Ledger, item_id, mark_of
from damcrack.run import Run
from damcrack.storage.store import Store, Stored

MOST_KILLED = 3  # a file that ended so many runs (out of memory) is set aside unread
MOST_FAILURES = 5  # so many one after the other: it is the store and not an object
_TILE_FOLDERS = {"positive", "negative"}
Judge = Callable[[str, bytes, str], Judgement]  # of name, content, and the photo's sha256 if it is a mask


@dataclass
class Arrivals:
    """What one run did: how many objects ended how, which entries of the ledger it knows now, what went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    entries: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    failed_in_a_row: int = 0

    @property
    def gave_up(self) -> bool:
        """Tell whether the rest was not tried any more."""
        return self.failed_in_a_row >= MOST_FAILURES


@dataclass(frozen=True)
class _Arrived:
    """An object to be taken in; `photo_sha256` is the photo that it labels, if it is a mask."""

    stored: Stored
    mark: str
    photo_sha256: str = ""


@dataclass(frozen=True)
class _Outcome:
    arrived: _Arrived
    word: str
    key: str = ""
    failure: str = ""


def take_in(incoming: Store, store: Store, ledger: Ledger, config: ImageryConfig, run: Run) -> Arrivals:
    """Take in every photo and mask of `incoming` that the ledger does not know yet, in a random order.

    So runs at once seldom meet, and objects that always fail do not keep the same others waiting.

    Raises:
        InputError: a store cannot be listed. What was taken in until then stays, and the next call goes on.
    """
    arrivals = Arrivals(entries=ledger.ids())
    work, seen = _Work(incoming, store, ledger, config, arrivals.entries), ledger.seen()
    photos, masks = _sorted_out(incoming.listed(), arrivals)
    marked = {mark_of(photo): photo for photo in photos}
    new = [_Arrived(photo, mark) for mark, photo in marked.items() if mark not in seen]
    random.shuffle(new)
    _count(arrivals, "photos known", len(photos) - len(new))
    found = _take_all(new, work.take_photo, "taking photos in", arrivals, run)
    content_of = {photo.name: seen[mark] for mark, photo in marked.items() if mark in seen}
    content_of |= {one.arrived.stored.name: one.key for one in found if one.key}
    labels = _paired(masks, content_of, seen, arrivals)
    _take_all(labels, work.take_label, "taking masks in", arrivals, run)
    return arrivals


def _count(arrivals: Arrivals, word: str, number: int = 1) -> None:
    if number:
        arrivals.counts[word] += number


def _sorted_out(listed: Iterable[Stored], arrivals: Arrivals) -> tuple[list[Stored], list[Stored]]:
    photos, masks = [], []
    for one in listed:
        folders = {part.casefold() for part in one.name.split("/")[:-1]}
        if not is_image_name(one.name) or is_hidden(one.name) or folders & _TILE_FOLDERS:
            _count(arrivals, "other files, left alone")
        elif "masks" in folders:
            masks.append(one)
        elif any(folder.startswith("masks-") for folder in folders):
            _count(arrivals, "other files, left alone")
        else:
            photos.append(one)
    return photos, masks


def _take_all(
    arrived: Sequence[_Arrived],
    take: Callable[[_Arrived], _Outcome],
    what: str,
    arrivals: Arrivals,
    run: Run,
) -> list[_Outcome]:
    """Take all; those on which somebody else works get a second look, by then most of them are done."""
    done: list[_Outcome] = []
    for last in (False, True):
        busy = []
        going = arrived if not arrivals.gave_up else []
        for one in run.track(in_order(take, going), what, len(going)) if going else ():
            if one.word == "left to another run" and not last:
                busy.append(one.arrived)
                continue
            done.append(one)
            _note(one, arrivals)
            if arrivals.gave_up:
                return done
        arrived = busy
    return done


def _note(one: _Outcome, arrivals: Arrivals) -> None:
    _count(arrivals, one.word)
    arrivals.failed_in_a_row = arrivals.failed_in_a_row + 1 if one.failure else 0
    arrivals.failures += [one.failure] if one.failure else []


def _paired(
    masks: Sequence[Stored], content_of: dict[str, str], seen: dict[str, str], arrivals: Arrivals
) -> list[_Arrived]:
    """Masks that are new and whose photo is there, beside it: A/masks/STEM.png labels A/STEM.jpg."""
    by_stem: dict[str, set[str]] = {}
    for name, key in content_of.items():
        by_stem.setdefault(_stem_without(name, "images"), set()).add(key)
    new = []
    for mask in masks:
        fitting = by_stem.get(_stem_without(mask.name, "masks"), set())
        if len(fitting) != 1:
            _count(arrivals, "masks that fit several photos" if fitting else "masks waiting for their photo")
            continue
        photo_sha256 = next(iter(fitting))
        mark = mark_of(mask, photo_sha256)
        if mark in seen:
            _count(arrivals, "masks known")
        else:
            new.append(_Arrived(mask, mark, photo_sha256))
    return new


def _stem_without(name: str, folder: str) -> str:
    parts = list(PurePosixPath(name).with_suffix("").parts)
    for number in reversed(range(len(parts) - 1)):
        if parts[number].casefold() == folder:
            del parts[number]
            break
    return "/".join(parts)


@dataclass(frozen=True)
class _Work:
    incoming: Store
    store: Store
    ledger: Ledger
    config: ImageryConfig
    known: set[str]

    def take_photo(self, arrived: _Arrived) -> _Outcome:
        return self._take(arrived, self._judge_photo)

    def take_label(self, arrived: _Arrived) -> _Outcome:
        return self._take(arrived, self._judge_label)

    def _take(self, arrived: _Arrived, judge: Judge) -> _Outcome:
        try:
            content = self.incoming.read(arrived.stored.name, arrived.stored.etag)
            return self._settle(arrived, content, judge)
        except FileNotFoundError:
            return _Outcome(arrived, "vanished or replaced meanwhile")
        except InputError as error:
            return _Outcome(arrived, "failed", failure=f"{escaped(arrived.stored.name)}: {error}")

    def _settle(self, arrived: _Arrived, content: bytes, judge: Judge) -> _Outcome:
        """Bring one content to its end: known, or claimed, judged, stored and entered, in this order."""
        digest = sha256_bytes(content)
        key = item_id(arrived.photo_sha256, digest) if arrived.photo_sha256 else digest
        if key in self.known:
            return self._known(arrived, key)
        claim = self.ledger.claim(key, self.config.photo_lease_minutes * 60)
        if self.ledger.knows(key):
            return self._known(arrived, key)
        if claim is None:
            return _Outcome(arrived, "left to another run")
        with self.ledger.released_on_error(claim):
            item, first = self._enter(arrived, content, judge, claim.num_killed)
        self.known.add(key)
        self.ledger.mark(arrived.mark, key)
        word = "quarantined" if item.verdict == "quarantined" else _new(arrived)
        return _Outcome(arrived, word if first else _copy(arrived), key)

    def _enter(self, arrived: _Arrived, content: bytes, judge: Judge, num_killed: int) -> tuple[Item, bool]:
        name = escaped(arrived.stored.name)
        if num_killed >= MOST_KILLED:
            judged = judge_unread(name, content, arrived.photo_sha256, num_killed)
        else:
            judged = judge(name, content, arrived.photo_sha256)
        for file, kept in judged.objects.items():
            self.store.create(file, kept)
        return judged.item, self.ledger.enter(judged.item)

    def _known(self, arrived: _Arrived, key: str) -> _Outcome:
        self.known.add(key)
        self.ledger.mark(arrived.mark, key)
        return _Outcome(arrived, _copy(arrived), key)

    def _judge_photo(self, name: str, content: bytes, _: str) -> Judgement:
        return judge_photo(name, content, self.config)

    def _judge_label(self, name: str, content: bytes, photo_sha256: str) -> Judgement:
        photo = self.ledger.item(photo_sha256)
        return judge_label(name, content, photo, self.store.read, self.config)


def _new(arrived: _Arrived) -> str:
    return "new labels" if arrived.photo_sha256 else "new photos"


def _copy(arrived: _Arrived) -> str:
    return "labels known by content" if arrived.photo_sha256 else "photos known by content"
