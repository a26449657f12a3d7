"""Work on all cores with bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def map_in_order(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """Apply `function` in one thread per core; yield results in the order of `items`.

    At most two items per core are in flight, so memory stays flat however many there are. For functions that
    release the interpreter lock: decoding, resizing, encoding, hashing.
    """
    cores = os.cpu_count() or 1
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
