"""Metrics, one file each: a number computed from a run's table of examples.

Quality metrics are taken from scikit-learn; compute and speed metrics read FLOPs and seconds.
Because a metric is a function of the table alone, its interval is a bootstrap over the table's rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Metric:
    """A named statistic of a run.

    Attributes:
        name: stored and typed name; a unit, where there is one, is part of it.
        summary: one line for listings, with the convention.
        compute: examples (columns as in `bench.store.records.EXAMPLE_COLUMNS`) -> value.
        higher_is_better: direction of improvement.
        quality: it scores answers, and is shown for the tasks that declare it; the others are shown for every task.
        headline: it is shown first, in a terminal, a README and a report's cards, as quality metrics always are; a
            report's table shows every metric.
        timed: it reads `seconds`; only rows that were timed are passed.
        unit, scale: of the printed value, where it is not the stored one: stored value x scale, in `unit`.
        format: how the printed value is written.
        terms, reduce: the same statistic in two steps, so that thousands of resamples are one array operation:
            `terms` maps n examples to (n, k) float64 and `reduce` maps (..., n, k) to (...).
            Optional: without them a bootstrap calls `compute` once per resample.
        additive: `reduce` needs the terms' sums over examples alone, so that a resample is a weighted sum.
    """

    name: str
    summary: str
    compute: Callable[[pd.DataFrame], float]
    higher_is_better: bool = True
    quality: bool = False
    headline: bool = False
    timed: bool = False
    unit: str = ""
    scale: float = 1.0
    format: Callable[[float], str] = "{:z.3f}".format
    terms: Callable[[pd.DataFrame], NDArray[np.float64]] | None = None
    reduce: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
    additive: bool = False
