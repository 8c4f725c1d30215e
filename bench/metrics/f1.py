"""F1 of class 1, as the GLUE benchmark scores MRPC (Wang et al. 2018, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.metrics import Metric
from bench.metrics.ratio import columns, ratio_of_sums, require_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def _classes(examples: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    label, prediction = examples["label"].to_numpy(), examples["prediction"].to_numpy()
    others = sorted({*label.tolist(), *prediction.tolist()} - {0, 1})
    if others:
        raise InputError(f"f1 is that of class 1 of two, but there are classes {others} too; use accuracy")
    return label, prediction


def _compute(examples: pd.DataFrame) -> float:
    from sklearn.metrics import f1_score

    require_rows(examples, "f1")
    label, prediction = _classes(examples)
    return float(f1_score(label, prediction, pos_label=1, average="binary", zero_division=0.0))


def _terms(examples: pd.DataFrame) -> NDArray[np.float64]:
    label, prediction = _classes(examples)
    return columns(2 * label * prediction, label + prediction)


F1 = Metric(
    name="f1",
    summary="F1 of class 1 in a two-class task, 0 to 1; 0 where neither labels nor predictions hold class 1",
    compute=_compute,
    quality=True,
    terms=_terms,
    reduce=ratio_of_sums,
    additive=True,
)
