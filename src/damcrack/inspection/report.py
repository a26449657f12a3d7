"""The survey as one HTML page that needs no network, on which a person decides every finding."""

import base64
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from damcrack.cracks.findings import Findings, Pixels, encode_picture, preview, read_picture
from damcrack.cracks.photo import Rules
from damcrack.files import replacing, sha256_bytes
from damcrack.inspection.decisions import CLASSES, SEVERITIES, decision_as_json, read_decisions
from damcrack.inspection.matching import NEAR_PX, SAME_SHARE, UNMOVED_IOU, Finding, asked
from damcrack.inspection.overview import Stop, overview
from damcrack.inspection.places import Unusable

FOLDERS = [Path(__file__).parent, Path(__file__).parents[1]]  # style.css is shared
THUMBNAIL_PX, MANY_PHOTOS, SMALL_THUMBNAIL_PX = 320, 500, 160
CROPPED_FINDINGS = 400  # those with most evidence have a picture in the list
CROP_PX, MIN_CROP_PX = 110, 64
THUMBNAIL_QUALITY = 72
LEGEND = {"crack": "crack", "unsure": "unsure", "no-crack": "no crack"}
LINE_RGB, BLOCK_RGB = (255, 59, 47), (255, 176, 32)


@dataclass
class Lengths:
    """Lengths in millimetres where a photo has a scale, and in pixels where it has none."""

    mm: float = 0.0
    px: float = 0.0

    def add(self, px: float, gsd_mm_per_px: float | None) -> None:
        """Add one line."""
        if gsd_mm_per_px is None:
            self.px += px
        else:
            self.mm += px * gsd_mm_per_px

    def __str__(self) -> str:
        parts = [in_words(self.mm, 1.0)] * bool(self.mm) + [in_words(self.px, None)] * bool(self.px)
        return " and ".join(parts) or "0"


@dataclass
class Totals:
    """What the page and survey.json say of all photos together."""

    verdicts: dict[str, int] = field(default_factory=lambda: {"crack": 0, "unsure": 0, "no crack": 0})
    num_cracks: int = 0
    num_blocks: int = 0
    lengths: Lengths = field(default_factory=Lengths)
    without_scale: list[str] = field(default_factory=list)
    with_scale: int = 0
    num_lines: int = 0
    lines_px: float = 0.0

    def add(self, findings: Findings, found: Sequence[Finding]) -> float:
        """Add a photo, of which a person is asked about `found`; returns their length in mm, or in px."""
        lengths, gsd = Lengths(), findings.gsd_mm_per_px
        cracks = [one.crack for one in found if one.crack]
        for crack in cracks:
            for sum_ in (lengths, self.lengths):
                sum_.add(crack.length_px, gsd)
        self.verdicts[findings.verdict] += 1
        self.num_cracks += len(cracks)
        self.num_blocks += len(found) - len(cracks)
        self.num_lines += len(findings.cracks)
        self.lines_px += sum(crack.length_px for crack in findings.cracks)
        self.with_scale += gsd is not None
        if gsd is None:
            self.without_scale.append(findings.photo)
        return lengths.mm or lengths.px


@dataclass(frozen=True)
class Shown:
    """One photo on the page, with what its script knows."""

    folder: Path
    facts: dict[str, Any]
    stop: Stop

    @property
    def ranks(self) -> list[tuple[bool, float]]:
        """Sort keys of its findings, as in `matching.rank`: most evidence first."""
        return [(one["kind"] == "block", -one["prob"]) for one in self.facts["findings"]]


