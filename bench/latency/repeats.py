"""Compare the rounds of an arm: every round times the same examples, so all should take as long."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

LIMIT = 1.25
"""How many times as long as the fastest round, on the median example, the slowest one may take.

It is 1.06 when nothing else runs, 1.01 to 1.19 beside one busy process, and mostly more beside two.
"""

LEAST_EXAMPLES = 5
"""Fewer medians of single passes differ by chance."""


def disagreement(samples: Sequence[Sequence[float]]) -> str:
    """Say how far an arm's rounds are apart; empty where they agree, or where there is too little to tell.

    Args:
        samples: seconds, by example and round.
    """
    if len(samples) < LEAST_EXAMPLES or len(samples[0]) < 2:
        return ""
    pace = [median(seconds) for seconds in zip(*(_of_own_median(example) for example in samples), strict=True)]
    slow, fast = pace.index(max(pace)), pace.index(min(pace))
    if not pace[fast] or pace[slow] <= LIMIT * pace[fast]:
        return ""
    return f"round {slow + 1} took {pace[slow] / pace[fast]:.2g} times as long as round {fast + 1}"


def _of_own_median(seconds: Sequence[float]) -> list[float]:
    """Return an example's rounds in units of its median, so that long and short texts count alike."""
    usual = median(seconds) or 1.0
    return [each / usual for each in seconds]
