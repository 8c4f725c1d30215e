"""Macro F1: the mean of the classes' F1, as HateXplain is scored (Mathew et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import Metric
from bench.metrics.ratio import require_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def _compute(examples: pd.DataFrame) -> float:
    from sklearn.metrics import f1_score

    require_rows(examples, "macro_f1")
    return float(f1_score(examples["label"], examples["prediction"], average="macro", zero_division=0.0))


def _terms(examples: pd.DataFrame) -> NDArray[np.float64]:
    """Return (n, 2K): numerator and then denominator of each class's F1, as a ratio of sums."""
    import numpy as np

    label, prediction = examples["label"].to_numpy(), examples["prediction"].to_numpy()
    classes = np.union1d(label, prediction)
    gold, said = label[:, None] == classes, prediction[:, None] == classes
    return np.concatenate([2.0 * (gold & said), gold.astype(np.float64) + said], axis=1)


def _reduce(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce (..., n, 2K) -> (...): the mean over the classes that occur in the resample."""
    import numpy as np

    above, below = np.split(terms.sum(axis=-2), 2, axis=-1)
    scores = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return np.asarray(scores.sum(axis=-1) / (below > 0).sum(axis=-1), np.float64)


MACRO_F1 = Metric(
    name="macro_f1",
    summary="mean of the F1 of every class that is a label or a prediction, 0 to 1",
    compute=_compute,
    quality=True,
    terms=_terms,
    reduce=_reduce,
    additive=True,
)
