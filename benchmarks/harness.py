"""Times variants in turn in one process (A B A B ...), because machines drift."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Variant = Callable[[], int]  # does one portion of work, returns how many images that was


@dataclass(frozen=True)
class Timing:
    """Rates of one variant, one per round, in images per second."""

    name: str
    rates: list[float]

    @property
    def median(self) -> float:
        """Median rate."""
        return statistics.median(self.rates)


def compare(variants: dict[str, Variant], rounds: int) -> list[Timing]:
    """Run each variant once to warm up, then `rounds` times in turn; the first variant is the reference."""
    for variant in variants.values():
        variant()
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            started = time.perf_counter()
            num_images = variant()
            rates[name].append(num_images / (time.perf_counter() - started))
    return [Timing(name, values) for name, values in rates.items()]


def as_table(timings: list[Timing]) -> str:
    """Markdown: median rate with its range, and the median of the ratios to the first variant."""
    reference = timings[0]
    lines = [
        "| variant | images/s, median (min to max) | times the first row, median (min to max) |",
        "| --- | --- | --- |",
    ]
    for timing in timings:
        ratios = [rate / plain for rate, plain in zip(timing.rates, reference.rates, strict=True)]
        lines.append(
            f"| {timing.name} | {_rate(timing.median)} ({_rate(min(timing.rates))} to {_rate(max(timing.rates))}) "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:,.0f}" if images_per_s >= 100 else f"{images_per_s:.3g}"
