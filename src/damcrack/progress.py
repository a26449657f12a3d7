"""Progress bars on a terminal; now and then a plain line where DVC or a container captures the output."""

import time
from collections.abc import Iterable, Iterator, Sized

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from damcrack.messages import shown
from damcrack.run import Item, Run

PLAIN_LINE_EVERY_S = 10.0


def plain_console(stderr: bool = False) -> Console:
    """A console that shows text as it is: brackets and colons in names are no markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


class Watcher(Run):
    """A run that is not recorded: shows what it says and how far it is, on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console or plain_console(stderr=True)
        self._bars: Progress | None = None

    def say(self, line: str) -> None:
        """Show one line, above the bars if there are any."""
        self._console.print(shown(line), soft_wrap=True)

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Pass items through; loops may be nested."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        show = self._with_bar if self._console.is_terminal else self._with_lines
        return show(items, what, total)

    def _with_bar(self, items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
        bars = self._bars or self._new_bars()
        task = bars.add_task(what, total=total)
        try:
            for item in items:
                yield item
                bars.advance(task)
        finally:
            bars.remove_task(task)
            if not bars.tasks:
                bars.stop()
                self._bars = None

    def _new_bars(self) -> Progress:
        what = TextColumn("{task.description}", markup=False)
        columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=self._console, transient=True)
        self._bars.start()
        return self._bars

    def _with_lines(self, items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
        of_total = "" if total is None else f" of {total}"
        last_s = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            if time.monotonic() - last_s >= PLAIN_LINE_EVERY_S:
                self.say(f"{what}: {done}{of_total}")
                last_s = time.monotonic()
