"""Where the time of a training step goes, and how far from the machine's bound it is.

The loop is watched through the hook that torch calls after every optimiser step, so it knows nothing of this.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

PARTS = ("data", "forward teacher", "forward student", "backward", "optimiser", "validation")
WARM_UP_STEPS = 4


@dataclass
class StepProfile:
    """What was measured; `part_s` are seconds of all steps, and sum with "other" to `wall_s`."""

    num_steps: int = 0
    wall_s: float = 0.0
    part_s: dict[str, float] = field(default_factory=dict)
    flops_per_step: float = 0.0
    bytes_per_step: float = 0.0

    @property
    def step_s(self) -> float:
        """Seconds of one step."""
        return self.wall_s / self.num_steps


@dataclass(frozen=True)
class Peaks:
    """What the device reaches when it does nothing else: operations and bytes per second."""

    flops_per_s: float
    bytes_per_s: float

    def bound_s(self, flops: float, num_bytes: float) -> float:
        """Seconds that so much work takes at least: the longer of computing and moving."""
        return max(flops / self.flops_per_s, num_bytes / self.bytes_per_s)


class _Enough(Exception):  # noqa: N818 - ends the watched training, is no error
    pass


@contextmanager
def profiled_steps(num_steps: int, device: torch.device, trace: Path) -> Iterator[StepProfile]:
    """Watch the training inside: some steps to warm up, one to count, `num_steps` to time; then end it.

    Writes `trace` (Chrome's trace format, gzip). A training that is shorter is watched to its end.
    """
    found, watcher = StepProfile(), _Watcher(num_steps, device)
    handle = register_optimizer_step_post_hook(lambda *_: watcher.step())
    try:
        with suppress(_Enough):
            yield found
    finally:
        handle.remove()
        watcher.finish(found, trace)


class _Watcher:
    def __init__(self, num_steps: int, device: torch.device) -> None:
        self._num_steps, self._device = num_steps, device
        self._seen, self._timed, self._started, self._wall_s = 0, 0, 0.0, 0.0
        self._flops, self._bytes = FlopCounterMode(display=False), CountedBytes()
        self._counting = ExitStack()
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        self._profiler = profile(activities=activities)

    def step(self) -> None:
        """Called at the end of every step."""
        self._seen += 1
        if self._seen == WARM_UP_STEPS:
            self._counting.enter_context(self._flops)
            self._counting.enter_context(self._bytes)
        elif self._seen == WARM_UP_STEPS + 1:
            self._counting.close()
            self._profiler.start()
            self._started = self._now()
        elif self._seen > WARM_UP_STEPS + 1:
            self._timed += 1
            if self._timed == self._num_steps:
                self._stop()
                raise _Enough

    def finish(self, found: StepProfile, trace: Path) -> None:
        """Put what was seen into `found`."""
        self._counting.close()
        if not self._timed:
            return
        if not self._wall_s:
            self._stop()
        self._profiler.export_chrome_trace(str(trace))
        found.num_steps, found.wall_s = self._timed, self._wall_s
        found.part_s = _parts(self._profiler, self._device, self._wall_s)
        found.flops_per_step = self._flops.get_total_flops()
        found.bytes_per_step = self._bytes.total

    def _stop(self) -> None:
        self._wall_s = self._now() - self._started
        self._profiler.stop()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _parts(profiler: Any, device: torch.device, wall_s: float) -> dict[str, float]:
    """Seconds by part. On a GPU they are seconds of its own: backward is what no other part launched, other is idle."""
    events = {event.key: event for event in profiler.key_averages()}
    on_gpu = device.type == "cuda"
    clock = "device_time_total" if on_gpu else "cpu_time_total"
    seconds = {name: getattr(events[name], clock) / 1e6 for name in PARTS if name in events}
    if on_gpu:
        busy_s = (
            sum(event.self_device_time_total for event in events.values() if event.key not in PARTS) / 1e6
        )
        seconds["backward"] = busy_s - sum(value for name, value in seconds.items() if name != "backward")
    return seconds | {"other": wall_s - sum(seconds.values())}


class CountedBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes that each operation reads and writes, as if nothing stayed in a cache between two."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count, unless it only makes another view of its input."""
        result = func(*args, **(kwargs or {}))
        read, written = _tensors((args, kwargs)), _tensors(result)
        known = {tensor.untyped_storage()._cdata for tensor in read}
        is_view = not func._schema.is_mutable and all(t.untyped_storage()._cdata in known for t in written)
        if not is_view:
            self.total += sum(tensor.nbytes for tensor in [*read, *written])
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def measured_peaks(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> Peaks:
    """Best rate of a large matrix product in `dtype`, and of a large copy, of `rounds` each."""
    side, num_bytes = (8192, 2**30) if device.type == "cuda" else (2048, 2**28)
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Peaks(
        flops_per_s=2 * side**3 / _fastest(lambda: one @ other, device, rounds),
        bytes_per_s=2 * num_bytes / _fastest(lambda: target.copy_(source), device, rounds),
    )


def _fastest(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):  # the first warms up
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
