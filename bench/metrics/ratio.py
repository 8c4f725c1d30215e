"""Ratios of sums over examples: the shape of most metrics, a mean included (its denominators are ones)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


def require_rows(examples: pd.DataFrame, metric: str) -> None:
    """Refuse an empty table.

    Raises:
        InputError: there are no rows.
    """
    if examples.empty:
        raise InputError(f"{metric} of 0 examples is not defined; evaluate, or time, at least one example")


def columns(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
    """Return numerators and denominators, one per example (or one for all), as an (n, 2) array."""
    import numpy as np

    pair = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.stack(pair, axis=-1)


def ratio_of_sums(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce (..., n, 2) numerators and denominators -> (...) sum of the one over sum of the other; 0 / 0 is 0."""
    import numpy as np

    above, below = terms.sum(axis=-2).T
    quotient: NDArray[np.float64] = np.divide(above, below, out=np.zeros_like(above), where=below != 0)
    return quotient.T


def ratio_metric(
    name: str,
    summary: str,
    *,
    terms: Callable[[pd.DataFrame], NDArray[np.float64]],
    higher_is_better: bool,
    headline: bool = False,
    timed: bool = False,
    format: Callable[[float], str] = "{:z.3f}".format,
) -> Metric:
    """Make a metric that is a ratio of sums over examples of the (n, 2) array `terms`."""

    def compute(examples: pd.DataFrame) -> float:
        require_rows(examples, name)
        return float(ratio_of_sums(terms(examples)))

    return Metric(
        name=name,
        summary=summary,
        compute=compute,
        higher_is_better=higher_is_better,
        headline=headline,
        timed=timed,
        format=format,
        terms=terms,
        reduce=ratio_of_sums,
        additive=True,
    )
