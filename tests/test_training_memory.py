"""Freed memory is kept where glibc is asked, and nothing happens elsewhere."""

import ctypes
from types import SimpleNamespace

import pytest

from efficient_bert.training.memory import keep_freed_memory


def test_glibc_is_asked_to_keep_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both thresholds, by the numbers that malloc.h gives them, at the largest int."""
    asked: dict[int, int] = {}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=asked.__setitem__))
    keep_freed_memory()
    assert asked == {-1: 2147483647, -3: 2147483647}


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """A library without mallopt, or none at all, is no error."""

    def refuse(name: object) -> object:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    keep_freed_memory()
