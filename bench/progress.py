"""Progress bars on standard error, one per piece of long work."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from efficient_bert.training import Status


class Watcher(Protocol):
    """Shows progress: a bar per piece of work."""

    def training_bar(self, name: str) -> AbstractContextManager[Callable[[Status], None]]:
        """Show a bar for a training stage."""
        ...

    def counting_bar(
        self, name: str, total: int, *, still: bool = False
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar that counts to `total`; a still one is drawn only as it counts, never beside what is timed."""
        ...

    def say(self, line: str) -> None:
        """Tell the user something that a bar does not."""
        ...


class Bars:
    """Shows rich's bars; where standard error is no terminal, a line every `every` seconds and one at the end."""

    def __init__(self, *, every: float = 25.0) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.every = every

    @contextmanager
    def _bar(self, name: str, total: int | None, *, still: bool = False) -> Iterator[Callable[..., None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        shown = self.console.is_terminal
        with Progress(*columns, console=self.console, disable=not shown, auto_refresh=not still) as progress:
            bar = progress.add_task(name, total=total, note="")

            told = time.monotonic()

            def update(**changes: object) -> None:
                nonlocal told
                progress.update(bar, refresh=still, **changes)  # type: ignore[arg-type]  # rich types each by itself
                if still and not shown and time.monotonic() - told >= self.every:
                    told = time.monotonic()
                    self.say(progress_line(progress.tasks[0]))

            with self._lines(progress.tasks[0]) if not shown and not still else nullcontext():
                yield update
        if not shown:
            self.console.print(f"{name}: done in {progress.tasks[0].elapsed or 0:.0f} s", soft_wrap=True)

    @contextmanager
    def _lines(self, task: Task) -> Iterator[None]:
        """Print how far the task is, from time to time, until the block ends."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(self.every):
                self.say(progress_line(task))

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()

    @contextmanager
    def training_bar(self, name: str) -> Iterator[Callable[[Status], None]]:
        """Show a bar over a stage's steps, with loss, speed and each epoch's held-out score."""
        with self._bar(f"train {name}", None) as update:
            scores: list[str] = []

            def watch(status: Status) -> None:
                if status.score is not None:
                    scores.append(f"{status.score:.3f}")
                    self.console.print(f"train {name}: held-out score after epoch {len(scores)}: {scores[-1]}")
                if not math.isnan(status.examples_per_second):
                    loss = "" if math.isnan(status.loss) else f"loss {status.loss:.3f}, "
                    note = f"{loss}{status.examples_per_second:.0f} examples/s"
                    update(total=status.steps, completed=status.step, note=note)

            yield watch

    @contextmanager
    def counting_bar(self, name: str, total: int, *, still: bool = False) -> Iterator[Callable[[int], None]]:
        """Show a bar that counts to `total`; a still one is drawn only as it counts, never beside what is timed."""
        with self._bar(name, total, still=still) as update:
            yield lambda amount: update(advance=amount)

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self.console.print(line, soft_wrap=True, markup=False)


def progress_line(task: Task) -> str:
    """Say how far a task is: `train finetune: 120 of 800 (15 %), 30 s so far, about 170 s left`."""
    parts = [f"{task.elapsed or 0:.0f} s so far"]
    done = ""
    if task.total:
        done = f"{task.completed:,.0f} of {task.total:,.0f} ({task.percentage:.0f} %), "
        if task.time_remaining is not None:
            parts.append(f"about {task.time_remaining:.0f} s left")
    if note := task.fields["note"]:
        parts.append(note)
    return f"{task.description}: {done}{', '.join(parts)}"
