"""`damcrack profile STAGE`: a training stage run for some steps, watched; nothing of it is kept but the record."""

import os
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from damcrack.edges.execute import check_inputs
from damcrack.edges.graph import Stage
from damcrack.edges.params import read_params, stage_config
from damcrack.edges.progress import Watcher
from damcrack.errors import InputError
from damcrack.outputs import new_directory, write_json


def profile(
    stage: Stage, params_path: Path, out: Path, item: str, inputs: dict[str, Path | None], num_steps: int
) -> None:
    """Write OUT/trace.json.gz and OUT/profile.json, and print where the time of a step goes.

    Raises:
        InputError: an input is missing, or the training is too short to be measured.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's library reports missing GPUs as errors
    from damcrack.engine.hardware import best_device
    from damcrack.engine.profiling import WARM_UP_STEPS, profiled_steps

    given = check_inputs(inputs)
    config = stage_config(read_params(params_path), stage.name, item)
    function = getattr(import_module(f"damcrack.stages.{stage.name}"), stage.name)
    with new_directory(out) as folder:
        watcher = Watcher()
        watcher.scratch = folder / "scratch"
        with profiled_steps(num_steps, best_device(), folder / "trace.json.gz") as found:
            # A training that ends before enough steps were seen would look at its validation instead.
            longer = replace(config, epochs=max(config.epochs, num_steps + 2 * WARM_UP_STEPS))
            function(**given, out=folder / "scratch" / "model", config=longer, item=item, run=watcher)
        if not found.num_steps:
            raise InputError(
                f"{stage.name}@{item} took no more than {WARM_UP_STEPS} steps; give it more images"
            )
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        record = _record(found, config)
        write_json(folder / "profile.json", record)
    _show(f"{stage.name}@{item}", record, out)


def _record(found: Any, config: Any) -> dict[str, Any]:
    import torch

    from damcrack.engine.hardware import best_device, uses_bfloat16
    from damcrack.engine.profiling import measured_peaks

    dtype = torch.bfloat16 if uses_bfloat16(config.precision) else torch.float32
    peaks = measured_peaks(best_device(), dtype)
    bound_s = peaks.bound_s(found.flops_per_step, found.bytes_per_step)
    parts = {name: seconds / found.num_steps for name, seconds in found.part_s.items()}
    return {
        "device": str(best_device()),
        "precision": str(dtype).removeprefix("torch."),
        "steps": found.num_steps,
        "batch_size": config.batch_size,
        "images_per_s": config.batch_size / found.step_s,
        "seconds_per_step": found.step_s,
        "parts_s": parts,
        "flops_per_step": found.flops_per_step,
        "bytes_per_step": found.bytes_per_step,
        "peak_flops_per_s": peaks.flops_per_s,
        "peak_bytes_per_s": peaks.bytes_per_s,
        "bound_s": bound_s,
        "share_of_bound": bound_s / found.step_s,
    }


def _show(name: str, record: dict[str, Any], out: Path) -> None:
    step_s = record["seconds_per_step"]
    table = Table(title=f"{name}: one step of {record['batch_size']} images", title_justify="left")
    for column in ("part", "ms", "share"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part, seconds in record["parts_s"].items():
        table.add_row(part, f"{1000 * seconds:.1f}", f"{seconds / step_s:.1%}")
    table.add_row("step", f"{1000 * step_s:.1f}", "100.0%", style="bold")
    console = Console()
    console.print(table)
    gflop, gib = record["flops_per_step"] / 1e9, record["bytes_per_step"] / 2**30
    rates = (
        f"{record['peak_flops_per_s'] / 1e12:.2f} Tflop/s and {record['peak_bytes_per_s'] / 2**30:.1f} GiB/s"
    )
    for title, text in {
        "speed": f"{record['images_per_s']:.1f} images/s over {record['steps']} steps ({record['precision']})",
        "work": f"{gflop:.0f} Gflop and {gib:.2f} GiB moved a step; measured peaks {rates}",
        "bound": f"{1000 * record['bound_s']:.1f} ms a step at those peaks: {record['share_of_bound']:.0%} reached",
        "trace": f"{out / 'trace.json.gz'} (open in chrome://tracing or ui.perfetto.dev)",
    }.items():
        console.print(f"{title:<8}{text}", highlight=False, soft_wrap=True)
