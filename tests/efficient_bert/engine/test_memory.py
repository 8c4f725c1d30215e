"""Freed memory is kept where glibc is asked, and nothing happens elsewhere."""

import ctypes
import platform
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from efficient_bert.memory import keep_freed_memory

FAULTS = """
import ctypes, resource
from efficient_bert.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
size = 2**26
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(size)))
    library.memset(block, 1, ctypes.c_size_t(size))
    library.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("keep", [True, False])
def test_a_freed_block_comes_without_page_faults(keep: bool) -> None:
    """64 MiB, the second and third time: no fault on any page where freed memory is kept, else one on most of them."""
    code = FAULTS.format(keep=keep)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *again = map(int, answer.stdout.split())
    assert first > 1000
    assert all(faults < 100 if keep else faults > 1000 for faults in again)


def missing(name: object) -> object:
    """Where there is no C library to ask."""
    raise OSError


def unnamed(name: object) -> object:
    """Where a library needs a name."""
    raise TypeError


@pytest.mark.parametrize("library", [missing, unnamed, lambda name: SimpleNamespace()])
def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, library: Callable[[object], object]) -> None:
    """A C library without mallopt, or none, is no error."""
    monkeypatch.setattr(ctypes, "CDLL", library)
    keep_freed_memory()
