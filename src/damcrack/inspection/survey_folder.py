"""The folder of a survey: the calls that it is made of, and whether it is finished.

OUT/.damcrack-output    model and values, and of each call its places, its photos and what was set aside
OUT/.damcrack-lock      while a call writes
OUT/.damcrack-new/      tables and page until all of them are complete

A call removes the tables and the page of earlier ones before it inspects its first photo, survey.json first, and moves
its own into place at its end, survey.json last. Wherever it is killed, no file of one call lies next to one of another.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from damcrack.cracks.findings import FILE, SUMMARY, Findings
from damcrack.files import (
    InputError,
    check_output,
    content_names,
    finish_replacing,
    in_use,
    read_marker,
    remove_ours,
    remove_unfinished,
    writable,
    write_marker,
)
from damcrack.inspection.places import Unusable

KIND = "survey"
LOCK, NEW = ".damcrack-lock", ".damcrack-new"


@dataclass(frozen=True)
class Call:
    """One call of `damcrack inspect`: what was given, relative to OUT, and what came of it.

    `photos` are the names of the photos by folder, in the order of the report.
    """

    title: str
    places: tuple[str, ...]
    photos: Mapping[str, str]
    set_aside: Sequence[Unusable] = ()


@dataclass(frozen=True)
class SurveyFolder:
    """A survey that is being written: `earlier` calls stay in it, `replaced` ones are done again by `call`."""

    root: Path
    kind: str
    made_by: str
    call: Call
    earlier: Sequence[Call]
    replaced: Sequence[Call]

    def calls(self, photos: Mapping[str, str], set_aside: Sequence[Unusable]) -> list[Call]:
        """All calls with the photos that this one found; a folder that somebody removed is no photo any more."""
        here = {path.parent.name for path in (self.root / "photos").glob(f"*/{FILE}")}
        call = replace(self.call, photos=photos, set_aside=tuple(set_aside))
        return [
            replace(one, photos={folder: name for folder, name in one.photos.items() if folder in here})
            for one in sorted([*self.earlier, call], key=lambda one: one.places)
        ]

    @contextmanager
    def publication(self, calls: Sequence[Call]) -> Iterator[Path]:
        """Yield a folder for tables and page; at its end they are those of OUT, which is then finished.

        Raises:
            InputError: a file that is not ours has the name of one of them.
        """
        new = self.root / NEW
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            yield new
            names = [name for name in content_names(new) if not name.endswith("/")]
            for name in names:
                if os.path.lexists(self.root / name):
                    raise InputError(f"{self.root / name} is not ours, and would be replaced; move it")
            facts = {"made_by": self.made_by, "calls": [asdict(call) for call in calls]}
            write_marker(self.root, self.kind, names, **facts, open=self.call.places)
            _forget_others(self.root / "photos", {folder for call in calls for folder in call.photos})
            for name in sorted(names, key=lambda name: (name == SUMMARY, name)):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).rename(self.root / name)
            write_marker(self.root, self.kind, names, **facts, open=())
        finally:
            shutil.rmtree(new, ignore_errors=True)


def place_of(given: str, root: Path) -> str:
    """What a call gave, as the survey in `root` remembers it: relative to it, links followed.

    Raises:
        InputError: it lies in the survey.
    """
    if "://" in given:
        return given.rstrip("/")
    path = Path(os.path.realpath(given))
    if path.is_relative_to(root):
        raise InputError(
            f"{given} lies in the folder of --out; give the photos' own folder, or another --out"
        )
    return _relative(path, root)


def _relative(path: PurePath, start: Path) -> str:
    try:
        return PurePath(os.path.relpath(path, start)).as_posix()
    except ValueError:  # on another drive
        return path.as_posix()


@contextmanager
def survey_folder(
    out: Path, call: Call, names: Iterable[str], made_by: str, kind: str = KIND
) -> Iterator[SurveyFolder]:
    """Hold the folder of a survey for this call, which will inspect photos called `names`.

    `made_by` names model and values. From here on the survey is not finished.

    Raises:
        InputError: it is another folder, in use, cannot be written, or holds photos that cannot stay beside these.
    """
    root = check_output(out, kind)
    with writable(out):
        root.mkdir(parents=True, exist_ok=True)
    with in_use(root / LOCK, out):
        marker = read_marker(check_output(out, kind)) or {"files": []}
        known = [_from_json(values) for values in marker.get("calls", ())]
        replaced = [one for one in known if not call.places or _covered(root, one.places, call.places)]
        earlier = [one for one in known if one not in replaced]
        if earlier:
            _check_separate(root, earlier, call, set(names))
            _check_alike(root, earlier, marker, made_by)
        with writable(out):
            _begin(root, kind, marker, call)
        yield SurveyFolder(root, kind, made_by, call, earlier, replaced)


def _begin(root: Path, kind: str, marker: Mapping[str, Any], call: Call) -> None:
    facts = {name: marker[name] for name in ("made_by", "calls") if name in marker}
    files = [name for name in marker["files"] if name != SUMMARY]
    write_marker(root, kind, marker["files"], **facts, open=call.places)
    for name in (SUMMARY, *files):
        (root / name).unlink(missing_ok=True)
    shutil.rmtree(root / NEW, ignore_errors=True)
    (root / "photos").mkdir(exist_ok=True)


def _check_separate(root: Path, earlier: Sequence[Call], call: Call, names: set[str]) -> None:
    for one in earlier:
        for place in one.places:
            if any(_related(root, place, other) for other in call.places):
                raise InputError(
                    f"{_shown(root, one.places)} {'were' if one.places[1:] else 'was'} inspected into {root} before; "
                    "give all of that again, with what is new, or choose another --out"
                )
        taken = sorted(
            {name for photo in one.photos.values() for name in (photo, photo.split("@")[0])} & names
        )
        if taken:
            raise InputError(
                f"{root} holds another photo called {taken[0]}, of {_shown(root, one.places)}; "
                "give all folders in one call, whose names then come first, or choose another --out"
            )


def _check_alike(root: Path, earlier: Sequence[Call], marker: Mapping[str, Any], made_by: str) -> None:
    unfinished = tuple(marker.get("open", ()))
    if any(_covered(root, one.places, unfinished) for one in earlier):
        raise InputError(
            f"the last call into {root}, with {_shown(root, unfinished)}, did not end; "
            "give it again first, or choose another --out"
        )
    if marker.get("made_by") != made_by:
        raise InputError(
            f"{_shown(root, earlier[0].places)} was inspected into {root} with another model or other values; "
            "give all folders in one call to inspect them again, or choose another --out"
        )


def _covered(root: Path, places: Sequence[str], by: Sequence[str]) -> bool:
    """Whether a call with the places `by` does again what one with `places` did; places that are gone do not count."""
    paths = [_absolute(root, one) for one in places]
    inside = [any(path.is_relative_to(_absolute(root, other)) for other in by) for path in paths]
    gone = [
        "://" not in one and "*" not in one and not os.path.lexists(path)
        for one, path in zip(places, paths, strict=True)
    ]
    return any(inside) and all(map(bool.__or__, inside, gone))


def _related(root: Path, place: str, other: str) -> bool:
    one, two = _absolute(root, place), _absolute(root, other)
    return one.is_relative_to(two) or two.is_relative_to(one)


def _absolute(root: Path, place: str) -> PurePath:
    return PurePosixPath(place) if "://" in place else Path(os.path.normpath(root / place))


def _shown(root: Path, places: Sequence[str]) -> str:
    shown = [one if "://" in one else _relative(_absolute(root, one), Path()) for one in places]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _forget_others(photos: Path, wanted: set[str]) -> None:
    """Remove the folders of photos that are not in the survey any more, and what killed calls left."""
    for path in sorted(photos.iterdir()):
        name = path.name
        if name.startswith(".") and name.endswith(".old"):
            finish_replacing(path, photos / name[1:-4])
        elif name.startswith(".") and name.endswith(".new"):
            remove_unfinished(path)
        elif name.startswith(".") and name.endswith(".new.lock"):
            path.unlink(missing_ok=True)
    for path in sorted(photos.iterdir()):
        if path.is_dir() and path.name not in wanted:
            remove_ours(path)


def _from_json(values: Mapping[str, Any]) -> Call:
    aside = tuple(Unusable(**one) for one in values["set_aside"])
    return Call(values["title"], tuple(values["places"]), values["photos"], aside)


@dataclass(frozen=True)
class FinishedSurvey:
    """A survey as another command finds it; `folders` are those of the photos by their names, in that order.

    `about` is survey.json: title, model, and the values that it was made with; `hashes` are those of the photos.
    """

    root: Path
    about: Mapping[str, Any]
    folders: Mapping[str, Path]
    hashes: frozenset[str]

    @classmethod
    def read(cls, root: Path) -> "FinishedSurvey":
        """Read a survey; files in it that it did not write are left alone.

        Raises:
            InputError: it is no survey, was not finished, or another version wrote it.
        """
        marker = read_marker(root) or {}
        if marker.get("open") or not (root / SUMMARY).is_file():
            raise InputError(f"{root} is not a finished survey; run `damcrack inspect` to its end")
        try:
            about = json.loads((root / SUMMARY).read_text(encoding="utf-8"))
            about = {name: about[name] for name in ("title", "model", "model_sha256", "values")}
            folders = [path.parent for path in (root / "photos").glob(f"*/{FILE}")]
            if "calls" in marker:
                ours = {name for call in marker["calls"] for name in call["photos"]}
                folders = [folder for folder in folders if folder.name in ours]
            known = [(one.photo, folder, one.sha256) for folder in folders for one in [Findings.read(folder)]]
            names = {name: folder for name, folder, _ in sorted(known)}
            return cls(root, about, names, frozenset(sha256 for *_, sha256 in known))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{root} is not a survey of this version ({type(error).__name__}: {error}); inspect the photos again"
            ) from error
