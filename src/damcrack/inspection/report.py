"""The survey as one HTML page that needs no network: written photo by photo, within a budget of bytes."""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from damcrack.inspection.findings import Findings, Pixels, preview, read_image
from damcrack.inspection.photo import Rules
from damcrack.inspection.sources import Unusable

FOLDERS = [Path(__file__).parent, Path(__file__).parents[1]]  # style.css is shared
LISTED_CRACKS = 400
THUMBNAIL_PX, MANY_PHOTOS, SMALL_THUMBNAIL_PX = 320, 500, 160
CRACK_PX, MIN_CROP_PX = 110, 64
THUMBNAIL_QUALITY = 72
SHOWN_PROB = 0.05  # blocks below it are not drawn


@dataclass
class Totals:
    """What the page says of all photos together; `found` is one entry per crack: (width_max, photo, crack)."""

    verdicts: dict[str, int]
    found: list[tuple[float, int, int]]
    lengths: list[float]
    widths: list[float]
    probs: list[float]
    in_mm: bool


def write_page(
    path: Path,
    title: str,
    folders: Sequence[Path],
    set_aside: Sequence[Unusable],
    rules: Rules,
    card: Sequence[tuple[str, str]],
    budget_mb: float,
) -> int:
    """Write the page; return for how many photos with cracks it leaves the full detail beside it."""
    totals = _totals(folders)
    detailed = _within_budget(folders, totals, budget_mb)
    listed = sorted(totals.found, reverse=True)[:LISTED_CRACKS]
    left_out = totals.verdicts["crack"] - len(detailed)
    unit = "mm" if totals.in_mm else "px"
    environment = Environment(autoescape=True, loader=FileSystemLoader(FOLDERS), undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    stream = environment.get_template("page.html.j2").stream(
        title=title,
        totals=_in_words(totals, len(folders), len(listed), unit),
        widest=_widest(folders, totals, unit),
        cards=lambda: _cards(folders),
        columns=_columns(unit),
        sorted_by=f"width_max_{unit}",
        listed=lambda: _listed(folders, listed),
        histograms=_histograms(totals, unit),
        set_aside=set_aside,
        card=card,
        block_px=Findings.read(folders[0]).block_px,
        threshold=rules.threshold,
        uncertain=rules.uncertain,
        photo_data=lambda: _photo_data(folders, detailed, rules),
        left_out=left_out,
    )
    temporary = path.with_name(f".{path.name}.part")
    stream.enable_buffering(20)
    try:
        stream.dump(str(temporary), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return left_out


def _totals(folders: Sequence[Path]) -> Totals:
    totals = Totals({"crack": 0, "unsure": 0, "no crack": 0}, [], [], [], [], in_mm=True)
    everything = [Findings.read(folder).gsd_mm_per_px for folder in folders]
    totals.in_mm = bool(folders) and all(gsd is not None for gsd in everything)
    for number, folder in enumerate(folders):
        findings = Findings.read(folder)
        unit = (findings.gsd_mm_per_px if totals.in_mm else None) or 1.0
        totals.verdicts[findings.verdict] += 1
        totals.probs.append(findings.max_crack_prob)
        for crack, measures in enumerate(findings.cracks):
            totals.found.append((measures.width_max_px * unit, number, crack))
            totals.lengths.append(measures.length_px * unit)
            totals.widths.append(measures.width_max_px * unit)
    return totals


def _within_budget(folders: Sequence[Path], totals: Totals, budget_mb: float) -> set[int]:
    """Photos with cracks whose full detail goes into the page: those with the widest cracks first."""
    widest: dict[int, float] = {}
    for width, number, _ in totals.found:
        widest[number] = max(width, widest.get(number, 0.0))
    chosen, left = set[int](), budget_mb * 2**20
    with_detail = [number for number, folder in enumerate(folders) if (folder / "detail.jpg").is_file()]
    for number in sorted(with_detail, key=lambda number: (-widest.get(number, 0.0), number)):
        left -= (folders[number] / "detail.jpg").stat().st_size * 4 / 3
        if left < 0:
            break
        chosen.add(number)
    return chosen


def _in_words(totals: Totals, num_photos: int, num_listed: int, unit: str) -> dict[str, Any]:
    return {
        **totals.verdicts,
        "num_photos": num_photos,
        "num_cracks": len(totals.found),
        "num_listed": num_listed,
        "length": _measure(sum(totals.lengths), unit),
    }


def _widest(folders: Sequence[Path], totals: Totals, unit: str) -> dict[str, str] | None:
    if not totals.found:
        return None
    width, number, _ = max(totals.found)
    return {"width": _measure(width, unit), "photo": Findings.read(folders[number]).photo}


def _measure(value: float, unit: str) -> str:
    if unit == "mm" and value >= 1000:
        return f"{value / 1000:.2f} m"
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def _columns(unit: str) -> list[tuple[str, str]]:
    return [
        (f"width_max_{unit}", f"widest, {unit}"),
        (f"width_{unit}", f"width, {unit}"),
        (f"length_{unit}", f"length, {unit}"),
        ("num_branches", "branches"),
    ]


def _cards(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    side_px = THUMBNAIL_PX if len(folders) <= MANY_PHOTOS else SMALL_THUMBNAIL_PX
    for number, folder in enumerate(folders):
        findings = Findings.read(folder)
        image = preview(_read(folder / "preview.jpg"), side_px)
        num = len(findings.cracks)
        traced = f", {num} crack{'' if num == 1 else 's'} traced" if findings.verdict == "crack" else ""
        yield {
            "number": number,
            "photo": findings.photo,
            "verdict": findings.verdict,
            "facts": f"most confident block {findings.max_crack_prob:.0%}{traced}",
            "thumbnail": _jpeg(image),
            "size_wh": (image.shape[1], image.shape[0]),
        }


def _listed(folders: Sequence[Path], listed: Sequence[tuple[float, int, int]]) -> Iterator[dict[str, Any]]:
    last, photo = -1, np.empty((0, 0, 3), np.uint8)
    for _, number, crack in listed:
        if number != last:  # one photo at a time is in memory
            last, photo = number, _read(folders[number] / "detail.jpg")
        findings = Findings.read(folders[number])
        measures, gsd = findings.cracks[crack], findings.gsd_mm_per_px
        image = _crop(photo, measures.box_xyxy)
        sizes = {
            f"{name}_{unit}": round(getattr(measures, f"{name}_px") * factor, 2 if unit == "mm" else 1)
            for name in ("length", "width", "width_max")
            for unit, factor in (("px", 1.0), ("mm", gsd or 0.0))
        }
        yield {
            "number": number,
            "crack": crack,
            "photo": findings.photo,
            "num_branches": measures.num_branches,
            **sizes,
            "thumbnail": _jpeg(image),
            "size_wh": (image.shape[1], image.shape[0]),
        }


def _crop(rgb: Pixels, box_xyxy: Sequence[int]) -> Pixels:
    x0, y0, x1, y1 = box_xyxy
    margin = max(8, (MIN_CROP_PX - max(x1 - x0, y1 - y0)) // 2, max(x1 - x0, y1 - y0) // 10)
    part = rgb[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin]
    return preview(part, CRACK_PX)


def _photo_data(folders: Sequence[Path], detailed: set[int], rules: Rules) -> Iterator[dict[str, Any]]:
    """What the viewer draws: numbers as JSON, that cannot end the script element they stand in."""
    for number, folder in enumerate(folders):
        findings = Findings.read(folder)
        blocks = [
            (x0, y0, x1 - x0, round(100 * prob), _kind(prob, rules))
            for x0, y0, x1, y1, prob in findings.blocks
            if prob >= SHOWN_PROB
        ]
        facts = {
            "name": findings.photo,
            "verdict": findings.verdict,
            "width": findings.width_px,
            "height": findings.height_px,
            "blocks": blocks,
            "cracks": [[line.tolist() for line in crack.lines] for crack in findings.cracks],
            "boxes": [crack.box_xyxy for crack in findings.cracks],
        }
        text = json.dumps(facts, separators=(",", ":")).replace("<", "\\u003c")
        image = folder / ("detail.jpg" if number in detailed else "preview.jpg")
        wanted = number in detailed or (findings.verdict != "no crack" and len(folders) <= MANY_PHOTOS)
        encoded = base64.b64encode(image.read_bytes()).decode() if wanted else None
        yield {"number": number, "facts": text, "image": encoded}


def _kind(prob: float, rules: Rules) -> str:
    if prob >= rules.threshold:
        return "crack"
    return "unsure" if prob >= rules.uncertain[0] else "faint"


def _histograms(totals: Totals, unit: str) -> list[dict[str, Any]]:
    given = [
        (f"Widest place of each crack, {unit}", totals.widths, None),
        (f"Length of each crack, {unit}", totals.lengths, None),
        ("Surest block of each photo, probability", totals.probs, 1.0),
    ]
    return [_histogram(title, values, end) for title, values, end in given if values]


def _histogram(title: str, values: Sequence[float], end: float | None) -> dict[str, Any]:
    num_bins = 12 if end is None else 10
    # Up to the 98th percentile: one crack of a thousand pixels must not squeeze all others into one bar.
    top = end or _round_up(float(np.percentile(values, 98)))
    counts, edges = np.histogram(np.minimum(values, top), bins=num_bins, range=(0, top))
    width, most = 282 / num_bins, max(1, int(counts.max()))
    bars = [
        {
            "x": round(30 + bin_ * width + 1, 1),
            "y": round(150 - 132 * count / most, 1),
            "width": round(width - 2, 1),
            "height": round(132 * count / most, 1),
            "count": int(count),
            "label": f"{_number(edges[bin_])} to {_number(edges[bin_ + 1])}",
        }
        for bin_, count in enumerate(counts.tolist())
    ]
    ticks = [{"x": 30 + 282 * part, "label": _number(top * part)} for part in (0, 0.5, 1)]
    return {"title": title, "bars": bars, "ticks": ticks, "most": most}


def _number(value: float) -> str:
    """Three digits, or all of a larger number's."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    step = 10 ** math.floor(math.log10(value))
    return float(next(step * factor for factor in (1, 2, 3, 5, 7, 10) if step * factor >= value))


def _read(path: Path) -> Pixels:
    return read_image(path, cv2.IMREAD_COLOR_RGB)


def _jpeg(rgb: Pixels) -> str:
    _, encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY])
    return base64.b64encode(bytes(encoded)).decode()


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
