"""Training with one process and with two that share every batch, one thread each, in turn on this machine.

    python -m benchmarks.processes              # ResNet18 at 64 px, batches of 64, float32, gloo
    python -m benchmarks.processes --rounds 3

Two processes do the same steps as one; the ratio is what a second core is worth, less the talking: gradients
(45 MB for a ResNet18) and batch statistics. It needs two cores that nobody else uses; on shared ones it is a
lower bound.
"""

import argparse
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import torch

from benchmarks.harness import Variant, as_table, compare
from benchmarks.steps import CONFIG, STATISTICS
from damcrack.engine.augment import Augmentation
from damcrack.engine.batches import DeviceImages
from damcrack.engine.checkpoint import NoCheckpoint
from damcrack.engine.decoded import DecodedSet
from damcrack.engine.networks import build_network
from damcrack.engine.objectives import Supervised
from damcrack.engine.processes import joined
from damcrack.engine.training import train

NUM_TRAIN, NUM_VAL, IMAGE_PX = 256, 8, 64
SETTINGS = replace(CONFIG, epochs=1, batch_size=64, precision="float32")


def work() -> None:
    """Train one epoch for every line that comes in, and answer when it is done."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (NUM_TRAIN + NUM_VAL, IMAGE_PX, IMAGE_PX, 3), np.uint8)
    rows = np.arange(len(pixels))
    rows_of = {"train": rows[:NUM_TRAIN], "val": rows[NUM_TRAIN:]}
    decoded = DecodedSet(pixels, rows % 2, rows_of, ("no crack", "crack"), "noise")
    images = DeviceImages(decoded, STATISTICS, Augmentation("dihedral", 0, 0), torch.device("cpu"))
    with joined():
        for _ in sys.stdin:
            network = build_network("resnet18", 2, 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            train(network, Supervised(), images, SETTINGS, NoCheckpoint(), lambda row: None)
            print("done", flush=True)


def workers(num: int) -> list[subprocess.Popen[str]]:
    """Processes that wait for work, joined if there are several."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.processes", "--work"]
    return [
        subprocess.Popen(
            command,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(num)
    ]


def epoch_of(processes: list[subprocess.Popen[str]]) -> Variant:
    """One epoch by these processes; the others rest meanwhile."""

    def portion() -> int:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n", "a process failed"
        return NUM_TRAIN

    return portion


def main(rounds: int) -> str:
    """The table of both, after the machine's state."""
    one, two = workers(1), workers(2)
    try:
        load = os.getloadavg()[0]
        timings = compare({"one process": epoch_of(one), "two processes": epoch_of(two)}, rounds)
    finally:
        for process in (*one, *two):
            process.communicate()
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, load {load:.1f} before (of others), ResNet18 at {IMAGE_PX} px.\n\n{as_table(timings)}"


if __name__ == "__main__":
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
    else:
        print(main(options.rounds))
