"""Accuracy: the share of examples whose predicted class is the gold class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import Metric
from bench.metrics.ratio import columns, ratio_of_sums, require_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def _compute(examples: pd.DataFrame) -> float:
    from sklearn.metrics import accuracy_score

    require_rows(examples, "accuracy")
    return float(accuracy_score(examples["label"], examples["prediction"]))


def _terms(examples: pd.DataFrame) -> NDArray[np.float64]:
    return columns(examples["label"].to_numpy() == examples["prediction"].to_numpy(), 1.0)


ACCURACY = Metric(
    name="accuracy",
    summary="share of examples with the right class, 0 to 1",
    compute=_compute,
    quality=True,
    terms=_terms,
    reduce=ratio_of_sums,
    additive=True,
)
