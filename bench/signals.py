"""Signals that end a command, which ends as at Ctrl-C: nothing is left half-written, and one line says so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, what a scheduler sends, and the end of a terminal, which Windows lacks."""


class Interruption(BaseException):
    """A signal has come; as a KeyboardInterrupt, it is no error that anybody handles on its way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ending_signals() -> Iterator[None]:
    """Let these signals interrupt the block as Ctrl-C does; one that is ignored, as under nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    changed = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    for number in changed:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interruption(number)


def interruption(error: BaseException) -> tuple[str, int]:
    """Return the line that says a command was interrupted, and its exit code, 128 and the signal's number."""
    number = error.number if isinstance(error, Interruption) else int(signal.SIGINT)
    name = signal.Signals(number).name
    return f"interrupted ({name}); what is finished is kept, and the same command goes on from there", 128 + number
