"""The percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def percentile_interval(values: NDArray[np.float64], *, level: float) -> tuple[float, float]:
    """Return the ends between which the share `level` of a number's resamples [r] lies, as much outside on each side.

    Both are NaN where there are no resamples, or one of them is NaN.
    """
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
