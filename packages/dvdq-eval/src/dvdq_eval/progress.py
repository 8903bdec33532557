"""Progress of long work: a bar for each thing done, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Tell = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and how much there is."""


T = TypeVar("T")


def silent(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def told(tell: Tell, what: str, items: Sequence[T]) -> Iterator[T]:
    """``items`` one after another; ``tell`` is told how many of them are done."""
    for done, item in enumerate(items):
        tell(what, done, len(items))
        yield item
    tell(what, len(items), len(items))


@contextmanager
def progress_bars(longest: int = 12) -> Iterator[Tell]:
    """Yields what to call; at most ``longest`` bars are shown, the finished ones leave first."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    tasks: dict[str, TaskID] = {}
    with _without_theirs(), Progress(*columns, console=Console(stderr=True)) as bars:

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                if len(tasks) >= longest:
                    _remove_finished(bars, tasks)
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield tell


@contextmanager
def _without_theirs() -> Iterator[None]:
    """Bars of other libraries, of what they load, would be written over ours; afterwards they are as they were."""
    import diffusers
    import transformers

    shown = [library for library in (diffusers, transformers) if library.utils.logging.is_progress_bar_enabled()]
    for library in shown:
        library.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.utils.logging.enable_progress_bar()


def _remove_finished(bars: Progress, tasks: dict[str, TaskID]) -> None:
    finished = {task.id for task in bars.tasks if task.finished}
    for name in [name for name, task in tasks.items() if task in finished]:
        bars.remove_task(tasks.pop(name))
