"""Take in what arrived: photos first, then the masks that label them.

An object's name only decides whether it is a photo or the mask of one, as in data.layouts; it is stored under the hash
of its content.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from damcrack.cracks.quality import doubt
from damcrack.data.layouts import TILE_LABELS, left_alone, stem_without
from damcrack.data.names import escaped, is_image_name
from damcrack.data.photo import MemoryShortError, suffix_of, within_memory
from damcrack.data.photos import checked_mask, checked_photo
from damcrack.files import InputError, PhotoError, in_order, sha256_bytes
from damcrack.imagery.catalogue import Entry, read_catalogue, stored_photo
from damcrack.imagery.config import ImageryConfig
from damcrack.run import Run
from damcrack.storage.source import Store, Stored

MAX_NAMED = 5  # of the masks that wait
MAX_IN_BATCH = 100  # inspected in one go; a run that is killed repeats no more than this


@dataclass(frozen=True)
class _Arrived:
    """A listed object; `photo_sha256` is the photo that it labels, if it is a mask."""

    stored: Stored
    photo_sha256: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies its content without reading it, as `Entry.key` does."""
        return escaped(self.stored.name), self.stored.etag, self.photo_sha256


def take_in(incoming: Store, store: Store, config: ImageryConfig, run: Run) -> "Intake":
    """Take in every photo and mask of `incoming` that the catalogue does not list yet.

    Objects are taken in the order of their names and a batch is full at 100 entries, so what is in a batch depends on
    what arrived and not on where an earlier run was killed. An object that cannot be read holds up no other.

    Raises:
        InputError: a place cannot be listed, or the store not written. Full batches stay; the next run continues.
    """
    intake = Intake(incoming, store, config)
    photos, masks = intake.sort_out(incoming.listed())
    intake.take(photos, "taking in photos", run)
    intake.take(intake.pair(photos, masks), "taking in masks", run)
    intake.write_batch()
    if intake.waiting:
        more = ", ..." if len(intake.waiting) > MAX_NAMED else ""
        run.say(f"masks that wait for their photo, or fit two: {', '.join(intake.waiting[:MAX_NAMED])}{more}")
    return intake


class Intake:
    """One run: the catalogue with its new batches, how many objects ended how, and which could not be read.

    Threads read and store ahead; entries are made in the order of the names.
    """

    def __init__(self, incoming: Store, store: Store, config: ImageryConfig) -> None:
        self._incoming, self._store = incoming, store
        self._limits = config.min_side_px, config.max_pixels
        self.catalogue = read_catalogue(store)
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.waiting: list[str] = []  # names of masks that fit no photo, or two
        self._batch: list[Entry] = []
        self._known = {content: entry for content, (_, entry) in self.catalogue.contents().items()}
        self._seen = {entry.key: entry.sha256 for entry in self.catalogue.entries()}

    def sort_out(self, listed: Iterable[Stored]) -> tuple[list[_Arrived], list[Stored]]:
        """Photos and masks, by their names; the rest is left alone."""
        photos, masks = [], []
        for one in listed:
            folders = [part.casefold() for part in one.name.split("/")[:-1]]
            is_tile = not TILE_LABELS.keys().isdisjoint(folders)
            if is_tile or not is_image_name(one.name) or left_alone(one.name, folders):
                self.counts["other_files"] += 1
            elif "masks" in folders:
                masks.append(one)
            else:
                photos.append(_Arrived(one))
        return photos, masks

    def pair(self, photos: Iterable[_Arrived], masks: Iterable[Stored]) -> list[_Arrived]:
        """Masks whose photo was read: A/masks/STEM.png labels A/STEM.jpg."""
        by_stem: dict[str, set[str]] = defaultdict(set)
        for photo in photos:
            if photo.key in self._seen:
                by_stem[stem_without(photo.stored.name, "images")].add(self._seen[photo.key])
        paired = []
        for mask in masks:
            fitting = by_stem.get(stem_without(mask.name, "masks"), set())
            if len(fitting) == 1:
                paired.append(_Arrived(mask, *fitting))
            else:
                self.counts["ambiguous_masks" if fitting else "masks_without_photo"] += 1
                self.waiting.append(escaped(mask.name))
        return paired

    def take(self, arrived: Sequence[_Arrived], what: str, run: Run) -> None:
        """Take in all that no earlier run has seen."""
        new = [one for one in arrived if one.key not in self._seen]
        self.counts["seen"] += len(arrived) - len(new)
        for taken in run.track(in_order(self._take, new), what, len(new)) if new else ():
            if isinstance(taken, Entry):
                self._enter(taken)
            else:
                self.counts["failed" if taken else "vanished"] += 1
                self.failures += [taken] if taken else []

    def write_batch(self) -> None:
        """Write what was taken in since the last batch."""
        if self._batch:
            self.catalogue.append(self._store, self._batch)
            self._batch = []

    def _enter(self, entry: Entry) -> None:
        if entry.content in self._known:
            self.counts["copies"] += 1
        else:
            self._known[entry.content] = entry
            self.counts["quarantined" if entry.reason else "labels" if entry.photo_sha256 else "photos"] += 1
        self._seen[entry.key] = entry.sha256
        self._batch.append(entry)
        if len(self._batch) == MAX_IN_BATCH:
            self.write_batch()

    def _take(self, arrived: _Arrived) -> Entry | str:
        """What became of an object; of one that waits for the next run why, nothing if it was replaced or removed."""
        name, etag, photo_sha256 = arrived.key
        try:
            with within_memory():
                content = self._incoming.read(arrived.stored.name, etag)
                digest = sha256_bytes(content)
                if known := self._known.get((digest, photo_sha256)):
                    return replace(known, name=name, etag=etag)
                files, why_not = self._checked(content, digest, photo_sha256)
                reason = ""
        except FileNotFoundError:
            return ""
        except MemoryShortError as error:  # the photo may be whole: it waits for a larger machine
            return f"{name}: {error}"
        except PhotoError as error:
            place, reason = f"quarantine/{digest}{photo_sha256 and '.' + photo_sha256}", str(error)
            files, why_not = {f"{place}/reason.txt": f"{reason}\n".encode(), f"{place}/file": content}, ""
        except InputError as error:
            return f"{name}: {error}"
        for file, stored in files.items():
            # The reason may be another one than that of a killed run with other limits.
            if not self._store.create(file, stored) and not reason:
                raise InputError(f"{file} does not match the hash in its name; restore its version")
        return Entry(name, etag, digest, photo_sha256, list(files)[-1], len(content), reason, why_not)

    def _checked(self, content: bytes, digest: str, photo_sha256: str) -> tuple[dict[str, bytes], str]:
        """What is stored of a photo, and why it is in doubt.

        Of a mask it is stored with its photo, side by side as the stage `photos` pairs them.
        """
        if not photo_sha256:
            doubted = doubt(checked_photo(content, *self._limits))
            return {f"accepted/photos/{digest}{suffix_of(content)}": content}, doubted
        photo = self._known[photo_sha256, ""]
        if photo.reason:
            raise PhotoError(f"its photo is in quarantine ({photo.reason}); fix the photo first")
        photo_content = stored_photo(self._store, photo)
        size_hw = checked_photo(photo_content, *self._limits).shape[:2]
        checked_mask(content, size_hw, self._limits[1])
        folder = f"accepted/labelled/{digest}"
        return {
            f"{folder}/{photo.file.rsplit('/', 1)[-1]}": photo_content,
            f"{folder}/masks/{photo_sha256}{suffix_of(content)}": content,
        }, ""
