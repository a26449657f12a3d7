import threading
import time

import pytest

from damcrack.files import in_order, num_workers


def test_results_keep_the_order_of_the_items():
    """Slow items do not overtake or get overtaken."""
    slow_first = in_order(lambda item: time.sleep(0.002 * (10 - item)) or item, range(10))
    assert list(slow_first) == list(range(10))


def test_few_items_are_taken_ahead():
    """Memory stays bounded: a reader of one result has cost at most two items per worker."""
    drawn = []
    results = in_order(lambda item: item, (drawn.append(item) or item for item in range(1000)))
    next(results)
    assert len(drawn) <= 2 * num_workers()
    results.close()


def test_an_exception_comes_out_and_stops_the_work():
    """The caller sees the error of the item, and the items after it are not all worked on."""
    done, others = [], threading.active_count()

    def work(item):
        if item == 3:
            raise OSError("disk")
        done.append(item)

    with pytest.raises(OSError, match="disk"):
        list(in_order(work, range(1000)))
    assert len(done) < 100
    assert threading.active_count() < others + 20
