"""Small surveys of drawn walls for tests, by the detector that needs no training."""

import numpy as np
from PIL import Image

from damcrack.cracks.findings import Findings
from damcrack.files import write_json
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.decisions import Decision, as_json
from damcrack.inspection.inspect import inspect_photos
from damcrack.inspection.matching import asked
from damcrack.inspection.survey_folder import FinishedSurvey
from damcrack.run import Run
from damcrack.storage.source import open_source
from walls import concrete, coverage, line, photo, rgb, write_darkness_detector


def cracked(size, *cracks, seed=0, **how):
    """A wall (H, W) with straight cracks (x, y, angle, length, width)."""
    covers = [
        coverage(size, line(np.array([x, y], float), angle, length), width)
        for x, y, angle, length, width in cracks
    ]
    return photo(concrete(size, seed=seed, pores=False), *covers, **how)


def save(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb(grey)).save(path, quality=95)


def inspect(root, name="out", config=None, photos="in", **model):
    """Inspect ROOT/in into ROOT/NAME; returns the survey's folder."""
    onnx = write_darkness_detector(root / f"{name}.onnx", **model)
    inspect_photos([str(root / photos)], onnx, root / name, config or InspectConfig(), open_source, Run())
    return root / name


def all_findings(survey):
    """Each finding of a survey with its photo's findings."""
    return [
        (known, one)
        for folder in FinishedSurvey.read(survey).folders.values()
        for known in [Findings.read(folder)]
        for one in asked(known)[0]
    ]


def decide(known, finding, status, **values):
    """A decision on a finding as the page makes it."""
    return Decision(
        known.photo, known.sha256, finding.kind, finding.box_xyxy, finding.lines, status, **values
    )


def write_decisions(path, decisions):
    write_json(path, as_json(decisions))
    return path
