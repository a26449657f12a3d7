"""Work on many items with every core, in order, a few in flight."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8  # each may hold one decoded photo, 300 MB at 100 megapixels


def num_workers() -> int:
    """Cores this process may use, at most 8."""
    return min(
        MOST_WORKERS,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work(item)` in the order of `items`; an exception of `work` comes out at its item's place.

    Threads, because decoding, resizing and reading let go of Python's lock. At most two items per worker are
    taken ahead, so memory does not grow with their number.
    """
    workers = num_workers()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
