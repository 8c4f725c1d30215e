"""Progress bars on standard error, one per piece of long work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from efficient_bert.training import Status


class Watcher(Protocol):
    """Shows progress: a bar per piece of work."""

    def training(self, name: str) -> AbstractContextManager[Callable[[Status], None]]:
        """A bar for a training stage."""
        ...

    def counting(self, name: str, total: int, *, still: bool = False) -> AbstractContextManager[Callable[[int], None]]:
        """A bar that counts to `total`; a still one is drawn only as it counts, never beside what is timed."""
        ...

    def say(self, line: str) -> None:
        """Tell the user something that a bar does not."""
        ...


class Bars:
    """Shows rich's bars; where standard error is no terminal, one line at the end of each piece of work."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)

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

            def update(**changes: object) -> None:
                progress.update(bar, refresh=still, **changes)  # type: ignore[arg-type]  # rich types each by itself

            yield update
        if not shown:
            self.console.print(f"{name}: done in {progress.tasks[0].elapsed or 0:.0f} s", soft_wrap=True)

    @contextmanager
    def training(self, name: str) -> Iterator[Callable[[Status], None]]:
        """A bar over a stage's steps, with loss, speed and each epoch's held-out score."""
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
    def counting(self, name: str, total: int, *, still: bool = False) -> Iterator[Callable[[int], None]]:
        """A bar that counts to `total`; a still one is drawn only as it counts, never beside what is timed."""
        with self._bar(name, total, still=still) as update:
            yield lambda amount: update(advance=amount)

    def say(self, line: str) -> None:
        """A line of its own."""
        self.console.print(line, soft_wrap=True, markup=False)
