"""What this machine allows: device, precision, compilation, where the pixels stay; and one line that says so."""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import torch
from torch import nn

from damcrack.train.config import Compile, Precision

P = ParamSpec("P")
R = TypeVar("R")

# Compiling a ResNet50 took 68 and 113 s on an H100's machine, and a step of 200 images is then 16 ms shorter, a
# ResNet18's 5 ms (docs/LOG.md): with fewer steps than this it is not won back.
STEPS_WORTH_COMPILING = 7000
# Names and values of mallopt(3): no mapping of single blocks, no trimming, growth by 256 MiB.
GLIBC_KEEPS = ((-4, 0), (-1, 2**31 - 1), (-2, 2**28))
# Share of the GPU's free memory that the pixels may take; the rest is for the networks.
PIXELS_SHARE = 0.5


@dataclass(frozen=True)
class Plan:
    """How a training runs here. `resident`: all pixels on the device."""

    device: torch.device
    bfloat16: bool
    compiled: bool
    resident: bool
    words: str


def plan(
    precision: Precision, compile: Compile, num_bytes: int, num_steps: int, network: nn.Module | None = None
) -> Plan:
    """Choose the best way for a set of `num_bytes` of pixels and so many steps; `words` is one line for the user."""
    device = best_device()
    bfloat16 = uses_bfloat16(precision, network)
    # On the CPU the array is mapped: pages come and go.
    resident = device.type != "cuda" or num_bytes <= PIXELS_SHARE * torch.cuda.mem_get_info(device)[0]
    compiled, why_not = _compiles(device, compile, num_steps)
    words = [_device_words(device), "bfloat16" if bfloat16 else f"float32{_why_float32(precision, network)}"]
    words += ["compiled"] if compiled else ([why_not] if why_not else [])
    if not resident:
        words.append(
            f"{num_bytes / 2**30:.1f} GiB of pixels do not fit on the GPU: fetched ahead of each step"
        )
    return Plan(device, bfloat16, compiled, resident, "runs on " + ", ".join(words))


def set_up(here: Plan) -> None:
    """Let the GPU's libraries try their algorithms once for each shape, and round only where bfloat16 may."""
    if here.device.type == "cpu":
        _keep_memory()
    if here.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = here.bfloat16  # TF32 has bfloat16's range and ten bits: not float32


def _keep_memory() -> None:
    """Let glibc keep freed memory: giving each step's large tensors back to the system costs a third of a step."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "mallopt"):
        for setting, value in GLIBC_KEEPS:
            libc.mallopt(setting, value)


def best_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def uses_bfloat16(precision: Precision, network: nn.Module | None = None) -> bool:
    """Whether the forward passes run in bfloat16: on request, or with `auto` where the hardware is faster with it."""
    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions mkldnn emulates bfloat16, slower than float32.
    capabilities = torch.cpu.get_capabilities()
    has_it = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return has_it and not _is_depthwise(network)


def _is_depthwise(network: nn.Module | None) -> bool:
    """Whether it has depthwise convolutions: on CPUs these are slow in bfloat16 (docs/speed.md)."""
    layers = () if network is None else network.modules()
    return any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in layers)


def _compiles(device: torch.device, compile: Compile, num_steps: int) -> tuple[bool, str]:
    """Whether to compile the student, and else a reason worth telling."""
    pays = device.type != "cpu" and num_steps >= STEPS_WORTH_COMPILING  # on CPUs it did not, see docs/LOG.md
    if compile == "off" or (compile == "auto" and not pays):
        return False, ""
    names = (os.environ.get("CXX"), "g++", "clang++") if device.type == "cpu" else ("cc", "gcc", "clang")
    if not any(name and shutil.which(name) for name in names):
        return False, "not compiled (no C++ compiler found)"
    if device.type == "cuda" and find_spec("triton") is None:
        return False, "not compiled (no triton found)"
    return True, ""


def compiled(function: Callable[P, R], device: torch.device, graphs: bool = True) -> Callable[P, R]:
    """A network's or function's compiled form; what cannot be compiled runs as it is.

    On a GPU with `graphs` as CUDA graphs: an answer is then overwritten by the next. Each size of batch is
    compiled for itself: an epoch has two at most, and code for any size is slower.
    """
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = 64  # networks of one process share the code that is compiled
    mode = "reduce-overhead" if graphs and device.type == "cuda" else "default"
    return torch.compile(function, dynamic=False, mode=mode)


def _device_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} CPU core{'s' if threads > 1 else ''} (no GPU)"


def _why_float32(precision: Precision, network: nn.Module | None) -> str:
    if precision != "auto":
        return ""
    if uses_bfloat16("auto"):
        return " (faster here for depthwise convolutions)"
    return " (no bfloat16 instructions here)"
