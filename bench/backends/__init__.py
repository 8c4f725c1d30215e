"""Backends, one file each: engines, with a precision, that answer examples with a trained model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.backends.runners import Runner, Subject


@dataclass(frozen=True)
class Backend:
    """An engine that answers examples.

    Attributes:
        name: registry name, as typed.
        summary: one line for listings.
        source: project, and what of it.
        make: (trained model and how a method runs it) -> what answers examples.
        dense: it knows nothing of decisions, and runs only models whose every layer runs at its full width on every
            token (`Method.dense`).
        packages: that it needs beside those that are always installed.
        extra: name of the optional dependencies that bring these packages.
        devices: that it runs on.
        exports: precision of the folder by `bench export` that runs as this does; empty where none does.
    """

    name: str
    summary: str
    source: str
    make: Callable[[Subject], Runner]
    dense: bool = False
    packages: tuple[str, ...] = ()
    extra: str = ""
    devices: tuple[str, ...] = ("cpu",)
    exports: str = ""
