"""Stage `inspect`: photos in, an engineer's crack map out. Needs onnxruntime, not torch.

OUT/report.html             everything on one page that needs no network
OUT/photos.csv, blocks.csv, cracks.csv, cracks.geojson, cracks.coco.json, set-aside.csv    see inspection.exports
OUT/photos/                 one folder per photo, see inspection.survey
OUT/decisions.json          what a person decided, put there by hand: see inspection.decisions
OUT/survey.json             model, values and totals
As a stage of the graph, the case study: OUT/case-study.json, OUT/figures/, see inspection.case_study
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.findings import SUMMARY, Findings
from damcrack.cracks.photo import Rules
from damcrack.files import InputError, check_output, new_directory, write_json
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.decisions import FILE as DECISIONS
from damcrack.inspection.exports import survey_files
from damcrack.inspection.places import Listed, OpenBucket, Unusable
from damcrack.inspection.report import Page, Totals, model_card
from damcrack.inspection.scale import Scale, for_photos, without_number
from damcrack.inspection.sources import Part, list_photos, opened, summarised, title_of
from damcrack.inspection.survey import SharedPhotos, Survey, made_by
from damcrack.inspection.survey_folder import KIND, Call, SurveyFolder, place_of, survey_folder
from damcrack.run import Run

FORMAT = 1
MAX_BYTES_PER_PIXEL = 8  # RGB and alpha of 16 bits, not compressed


def inspect(
    photos: Path, tiles: Path, model: Path, out: Path, config: InspectConfig, run: Run
) -> dict[str, object]:
    """The case study: inspect the held-out photos, and compare with their masks.

    Raises:
        InputError: there is no such photo, or the model is not one of ours.
    """
    from damcrack.inspection.case_study import study, unseen_photos

    detector = OnnxDetector.load(model)
    listed = [Listed(row["photo"], (photos / row["file"]).read_bytes) for row in unseen_photos(photos, tiles)]
    scale = Scale(config.gsd_mm_per_px, config.distance_m)
    with new_directory(out, "inspect") as folder:
        folders, totals = survey(listed, detector, scale, folder, config, run, "case study", kind="inspect")
        results = study(photos, tiles, folder, folders, detector, config, run)
    blocks, pixels = results["blocks"]["all"], results["pixels"]
    run.metrics(
        {f"inspect/block_{name}": value for name, value in blocks["network"].items() if value is not None}
        | {
            f"inspect/pixel_f1/{method.replace(' ', '_')}": scores["all"]["f1"]
            for method, scores in pixels.items()
            if scores["all"]["f1"] is not None
        }
    )
    for path in (out / "report.html", out / "figures" / "found.jpg"):
        run.artifact(path)
    return {
        **_summary(out, totals),
        "blocks": f"{blocks['network']['accuracy']:.2%} right of {blocks['network']['num_blocks']}, "
        f"brightness threshold {blocks['global threshold']['accuracy']:.2%}",
        "crack pixels, F1": ", ".join(f"{name} {_number(one['all']['f1'])}" for name, one in pixels.items()),
        "case study": out / "case-study.json",
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def inspect_photos(
    given: Sequence[str],
    model: Path,
    out: Path,
    config: InspectConfig,
    open_source: OpenBucket,
    run: Run,
    gsd_by_photo: Mapping[str, float] | None = None,
    part: Part | None = None,
    shared: SharedPhotos | None = None,
) -> dict[str, object]:
    """Inspect files, folders, patterns, videos and s3:// prefixes; a later call with the same `out` goes on.

    With a `part`, look at its files only, and leave `out` unfinished. What other machines found comes from `shared`.

    Raises:
        InputError: no photo there, none that could be looked at, or the model is not one of ours.
    """
    root = check_output(out, KIND)
    places = [place_of(one, root) for one in given]
    detector = OnnxDetector.load(model)
    listed, not_listed = list_photos(given, open_source)
    names = [one.name for one in listed]
    by_photo = for_photos(gsd_by_photo, names) if gsd_by_photo else {}
    scale = Scale(config.gsd_mm_per_px, config.distance_m, by_photo)
    if gsd_by_photo and (line := without_number(scale, names)):
        run.say(line)
    title = title_of(given)
    if part is not None:
        listed, not_listed = [one for one in listed if part.holds(one.name)], []
    folders, totals = survey(
        listed, detector, scale, out, config, run, title, places, not_listed, part=part, shared=shared
    )
    if part is not None:
        to_do = "the same without --part, after all parts"
        return {"photos": f"{len(folders)} of part {part}", "to do": to_do}
    return _summary(out, totals)


def survey(
    listed: Sequence[Listed],
    detector: OnnxDetector,
    scale: Scale,
    out: Path,
    config: InspectConfig,
    run: Run,
    title: str,
    places: Sequence[str] = (),
    not_listed: Sequence[Unusable] = (),
    kind: str = KIND,
    part: Part | None = None,
    shared: SharedPhotos | None = None,
) -> tuple[list[Path], dict[str, Any]]:
    """Look at all listed photos and write what was found; returns the folders of all photos, and the totals.

    `places` are where the photos come from: those of earlier calls with other places stay in the survey. `not_listed`
    files are reported as set aside too. Of a `part` no tables are written, since they would be of few photos.

    Raises:
        InputError: no photo could be looked at, or `out` cannot hold this survey.
    """
    rules = Rules.of(config)
    call = Call(title, tuple(sorted(places)), {})
    with survey_folder(out, call, [one.name for one in listed], made_by(detector, rules), kind) as folder:
        work = Survey(folder.root, detector, rules, scale, config.max_megapixels * 10**6, shared)
        photos, set_aside = dict[str, str](), list(not_listed)
        for aside in summarised(not_listed):
            run.say(f"set aside: {aside.name}: {aside.reason}")
        max_bytes = MAX_BYTES_PER_PIXEL * work.max_pixels
        found = work.look_at_all(opened(listed, config.video_every_s, max_bytes))
        for one in run.track(found, "inspecting photos", len(listed)):
            if isinstance(one, Unusable):
                run.say(f"set aside: {one.name}: {one.reason}")
                set_aside.append(one)
            else:
                name, photo_folder = one
                photos[photo_folder.name] = name
        if part is not None:
            return [folder.root / "photos" / name for name in photos], {}
        if not photos and not folder.earlier:
            meant = [one for one in set_aside if not one.no_photo]
            raise InputError(
                f"none of {len(meant)} photos could be looked at; the first: {meant[0].name}: {meant[0].reason}"
            )
        _say_what_changes(folder, photos, run)
        return _publish(folder, folder.calls(photos, set_aside), work, config, run)


def _say_what_changes(folder: SurveyFolder, photos: Mapping[str, str], run: Run) -> None:
    """Say which photos of earlier calls stay in the survey, and which leave it."""
    num_stay = sum(len(call.photos) for call in folder.earlier)
    if num_stay:
        run.say(f"{num_stay} photos of earlier calls stay in {folder.root}")
    before = {name for call in folder.replaced for name in call.photos.values()}
    gone = sorted(before - set(photos.values()))
    if gone:
        run.say(
            f"{len(gone)} photos that were inspected before are gone, and leave the survey: {', '.join(gone[:5])}"
        )


def _publish(
    survey: SurveyFolder,
    calls: Sequence[Call],
    work: Survey,
    config: InspectConfig,
    run: Run,
) -> tuple[list[Path], dict[str, Any]]:
    folders = [survey.root / "photos" / name for call in calls for name in call.photos]
    set_aside = [one for call in calls for one in call.set_aside]
    title = calls[0].title if len(calls) == 1 else f"{sum(len(call.places) for call in calls)} places"
    detector, rules = work.detector, work.rules
    card = model_card(detector.contract, detector.sha256)
    with survey.publication(calls) as new:
        with survey_files(new, set_aside, rules.join_px) as add, Page(len(folders), work.full_size) as page:
            for folder in folders:
                findings = Findings.read(folder)
                add(folder, findings)
                page.add(folder, findings)
            shown, decisions = summarised(set_aside), survey.root / DECISIONS
            linked = page.write(
                new / "report.html", title, shown, rules, card, detector.tile_px, config.page_mb, decisions
            )
        totals = _totals(page.totals, set_aside) | {"num_without_detail": linked}
        about = {
            "format": FORMAT,
            "title": title,
            "model_sha256": detector.sha256,
            "model": dict(detector.contract),
            "values": asdict(config),
            "totals": totals,
        }
        write_json(new / SUMMARY, about)
    run.metrics({f"inspect/{name}": float(value) for name, value in totals.items()})
    return folders, totals


def _summary(out: Path, totals: Mapping[str, Any]) -> dict[str, object]:
    summary: dict[str, object] = {
        "photos": f"{totals['crack']} with cracks, {totals['unsure']} unsure, {totals['no_crack']} without",
        "findings": f"{totals['num_findings']} to decide on in the report; {totals['num_cracks']} lines traced in all",
    }
    if totals["num_set_aside"]:
        summary["set aside"] = f"{totals['num_set_aside']}, see {out / 'set-aside.csv'}"
    if totals["num_other_files"]:
        summary["no photos"] = f"{totals['num_other_files']} other files and folders, listed there too"
    if totals["num_without_detail"]:
        summary["page"] = f"shows {totals['num_without_detail']} photos from the folder beside it"
    return summary | {"report": out / "report.html"}


def _totals(totals: Totals, set_aside: Sequence[Unusable]) -> dict[str, Any]:
    return {
        "num_photos": sum(totals.verdicts.values()),
        "num_set_aside": sum(not one.no_photo for one in set_aside),
        "num_other_files": sum(one.no_photo for one in set_aside),
        "crack": totals.verdicts["crack"],
        "unsure": totals.verdicts["unsure"],
        "no_crack": totals.verdicts["no crack"],
        "num_findings": totals.num_cracks + totals.num_blocks,
        "num_cracks": totals.num_lines,
        "length_px": round(totals.lines_px, 1),
    }