class Page:
    """Takes photo after photo, then writes the page; what is drawn of them lies in a file meanwhile, not in memory.

    `full_size` gives the file with the picture of a photo's folder at full size.
    """

    def __init__(self, num_photos: int, full_size: Callable[[Path], Path]) -> None:
        self.totals = Totals()
        self._full_size = full_size
        self._is_large = num_photos > MANY_PHOTOS
        self._shown = list[Shown]()
        self._drawings = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self._drawings.close()

    def add(self, folder: Path, findings: Findings) -> None:
        """Take the next photo."""
        found, num_more = asked(findings)
        length = self.totals.add(findings, found)
        image = _thumbnail(folder, findings, found, SMALL_THUMBNAIL_PX if self._is_large else THUMBNAIL_PX)
        thumbnail = base64.b64encode(encode_picture(image, THUMBNAIL_QUALITY)).decode()
        lines = [[line.tolist() for line in one.lines] for one in found]
        drawing = {"thumbnail": thumbnail, "lines": lines, "blocks": _blocks(findings)}
        self._drawings.write(as_script(drawing) + "\n")
        stop = Stop(len(self._shown), findings.photo, findings.verdict, findings.lon_lat, length)
        self._shown.append(Shown(folder, _facts(folder, findings, found, num_more), stop))

    def write(
        self,
        path: Path,
        title: str,
        set_aside: Sequence[Unusable],
        rules: Rules,
        card: Sequence[tuple[str, str]],
        block_px: int,
        budget_mb: float,
        decisions: Path,
    ) -> int:
        """Write the page; return for how many photos with findings it shows the file beside it, not a picture inside.

        Raises:
            InputError: the decisions beside the page cannot be read.
        """
        pictures = self._within_budget(0 if self._is_large else budget_mb)  # to open in seconds
        decided = read_decisions(decisions) if decisions.is_file() else []
        linked = sum(bool(one.ranks) and pictures.get(one.stop.number) != "detail.jpg" for one in self._shown)
        mixed_units = bool(self.totals.with_scale and self.totals.without_scale)
        self._drawings.seek(0)
        template = environment().get_template("page.html.j2")
        stream = template.stream(
            title=title,
            totals=self.totals,
            photos=[one.facts for one in self._shown],
            **overview([one.stop for one in self._shown], LEGEND, mixed_units),
            set_aside=set_aside,
            card=card,
            rules=rules,
            block_px=block_px,
            settings=_settings(title, self._shown),
            decided=[decision_as_json(one) for one in decided],
            pictures=self._pictures(pictures),
            drawings=(line.rstrip("\n") for line in self._drawings),
            crops=self._crops(),
            linked=linked,
        )
        stream.enable_buffering(20)
        with replacing(path) as temporary:
            stream.dump(str(temporary), encoding="utf-8")
        return linked

    def _within_budget(self, budget_mb: float) -> dict[int, str]:
        """Which picture of each photo with findings is in the page: a small one of all, then the whole by evidence."""
        order = sorted((one for one in self._shown if one.ranks), key=lambda one: min(one.ranks))
        left, chosen = budget_mb * 2**20, dict[int, str]()
        for name, replaced in (("preview.jpg", None), ("detail.jpg", "preview.jpg")):
            for one in order:
                if chosen.get(one.stop.number) != replaced:
                    break
                picture = self._full_size(one.folder) if replaced else one.folder / name
                smaller = (one.folder / replaced).stat().st_size if replaced else 0
                cost = (picture.stat().st_size - smaller) * 4 / 3
                if cost > left:
                    break
                left, chosen[one.stop.number] = left - cost, name
        return chosen

    def _pictures(self, chosen: Mapping[int, str]) -> Iterator[dict[str, Any]]:
        """Pictures that are in the page, and whether each is the whole one."""
        for number, name in sorted(chosen.items()):
            content = (self._shown[number].folder / name).read_bytes()
            yield {"photo": number, "whole": name == "detail.jpg", "content": content}

    def _crops(self) -> Iterator[dict[str, Any]]:
        """Pictures of the findings with most evidence, photo by photo: one of them is in memory."""
        ranked = [
            (rank, one.stop.number, place) for one in self._shown for place, rank in enumerate(one.ranks)
        ]
        wanted: dict[int, list[int]] = {}
        for _, number, place in sorted(ranked)[:CROPPED_FINDINGS]:
            wanted.setdefault(number, []).append(place)
        for number, places in sorted(wanted.items()):
            facts = self._shown[number].facts
            whole = read_picture(self._full_size(self._shown[number].folder))
            scale = whole.shape[1] / facts["width"]
            for place in places:
                box = [round(scale * one) for one in facts["findings"][place]["box"]]
                content = encode_picture(_crop(whole, box), THUMBNAIL_QUALITY)
                yield {"photo": number, "finding": place, "content": content}


