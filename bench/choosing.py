"""The one rule by which an operating point is chosen: the fastest of those that hold up.

It has no imports, because the report, the search and, by way of its context, a training stage follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Point = TypeVar("Point")

_ROUNDING = 1e-9  # 0.91 - 0.01 is a hair above 0.90 in binary


def holds_up(score: float, full_score: float, allowed_drop: float) -> bool:
    """Say whether a score loses at most `allowed_drop` of the full model's; a loss of just as much is allowed.

    A score that is not a number never holds up, nor does one beside a full model's that is none.
    """
    return score >= full_score - allowed_drop - _ROUNDING


def is_faster(speedup: float) -> bool:
    """Say whether a FLOPs speed-up saves anything at all; one that is not a number does not."""
    return speedup > 1


def fastest(points: Iterable[Point], standing: Callable[[Point], tuple[float, float]]) -> Point | None:
    """Choose among points that hold up and are faster; None where there is no such point.

    Args:
        points: those that may be chosen.
        standing: point -> (FLOPs speed-up, score). The highest speed-up wins, of equal ones the higher score, and of
            points that are alike in both the first.
    """
    return max(points, key=standing, default=None)
