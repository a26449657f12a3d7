"""What the paper's training takes at full scale, computed from speeds measured here at 224 px.

    python -m benchmarks.budget

Tables 1 and 2 of the paper: 100 epochs of 48,000 images for student, teacher, fixed and dynamic temperature; 10 epochs
of 32,000 tiles for each crack network (ResNet18 from scratch, pretrained and distilled, ResNet50 from scratch and
pretrained). CBAM, AlexNet, VGG16 and validation passes are left out.
"""

from benchmarks.harness import Timing
from benchmarks.steps import Sections, measure

PRETRAINING, CRACKS = 100 * 48_000, 10 * 32_000


def rates(timings: list[Timing]) -> tuple[float, float]:
    """Images per second of the plain loop, and of the fastest variant."""
    return timings[0].median, max(timing.median for timing in timings[1:])


def table(sections: Sections) -> str:
    """Markdown: hours of each training, the plain way and ours."""
    student, teacher, distilled = (
        next(timings for title, timings in sections.items() if title.startswith(start))
        for start in ("Training of resnet18", "Training of resnet50", "Distillation")
    )
    live, stored = (distilled[0].median, distilled[-2].median), (distilled[0].median, distilled[-1].median)
    rows = [
        ("Table 1: student", PRETRAINING, rates(student)),
        ("Table 1: teacher", PRETRAINING, rates(teacher)),
        ("Table 1: fixed temperature", PRETRAINING, live),
        ("Table 1: dynamic temperature, its soft targets stored", PRETRAINING, stored),
        ("Table 2: ResNet18, three starts", 3 * CRACKS, rates(student)),
        ("Table 2: ResNet50, two starts", 2 * CRACKS, rates(teacher)),
    ]
    lines = ["| training | images | plain loop, h | damcrack, h |", "| --- | --- | --- | --- |"]
    hours = [[number / rate / 3600 for rate in both] for _, number, both in rows]
    for (title, number, _), (plain, ours) in zip(rows, hours, strict=True):
        lines.append(f"| {title} | {number:,} | {plain:.1f} | {ours:.1f} |")
    plain, ours = (sum(column) for column in zip(*hours, strict=True))
    lines.append(f"| all | {sum(row[1] for row in rows):,} | {plain:.1f} | {ours:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure()))
