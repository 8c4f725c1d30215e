"""The Pareto front: the points that no other point beats."""

from __future__ import annotations

from collections.abc import Sequence


def front(x: Sequence[float], y: Sequence[float]) -> list[bool]:
    """Check of each point (x, y) whether it is on the front, where more is better in both.

    A point is off the front when another is at least as good in both and better in one; equal points are
    all on it or all off it. A point with a NaN is off the front and beats nobody.
    """
    points = list(zip(x, y, strict=True))
    return [a == a and b == b and not any(_beats(other, (a, b)) for other in points) for a, b in points]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one != other
