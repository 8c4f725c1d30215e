"""How the process keeps its memory."""

from __future__ import annotations

import ctypes
from contextlib import suppress

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Names of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """Let the allocator keep whatever is freed, for what comes next; where it is not glibc, nothing happens.

    By default large blocks go back to the kernel at once, and come again page by page: with short texts, whose step
    allocates little more than the gradient of the word embeddings, that is a quarter of a step. The process stays as
    large as it has been. It cannot be undone.
    """
    with suppress(OSError, AttributeError, TypeError):  # no C library to ask, or another one
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(MMAP_MAX, 0)
