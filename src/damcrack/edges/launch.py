"""A training command over several processes: it starts itself again by torchrun, once for each.

Environment:
    DAMCRACK_PROCESSES      processes on this machine; default: its visible GPUs, or 1
    PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT
                            several machines, as torchrun and Kubeflow Trainer name them
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from damcrack.errors import InputError

LEFT_ALONE = "another of the training processes ended"
RELAUNCHED = "import sys; sys.argv[0] = 'damcrack'; from damcrack.edges.cli import main; main()"


def is_worker() -> bool:
    """Tell whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def wanted_processes() -> int:
    """How many processes shall train on this machine.

    Raises:
        InputError: DAMCRACK_PROCESSES is not a number from 1.
    """
    text = os.environ.get("DAMCRACK_PROCESSES")
    if text is None:
        import torch

        return max(1, torch.cuda.device_count())
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"DAMCRACK_PROCESSES: got {text!r}; expected a number from 1, or leave it unset")
    return int(text)


def launched() -> bool:
    """Run this command in several processes if that is wanted; True once they have all ended well.

    Raises:
        InputError: one of them failed, which ended the others; the message is the first one's.
        KeyboardInterrupt: somebody stopped us.
    """
    if is_worker():
        return False
    num = wanted_processes()
    if num == 1 and os.environ.get("PET_NNODES", "1") == "1":
        return False
    _check_devices(num)
    _run_all(num)
    return True


def _check_devices(num: int) -> None:
    import torch

    there = torch.cuda.device_count()
    if there and num > there:
        raise InputError(
            f"DAMCRACK_PROCESSES: {num}, but {there} GPUs are visible; each process needs its own"
        )


def _run_all(num: int) -> None:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // num)))
    logging.getLogger("torch.distributed").setLevel(
        logging.CRITICAL
    )  # it prints pages about what we say below
    options = parse_args([f"--nproc-per-node={num}", "--no-python", sys.executable, "-c", RELAUNCHED])  # type: ignore[no-untyped-call]
    options.training_script_args += sys.argv[1:]
    try:
        run(options)  # type: ignore[no-untyped-call]
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        first = min(error.failures.items(), key=lambda one: (one[1].message == LEFT_ALONE, one[1].timestamp))
        raise InputError(_in_words(first[0], first[1].message, first[1].exitcode)) from None


def _in_words(number: int, message: str, code: int) -> str:
    if code < 0:
        why = "; out of memory?" if code == -9 else ""
        return f"process {number} was killed by signal {-code}{why}; run the same command to go on"
    if message == LEFT_ALONE or message.startswith("To enable traceback"):
        return (
            f"process {number} ended with code {code}; run the same command to go on from the last checkpoint"
        )
    return message


@contextmanager
def place_among_processes() -> Iterator[bool]:
    """Train with the processes that were launched together; True in the first, which records and writes.

    Raises:
        InputError: another one ended.
    """
    if not is_worker():
        yield True
        return
    from damcrack.engine.processes import joined, rank

    with joined():
        try:
            yield rank() == 0
        except RuntimeError as error:
            if not any(word in str(error).lower() for word in ("gloo", "nccl", "peer")):
                raise
            raise InputError(LEFT_ALONE) from error


def hand_over(message: str) -> bool:
    """Leave an error for whoever launched this process, to be shown once; False if nobody did."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not (is_worker() and path):
        return False
    Path(path).write_text(json.dumps({"message": message, "timestamp": int(time.time())}))
    return True
