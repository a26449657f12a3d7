"""What a run takes of its machine, sampled beside it: MLflow shows it under "System metrics".

Read from /proc, so that a bare machine needs no library for it; elsewhere than on Linux there is nothing to see.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

FIRST_PAUSE_S = 10.0
# A run of a hundred hours leaves about 1,200 samples, not 36,000.
SAMPLES_UNTHINNED = 200
MIB = 1024 * 1024

Report = Callable[[Mapping[str, float], int], None]


class SystemMetrics:
    """A thread that reports processor, memory and GPU of this process until `stop`, the last time there."""

    def __init__(self, report: Report, first_sample: int = 0) -> None:
        self._report = report
        self._sample = first_sample
        self._over = threading.Event()
        self._started_s = time.monotonic()
        self._busy = (self._started_s, time.process_time())
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Report once more and end."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        last = False
        while not last:
            age_s = time.monotonic() - self._started_s
            last = self._over.wait(max(FIRST_PAUSE_S, age_s / SAMPLES_UNTHINNED))
            self._sample += 1
            self._report(self._values(), self._sample)

    def _values(self) -> dict[str, float]:
        now, used = time.monotonic(), time.process_time()
        share = (used - self._busy[1]) / max(now - self._busy[0], 1e-3)
        self._busy = (now, used)
        values = {"system/process_cpu_cores": share, **_memory(), **_gpu()}
        return values | {"system/machine_load_per_core": os.getloadavg()[0] / (os.cpu_count() or 1)}


def _memory() -> dict[str, float]:
    """Memory of the process now and at most so far, and what the machine has left."""
    names = {
        "VmRSS": "process_memory_megabytes",
        "VmHWM": "process_memory_peak_megabytes",
        "MemAvailable": "machine_memory_available_megabytes",
    }
    values = {}
    for path in (Path("/proc/self/status"), Path("/proc/meminfo")):
        for line in path.read_text().splitlines() if path.is_file() else ():
            name, _, rest = line.partition(":")
            if name in names:
                values[f"system/{names[name]}"] = int(rest.split()[0]) / 1024
    return values


def _gpu() -> dict[str, float]:
    """Memory of the GPU that torch holds, where the stage has brought torch and the GPU into use."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    held, peak = torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved()
    return {"system/gpu_memory_megabytes": held / MIB, "system/gpu_memory_peak_megabytes": peak / MIB}
