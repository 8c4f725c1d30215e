"""Commands in processes of their own that are forked from this one, which has everything imported already."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from tests.support.command_line import Answer, call


@dataclass(frozen=True)
class Running:
    """A command under way."""

    process: BaseProcess
    said: Connection

    def answer(self) -> Answer:
        """What it leaves behind, once it has ended."""
        answer: Answer = self.said.recv()
        self.process.join()
        return answer

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


def start(*arguments: object, largest: int | None = None) -> Running:
    """Start a command.

    Args:
        largest: the size in bytes that no file may exceed, as on a disk that is full by then.
    """
    mine, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_run, args=(its, arguments, largest))
    process.start()
    its.close()
    return Running(process, mine)


def _run(said: Connection, arguments: tuple[object, ...], largest: int | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, whatever the tests are run by
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if largest is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        said.send(call(*arguments))
    except BaseException as error:
        said.send(Answer(repr(error), "", "Traceback"))
    os._exit(0)
