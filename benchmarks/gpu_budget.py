"""What Tables 1 and 2 of the paper take on one GPU at full scale, from speeds measured there."""

import statistics
from collections.abc import Mapping

WORDS = """\
100 epochs of 48,000 images for student, teacher, fixed and dynamic temperature, each validated on 12,000; 10 epochs of
32,000 tiles for each of nine crack networks, validated on 8,000. All at 224 px. The teacher answers to a few views of
each image once, for both students. "Plain" is the faster plain loop; its validation is taken as fast as ours."""
PRETRAINING, CRACKS = 100 * 48_000, 10 * 32_000
KEPT_VIEWS = 4

Rates = Mapping[str, Mapping[str, list[float]]]  # images per second of each round, by section and variant


def table(found: Rates) -> str:
    """Markdown: minutes of each training, the plain way and ours; nothing while a speed is missing."""
    ways = (
        "Distillation",
        *(f"Training of {name} " for name in ("resnet18", "resnet50", "resnet18_cbam", "alexnet", "vgg16")),
    )
    titles = [next((title for title in found if title.startswith(way)), None) for way in (*ways, "Answering")]
    if None in titles:
        return ""
    distilled, student, teacher, cbam, alexnet, vgg16, asked = (found[str(title)] for title in titles)
    rows = [
        ("Table 1: student", PRETRAINING, _plain(student), _ours(student)),
        ("Table 1: teacher", PRETRAINING, _plain(teacher), _ours(teacher)),
        (
            f"Table 1: the teacher's answers to {KEPT_VIEWS} views",
            KEPT_VIEWS * 48_000,
            None,
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
        *(
            (f"Table 2: {name}", CRACKS, _plain(one), _ours(one))
            for name, one in (("ResNet18 with CBAM", cbam), ("AlexNet", alexnet), ("VGG16", vgg16))
        ),
        (
            "validation, ResNet18 and its like",
            3 * 100 * 12_000 + 7 * 10 * 8_000,
            *[_best(asked, "resnet18")] * 2,
        ),
        ("validation, ResNet50", 100 * 12_000 + 2 * 10 * 8_000, *[_best(asked, "resnet50")] * 2),
    ]
    lines = ["| training | images | plain, min | damcrack, min |", "| --- | --- | --- | --- |"]
    minutes = [[number / rate / 60 if rate else 0.0 for rate in rates] for _, number, *rates in rows]
    for (title, number, *_), (plain, ours) in zip(rows, minutes, strict=True):
        lines.append(f"| {title} | {number:,} | {plain:.1f} | {ours:.1f} |")
    plain, ours = (sum(column) for column in zip(*minutes, strict=True))
    return "\n".join([*lines, f"| all | | {plain:.0f} | {ours:.1f} |"])


def _best(section: Mapping[str, list[float]], start: str) -> float:
    """The highest median rate of the variants whose names start so."""
    return max(statistics.median(rates) for name, rates in section.items() if name.startswith(start))


def _plain(section: Mapping[str, list[float]]) -> float:
    return _best(section, "plain")


def _ours(section: Mapping[str, list[float]]) -> float:
    return _best(section, "damcrack")
