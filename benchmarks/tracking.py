"""What it costs a training to be recorded by a distant MLflow server with accounts.

    MLFLOW_TRACKING_URI=... MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=... python -m benchmarks.tracking

The same training (stage `pretrain`, ResNet18, images of the built-in sample) runs unrecorded, recorded for later
(DAMCRACK_TRACK=later: the graph's way) and recorded live, in turn. "In calls" is the time that the training process
spent in opening the run, in its calls, and in waiting for the last thing to arrive; "sender" is processor time of the
process beside it, most of it to import MLflow. Each epoch is 11 numbers.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from damcrack.data.miniimagenet import miniimagenet
from damcrack.data.snapshot import snapshot
from damcrack.params import read_params, stage_config
from damcrack.run import Run, SilentRun
from damcrack.storage.source import open_source
from damcrack.tracking.recorded import start_run
from damcrack.train.pretrain import pretrain

MODES = ("unrecorded", "later", "live")
LIMIT = 0.02


class Clock:
    """Adds up the time spent in some calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


class ClockedRun:
    """A run whose calls are timed."""

    def __init__(self, run: Any, clock: Clock) -> None:
        self._run, self._clock, self.scratch = run, clock, run.scratch

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Any] = getattr(self._run, name)

        def timed(*given: Any, **named: Any) -> Any:
            with self._clock.running():
                return call(*given, **named)

        return call if name == "track" else timed


@dataclass(frozen=True)
class Cost:
    """Seconds of one training: on the clock, of its processor, in the run's calls, and of the sender's processor."""

    wall: float
    processor: float
    calls: float
    sender: float


def train_once(mode: str, images: Path, config: Any) -> Cost:
    """Train, recorded as `mode` says."""
    clock, sent_before = Clock(), resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, processor = time.perf_counter(), time.process_time()
    if mode == "unrecorded":
        pretrain(images, Path("model"), "resnet18", config, SilentRun())
    else:
        os.environ["DAMCRACK_TRACK"] = mode
        with clock.running():
            run = start_run("pretrain", "resnet18", {"epochs": config.epochs}, {})
        with run:
            recorded: Run = ClockedRun(run, clock)  # type: ignore[assignment]
            pretrain(images, Path("model"), "resnet18", config, recorded)
            ended = time.perf_counter()
        clock.seconds += time.perf_counter() - ended
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    sent = resource.getrusage(resource.RUSAGE_CHILDREN)
    sender = sent.ru_utime + sent.ru_stime - sent_before.ru_utime - sent_before.ru_stime
    return Cost(wall, processor, clock.seconds, sender)


def table(costs: Mapping[str, list[Cost]]) -> str:
    """Markdown, medians over the rounds."""
    lines = [
        "| training | on the clock, s | its processor, s | in calls, s | in calls, share | sender's processor, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for mode, found in costs.items():
        middle = {name: statistics.median(getattr(cost, name) for cost in found) for name in vars(found[0])}
        share = statistics.median(cost.calls / cost.wall for cost in found)
        lines.append(
            f"| {mode} | {middle['wall']:.1f} | {middle['processor']:.1f} | {middle['calls']:.2f} | {share:.2%} "
            f"| {middle['sender']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table; fail if recording costs more than LIMIT of a training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    options = parser.parse_args()
    params = read_params(Path("params.yaml"))
    config = replace(stage_config(params, "pretrain", "resnet18"), epochs=options.epochs)
    image_config = stage_config(params, "miniimagenet", None)
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", "benchmark")
    costs: dict[str, list[Cost]] = {mode: [] for mode in options.modes}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        snapshot({"miniimagenet": "sample"}, Path("names.csv"), open_source, SilentRun())
        miniimagenet(Path("names.csv"), Path("images"), image_config, open_source, SilentRun())
        train_once("unrecorded", Path("images"), replace(config, epochs=2))  # decodes, and warms up
        for _ in range(options.rounds):
            for mode in options.modes:
                costs[mode].append(train_once(mode, Path("images"), config))
    print(table(costs))
    for mode, found in costs.items():
        share = statistics.median(cost.calls / cost.wall for cost in found)
        assert share < LIMIT, f"{mode}: recording took {share:.2%} of the training, the limit is {LIMIT:.0%}"


if __name__ == "__main__":
    main()
