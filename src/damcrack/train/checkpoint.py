"""Interrupted training resumes from its last finished epoch.

A checkpoint lies outside the outputs, in a safetensors file named by the hash of all inputs: network, temperature, the
optimiser's state, best weights; and as metadata best epoch and history.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from damcrack.files import one_at_a_time
from damcrack.train.weights import save_tensors, snapshot_of


@dataclass
class Progress:
    """What has been trained so far."""

    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    def add(self, row: dict[str, float], network: nn.Module) -> None:
        """Take in a finished epoch; keep its weights if it is the best yet."""
        self.history.append(row)
        if self.best_epoch == 0 or _quality(row) > _quality(self.history[self.best_epoch - 1]):
            self.best_epoch, self.best = self.epoch, snapshot_of(network)


def _quality(row: dict[str, float]) -> tuple[float, float]:
    """Highest validation accuracy, or F1 of the pixels where there is a pixel head; then lowest loss."""
    return row.get("val_pixel_f1", row["val_accuracy"]), -row["val_loss"]


class Checkpoint:
    """Keeps the state in a file, at most every `interval_s` seconds."""

    def __init__(self, path: Path, interval_s: float = 20.0) -> None:
        self.path = path
        self.interval_s = interval_s
        self._saved_at = time.monotonic()

    def restore(self, parts: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> Progress:
        """Load the last state into the parts and the optimiser; an empty progress if there is none."""
        try:
            with safe_open(self.path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
                state = json.loads(file.metadata()["progress"])
            progress = Progress(state["history"], _under(tensors, "best"), state["best_epoch"])
        # What cannot be read is no checkpoint.
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return Progress()
        for name, part in parts.items():
            part.load_state_dict(_under(tensors, name))
        _restore_state(optimiser, _under(tensors, "optimiser"))
        return progress

    def save(self, parts: dict[str, nn.Module], optimiser: torch.optim.Optimizer, progress: Progress) -> None:
        """Keep the state after a finished epoch."""
        if time.monotonic() - self._saved_at < self.interval_s:
            return
        groups = {name: snapshot_of(part) for name, part in parts.items()}
        groups |= {"optimiser": _state_of(optimiser), "best": progress.best}
        flat = {f"{group}/{name}": value for group, part in groups.items() for name, value in part.items()}
        state = {"best_epoch": progress.best_epoch, "history": progress.history}
        with one_at_a_time(self.path):
            save_tensors(self.path, flat, {"progress": json.dumps(state)})
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Forget the state, once the outputs are in their place."""
        self.path.unlink(missing_ok=True)


def _under(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    prefix = f"{group}/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _state_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers of each weight: momentum of SGD, both moments and the step of AdamW."""
    state = optimiser.state_dict()["state"]
    return {f"{index}/{name}": value for index, values in state.items() for name, value in values.items()}


def _restore_state(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Each in the memory layout of its weights: the fused optimiser reads both side by side, without looking."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state = optimiser.state_dict()
    state["state"] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        like = weights[int(index)]
        placed = torch.empty_like(like).copy_(value) if value.shape == like.shape else value.to(like.device)
        state["state"].setdefault(int(index), {})[name] = placed
    optimiser.load_state_dict(state)
