"""Matthews's correlation of predicted and gold classes, as GLUE scores CoLA (Wang et al. 2018, section 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import Metric
from bench.metrics.correlation import correlation
from bench.metrics.ratio import require_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def _compute(examples: pd.DataFrame) -> float:
    from sklearn.metrics import matthews_corrcoef

    require_rows(examples, "matthews")
    if examples["label"].nunique() < 2 or examples["prediction"].nunique() < 2:
        return 0.0
    return float(matthews_corrcoef(examples["label"], examples["prediction"]))


def _terms(examples: pd.DataFrame) -> NDArray[np.float64]:
    """Return (n, 2K): for each class that occurs, whether it is the label; then, whether it is the prediction."""
    import numpy as np

    label, prediction = examples["label"].to_numpy(), examples["prediction"].to_numpy()
    classes = np.union1d(label, prediction)
    return np.concatenate([label[:, None] == classes, prediction[:, None] == classes], axis=1).astype(np.float64)


MATTHEWS = Metric(
    name="matthews",
    summary="correlation of predicted and gold classes, -1 to 1; 0 where either is the same everywhere",
    compute=_compute,
    quality=True,
    terms=_terms,
    reduce=correlation,
)
