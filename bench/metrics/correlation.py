"""Correlations over examples: the shape of Pearson's, Spearman's and Matthews's coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def correlation(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate (..., n, 2K) -> (...): covariance of the first K columns with the last K  by the root of variances.

    Covariances are summed over the K columns (Gorodkin 2004): K = 1 is Pearson's coefficient, and columns
    that say with 1 or 0 whether an example is in class k give Matthews's. 0 where either side is constant.
    """
    import numpy as np

    half = terms.shape[-1] // 2
    varies = (terms.max(axis=-2) > terms.min(axis=-2)).reshape(*terms.shape[:-2], 2, half).any(axis=-1).all(axis=-1)
    centred = terms - terms.mean(axis=-2, keepdims=True)
    x, y = centred[..., :half], centred[..., half:]
    covariance, variances = (x * y).sum((-2, -1)), (x * x).sum((-2, -1)) * (y * y).sum((-2, -1))
    return np.where(varies, covariance / np.sqrt(np.where(varies, variances, 1.0)), 0.0)
