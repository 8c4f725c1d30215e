"""Whose arithmetic runs, where a paper, its authors' code and plain sense disagree."""

from __future__ import annotations

from enum import StrEnum


class Fidelity(StrEnum):
    """The method's arithmetic, or that of the authors' code with its constants and slips, for comparisons."""

    CORRECTED = "corrected"
    RELEASED = "released"
