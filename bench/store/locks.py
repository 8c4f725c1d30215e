"""Locks between commands that write to one place: the second waits, and says for what.

The system frees a lock with the process that holds it, so that a killed one keeps nobody waiting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, which need not be there; this process may hold it already.

    The lock's file lies beside it, hidden, and goes with the lock. Of several processes that train together, the main
    one takes it for all.
    """
    if not is_main_process():
        yield
        return
    file = path.with_name(f".{path.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"bench: waits for another command, which is at work on {path}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            file.unlink(missing_ok=True)  # while it is held: who waits sees that it is gone, and makes a new one
        lock.release()


def is_main_process() -> bool:
    """Say whether this is the process that evaluates and stores, where several train together."""
    return os.environ.get("RANK", "0") == "0"