def environment() -> Environment:
    """Templates that escape every name, and fail on one that they do not know."""
    made = Environment(autoescape=True, loader=FileSystemLoader(FOLDERS), undefined=StrictUndefined)
    made.trim_blocks = made.lstrip_blocks = True
    made.filters["script"] = as_script
    made.filters["base64"] = lambda content: base64.b64encode(content).decode()
    made.filters["counted"] = lambda number, word: f"{number} {word}{'' if number == 1 else 's'}"
    return made


def _facts(folder: Path, findings: Findings, found: Sequence[Finding], num_more: int) -> dict[str, Any]:
    """What the page knows of a photo: measures in pixels, and the scale to turn them into millimetres."""
    return {
        "name": findings.photo,
        "sha256": findings.sha256,
        "verdict": findings.verdict,
        "doubt": findings.doubt,
        "width": findings.width_px,
        "height": findings.height_px,
        "gsd": findings.gsd_mm_per_px,
        "file": f"photos/{folder.name}/detail.jpg",
        "more": num_more,
        "findings": [_finding_facts(one) for one in found],
    }


def _blocks(findings: Findings) -> list[tuple[int, int, int, int]]:
    """x, y, side and percent of the blocks that may be cracked."""
    return [
        (x0, y0, x1 - x0, round(100 * prob))
        for x0, y0, x1, _, prob in findings.blocks
        if prob >= findings.uncertain[0]
    ]


def _finding_facts(one: Finding) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": one.kind, "box": one.box_xyxy, "prob": round(one.evidence, 3)}
    if one.crack:
        names = ("length_px", "width_px", "width_max_px")
        facts |= {name: round(getattr(one.crack, name), 2) for name in names}
    return facts


def _settings(title: str, shown: Sequence[Shown]) -> dict[str, Any]:
    """What the page's program must know; `survey` names the place where the browser keeps unsaved decisions."""
    photos = [one.facts["sha256"] for one in shown]
    return {
        "title": title,
        "survey": sha256_bytes(repr(photos).encode())[:16],
        "classes": CLASSES,
        "severities": SEVERITIES,
        "near": NEAR_PX,
        "same": SAME_SHARE,
        "unmoved": UNMOVED_IOU,
    }


def as_script(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _thumbnail(folder: Path, findings: Findings, found: Sequence[Finding], side_px: int) -> Pixels:
    """The photo, small, with what was found drawn in."""
    image = preview(read_picture(folder / "preview.jpg"), side_px).copy()
    scale = image.shape[1] / findings.width_px
    for one in found:
        if one.kind == "block":
            x0, y0, x1, y1 = (round(scale * value) for value in one.box_xyxy)
            cv2.rectangle(image, (x0, y0), (x1, y1), BLOCK_RGB, 1, cv2.LINE_AA)
        for line in one.lines:
            cv2.polylines(image, [np.rint(scale * line).astype(np.int32)], False, LINE_RGB, 2, cv2.LINE_AA)
    return image


def _crop(rgb: Pixels, box_xyxy: Sequence[int]) -> Pixels:
    x0, y0, x1, y1 = box_xyxy
    margin = max(8, (MIN_CROP_PX - max(x1 - x0, y1 - y0)) // 2, max(x1 - x0, y1 - y0) // 10)
    return preview(rgb[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin], CROP_PX)


def in_words(px: float, gsd_mm_per_px: float | None) -> str:
    """A length in millimetres, from one metre on in metres; in pixels where the photo has no scale."""
    value, unit = (px * gsd_mm_per_px, "mm") if gsd_mm_per_px else (px, "px")
    if unit == "mm" and abs(value) >= 1000:
        return f"{value / 1000:.2f} m"
    return f"{value:z.1f} {unit}" if abs(value) < 100 else f"{value:.0f} {unit}"


def model_card(contract: Mapping[str, Any], sha256: str) -> list[tuple[str, str]]:
    """What the report says of the model, as titles and texts."""
    calibration = contract["calibration"]
    num_tiles = calibration.get("num_tiles")
    fitted_on = f", fitted on {num_tiles} validation tiles" if num_tiles else ""
    return [
        ("model", f"{contract['name']} ({contract['network']})"),
        ("file", f"sha256 {sha256}"),
        ("weights", f"sha256 {contract['weights_sha256']}"),
        ("trained on", f"tiles {contract['data_digest']}"),
        ("calibration", f"temperature {calibration['temperature']:.3f}{fitted_on}"),
    ]
