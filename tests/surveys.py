"""Small surveys of drawn walls for tests, by the detector that needs no training."""

import cv2
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

CAPE = {1: "S", 2: (33.0, 51.0, 54.54), 3: "E", 4: (18.0, 25.0, 26.4)}  # GPS of 18.424, -33.86515


class Transcript(Run):
    """Keeps the lines that were said."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def cracked(size, *cracks, seed=0, **how):
    """A wall (H, W) with straight cracks (x, y, angle, length, width)."""
    covers = [
        coverage(size, line(np.array([x, y], float), angle, length), width)
        for x, y, angle, length, width in cracks
    ]
    return photo(concrete(size, seed=seed, pores=False), *covers, **how)


def save(path, pixels, tags=None, camera=None, gps=None):
    """Save a photo, grey (H, W) or RGB (H, W, 3), with EXIF tags of its first part, its camera and its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif.update(tags or {})
    exif.get_ifd(0x8769).update(camera or {})
    exif.get_ifd(0x8825).update(gps or {})
    image = Image.fromarray(rgb(pixels) if pixels.ndim == 2 else pixels)
    image.save(path, quality=95, exif=exif.tobytes() if tags or camera or gps else b"")


def write_video(path, greys, rate=10):
    """Write grey frames (H, W) as an MP4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, greys[0].shape[::-1])
    for grey in greys:
        writer.write(rgb(grey))
    writer.release()


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
