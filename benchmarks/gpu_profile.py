"""Operations and bytes of a training step on a GPU, its bound by the measured peaks, and what its kernels do."""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Variant
from benchmarks.steps import Size, Way, stepping
from damcrack.engine.profiling import PARTS, CountedBytes, measured_peaks

# What a kernel is for, by its name; the first that fits.
KINDS = {
    "fused by the compiler (batch norm, ReLU, sum, views, pooling)": r"^triton_",
    "convolutions and matrix products": r"conv|xmma|implicit|cutlass|wgrad|dgrad|fprop|gemm|nvjet|sm90|sm80",
    "batch norm": r"batch_norm|bn_|batchnorm",
    "optimiser": r"multi_tensor|[Ff]used[Ss]gd",
    "pooling": r"pool",
    "layout changes": r"nchw|nhwc|transpose",
    "copies": r"^Mem",
}
WAYS = {
    "training, eager": Way("bfloat16"),
    "training, compiled": Way("bfloat16", compiled=True),
    "distillation, eager": Way("bfloat16", taught=True),
    "distillation, compiled": Way("bfloat16", taught=True, compiled=True),
}


def bound_table(root: Path, size: Size) -> str:
    """Markdown: the bound of a step beside what it takes, and its time by kind of kernel."""
    peaks = measured_peaks(size.device, torch.bfloat16)
    lines = [
        f"Measured peaks: {peaks.flops_per_s / 1e12:.0f} Tflop/s (bfloat16 matrix product of 8192 squared), "
        f"{peaks.bytes_per_s / 1e9:.0f} GB/s (copy, bytes read and written). Operations and bytes are those of the "
        "step as it is written, each operation reading and writing its tensors once; what is fused moves less.",
        "",
        "| step | Gflop an image | MB an image | us at peak rate | us at peak bandwidth | us measured | GPU busy |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    shares = {}
    for name, way in WAYS.items():
        flops, num_bytes = counted(root, size, replace(way, compiled=False))
        image_s, busy_s, shares[name] = watched(stepping(root, size, way))
        lines.append(
            f"| {name} | {flops / 1e9:.1f} | {num_bytes / 1e6:.0f} | {1e6 * flops / peaks.flops_per_s:.1f} "
            f"| {1e6 * num_bytes / peaks.bytes_per_s:.1f} | {1e6 * image_s:.1f} | {busy_s / image_s:.0%} |"
        )
    kinds = [*KINDS, "element by element, sums"]
    lines += [
        "",
        "| us an image, by kind of kernel | " + " | ".join(WAYS) + " |",
        "| --- |" + " --- |" * len(WAYS),
    ]
    for kind in kinds:
        lines.append(
            f"| {kind} | " + " | ".join(f"{1e6 * shares[name].get(kind, 0):.1f}" for name in WAYS) + " |"
        )
    return "\n".join(lines)


def counted(root: Path, size: Size, way: Way) -> tuple[float, float]:
    """Operations and bytes an image."""
    portion = stepping(root, replace(size, steps=1), way)
    portion()
    with FlopCounterMode(display=False) as flops, CountedBytes() as moved:
        num_images = portion()
    return flops.get_total_flops() / num_images, moved.total / num_images


def watched(portion: Variant) -> tuple[float, float, dict[str, float]]:
    """Seconds an image by the clock, of the GPU's work, and of that by kind of kernel."""
    portion()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    num_images = portion()
    end.record()
    torch.cuda.synchronize()
    image_s = start.elapsed_time(end) / 1e3 / num_images
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watcher:
        portion()
    seconds: dict[str, float] = defaultdict(float)
    events = [one for one in watcher.key_averages() if one.key not in PARTS]
    kernels = [one for one in events if one.device_type == torch.autograd.DeviceType.CUDA]
    for one in kernels:
        seconds[kind_of(one.key)] += one.self_device_time_total / 1e6 / num_images
    longest = sorted(kernels, key=lambda one: -one.self_device_time_total)[:14]
    for one in longest:
        print(f"    {one.self_device_time_total / num_images:6.2f} us  {one.count:5d}x  {one.key[:110]}")
    return image_s, sum(seconds.values()), dict(seconds)


def kind_of(kernel: str) -> str:
    """What a kernel is for."""
    return next(
        (kind for kind, pattern in KINDS.items() if re.search(pattern, kernel)), "element by element, sums"
    )
