"""A survey in a bucket, for more photos than one machine should inspect.

OUT/photos/NAME-HASH/    a photo's folder, as in any survey; findings.json comes last
OUT/...                  tables and page, once somebody has written them; survey.json comes last

Nothing is ever replaced: a machine that is killed is simply repeated, and finds what it had done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from damcrack.cracks.findings import FILE, SUMMARY
from damcrack.files import InputError, temporary_folder
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.sources import Part, list_photos
from damcrack.params import read_params, stage_config
from damcrack.progress import Watcher
from damcrack.registry.model_names import model_folder, with_version
from damcrack.run import Run
from damcrack.storage.source import Store, open_source

MOST_PARTS = 500  # Argo keeps all of a run's tasks in one object


@dataclass(frozen=True)
class BucketPhotos:
    """The photos' folders in the store of a survey."""

    store: Store

    def bring(self, folder: Path, whole: bool = False) -> None:
        """Fill a photo's folder from the store, if all of it is there."""
        place = f"photos/{folder.name}/"
        names = [one.name.removeprefix(place) for one in self.store.listed(place)]
        wanted = names if whole else [name for name in names if name != "detail.jpg"]
        if FILE not in names:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            if not (folder / name).exists():
                self.store.save(place + name, folder / name)

    def send(self, folder: Path) -> None:
        """Store a photo's folder.

        Raises:
            InputError: it was stored with other findings.
        """
        for path in sorted(folder.iterdir(), key=lambda path: (path.name == FILE, path.name)):
            is_same = self.store.create(f"photos/{folder.name}/{path.name}", path.read_bytes())
        if not is_same:
            raise InputError(
                f"{folder.name} was inspected into --out before with another model or other values; "
                "choose another --out"
            )


def inspect_into_bucket(
    given: Sequence[str],
    model: Path,
    out: str,
    config: InspectConfig,
    run: Run,
    gsd_by_photo: Mapping[str, float] | None = None,
    part: Part | None = None,
) -> dict[str, object]:
    """`inspect_photos` into a bucket that other machines write to: a part, or what is left, with tables and page.

    Raises:
        InputError: as there; or `out` lies in the photos, or holds another survey.
    """
    store = open_survey(given, out)
    with temporary_folder() as folder:
        root = folder / "survey"
        shared = BucketPhotos(store)
        summary = inspect_photos(given, model, root, config, open_source, run, gsd_by_photo, part, shared)
        if part is None:
            files = [path for path in root.iterdir() if path.is_file()]
            for path in sorted(files, key=lambda path: (path.name == SUMMARY, path.name)):
                if not store.create(path.name, path.read_bytes()):
                    raise InputError(f"{out}/{path.name} is of another survey; choose another --out")
            summary["report"] = f"{out}/report.html"
    return summary


def open_survey(given: Sequence[str], out: str) -> Store:
    """Open the place of a survey that is not finished.

    Raises:
        InputError: a survey was finished there, or it lies in the photos.
    """
    for place in given:
        if f"{out.rstrip('/')}/".startswith(f"{place.rstrip('/')}/"):
            raise InputError(f"--out {out} lies in {place}; choose a place beside the photos")
    store = open_source(out)
    if any(one.name == SUMMARY for one in store.listed(SUMMARY)):
        raise InputError(f"{out} holds a finished survey; choose another --out")
    return store


def cut(photos: str, out: str, model: str, photos_per_part: int) -> list[str]:
    """Cut a survey into parts of about so many photos, each as `PART MODEL`: all must see the version of now.

    Raises:
        InputError: there is no photo or model, or `out` cannot be used.
    """
    open_survey([photos], out)
    listed, _ = list_photos([photos], open_source)
    of, version = min(MOST_PARTS, -(-len(listed) // photos_per_part)), with_version(model)
    return [f"{Part(number, of)} {version}" for number in range(1, of + 1)]


def inspect_part(
    photos: str, out: str, model: str, params: str, part: str | None = None
) -> dict[str, object]:
    """Inspect a part of a survey with the text of params.yaml, or what is left of it, with tables and page."""
    config = stage_config(read_params(params), "inspect", None)
    wanted = Part.read(part) if part else None
    return inspect_into_bucket([photos], model_folder(model), out, config, Watcher(), part=wanted)
