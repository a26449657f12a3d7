"""What Tables 1 and 2 of the paper take on one GPU at full scale, from speeds measured there."""

import statistics
from collections.abc import Mapping

from benchmarks.budget import CRACKS, PRETRAINING

WORDS = """\
100 epochs of 48,000 images for student, teacher, fixed and dynamic temperature, each validated on 12,000; 10 epochs of
32,000 tiles for each of nine crack networks, validated on 8,000. All at 224 px. The teacher answers to a few views of
each image once, for both students. "Plain" is the faster plain loop; its validation is taken as fast as ours."""
KEPT_VIEWS = 4
SECTIONS = (
    "Distillation",
    "Training of resnet18 ",
    "Training of resnet50 ",
    "Training of resnet18_cbam ",
    "Training of alexnet ",
    "Training of vgg16 ",
    "Answering",
)

Rates = Mapping[str, Mapping[str, list[float]]]  # images per second of each round, by section and variant


def table(found: Rates) -> str:
    """Markdown: minutes of each training, the plain way and ours; nothing while the main speeds are missing."""
    distilled, student, teacher, cbam, alexnet, vgg16, asked = (
        next((rates for title, rates in found.items() if title.startswith(start)), {}) for start in SECTIONS
    )
    if not (distilled and student and teacher and asked):
        return ""
    rows = [
        ("Table 1: student", PRETRAINING, _plain(student), _ours(student)),
        ("Table 1: teacher", PRETRAINING, _plain(teacher), _ours(teacher)),
        (
            f"Table 1: the teacher's answers to {KEPT_VIEWS} views",
            KEPT_VIEWS * 48_000,
            0,
            _best(asked, "resnet50"),
        ),
        ("Table 1: fixed temperature", PRETRAINING, _plain(distilled), _ours(distilled)),
        ("Table 1: dynamic temperature", PRETRAINING, _plain(distilled), _ours(distilled)),
        (
            "Table 2: ResNet18 from scratch, pretrained, fixed, dynamic",
            4 * CRACKS,
            _plain(student),
            _ours(student),
        ),
        ("Table 2: ResNet50 from scratch, pretrained", 2 * CRACKS, _plain(teacher), _ours(teacher)),
        ("Table 2: ResNet18 with CBAM", CRACKS, _plain(cbam), _ours(cbam)),
        ("Table 2: AlexNet", CRACKS, _plain(alexnet), _ours(alexnet)),
        ("Table 2: VGG16", CRACKS, _plain(vgg16), _ours(vgg16)),
        ("validation, ResNet18 and its like", 300 * 12_000 + 70 * 8_000, *[_best(asked, "resnet18")] * 2),
        ("validation, ResNet50", 100 * 12_000 + 20 * 8_000, *[_best(asked, "resnet50")] * 2),
    ]
    lines = ["| training | images | plain, min | damcrack, min |", "| --- | --- | --- | --- |"]
    minutes = [[number / rate / 60 if rate else 0.0 for rate in rates] for _, number, *rates in rows]
    for (title, number, *_), pair in zip(rows, minutes, strict=True):
        lines.append(f"| {title} | {number:,} | " + " | ".join(_told(one) for one in pair) + " |")
    plain, ours = (sum(column) for column in zip(*minutes, strict=True))
    return "\n".join([*lines, f"| all that is measured | | {plain:.0f} | {ours:.1f} |"])


def _told(minutes: float) -> str:
    return f"{minutes:.1f}" if minutes else "-"


def _best(section: Mapping[str, list[float]], start: str) -> float:
    """The highest median rate of the variants whose names start so; 0 if there is none."""
    medians = [statistics.median(rates) for name, rates in section.items() if name.startswith(start)]
    return max(medians, default=0.0)


def _plain(section: Mapping[str, list[float]]) -> float:
    return _best(section, "plain")


def _ours(section: Mapping[str, list[float]]) -> float:
    return _best(section, "damcrack")
