"""How a training's memory is kept."""

from __future__ import annotations

import ctypes
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of glibc's `mallopt`."""

MOST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the allocator keep what a step frees, for the next step; where it is not glibc, nothing happens.

    By default large blocks go back to the kernel at once, and come again page by page: with short texts, whose step
    allocates little more than the gradient of the word embeddings, that is a quarter of a step.
    """
    with suppress(OSError, AttributeError, TypeError):  # no C library to ask, or another one
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, MOST)
        library.mallopt(MMAP_THRESHOLD, MOST)
