"""Spearman's rank correlation of predicted and gold scores, as GLUE scores STS-B (Wang et al. 2018, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import Metric
from bench.metrics.correlation import correlation
from bench.metrics.ratio import columns, require_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def _compute(examples: pd.DataFrame) -> float:
    from scipy.stats import spearmanr

    require_rows(examples, "spearman")
    if examples["label"].nunique() < 2 or examples["prediction"].nunique() < 2:
        return 0.0
    return float(spearmanr(examples["label"], examples["prediction"]).statistic)


def _terms(examples: pd.DataFrame) -> NDArray[np.float64]:
    return columns(examples["label"], examples["prediction"])


def _reduce(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce (..., n, 2) scores -> (...): each resample has its own ranks, ties share their mean rank."""
    import numpy as np
    from scipy.stats import rankdata

    return correlation(np.asarray(rankdata(terms, axis=-2), np.float64))


SPEARMAN = Metric(
    name="spearman",
    summary="rank correlation of predicted and gold scores, -1 to 1; 0 where either is the same everywhere",
    compute=_compute,
    quality=True,
    terms=_terms,
    reduce=_reduce,
)
