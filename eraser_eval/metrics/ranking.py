"""Soft rationales: do the marked tokens have the higher scores?

Of one document, from its scores and its marked tokens: the area under the precision-recall curve by the trapezoid
rule (AUPRC), average precision (the same area in steps, as `sklearn.metrics.average_precision_score`) and the area
under the ROC curve. Equal scores form one level. No sum over documents but the mean: ranks of different documents
cannot be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eraser_eval.metrics.table import Array, Flat, Sums, Terms, ratio

NO_GOLD_AUPRC = 0.5
"""The official scorer's AUPRC of a document without marked tokens, with scikit-learn 1.x (with 0.20 it is NaN)."""


class Ranking(NamedTuple):
    """Scores of one document; NaN where they are undefined."""

    auprc: float
    average_precision: float
    roc_auc: float


def ranking(marked: NDArray[np.bool_], scores: Array) -> Ranking:
    """Compute the three areas of a document, of `scores` [n] against `marked` [n].

    Without a marked token AUPRC and average precision are undefined, as is ROC AUC unless there are marked and other
    tokens.
    """
    positives = int(marked.sum())
    if not positives:
        return Ranking(np.nan, np.nan, np.nan)
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    last = np.append(np.flatnonzero(descending[1:] != descending[:-1]), len(descending) - 1)
    right = np.cumsum(marked[order], dtype=np.float64)[last]
    precision = right / (last + 1)
    steps = _steps(right)
    left = np.concatenate(([1.0], precision[:-1]))
    auprc = float((steps * (precision + left)).sum()) / (2 * positives)
    average_precision = float((steps * precision).sum()) / positives
    negatives = len(scores) - positives
    if not negatives:
        return Ranking(auprc, average_precision, np.nan)
    wrong = _steps(last + 1 - right)
    roc_auc = float((wrong * (right - steps / 2)).sum()) / (positives * negatives)
    return Ranking(auprc, average_precision, roc_auc)


def ranking_terms(table: Terms) -> Terms:
    """Compute what is summed over documents, from the columns auprc, average_precision and roc_auc."""
    marked, mixed = ~np.isnan(table["auprc"]), ~np.isnan(table["roc_auc"])
    return {
        "documents": np.ones(len(marked)),
        "marked": marked.astype(float),
        "mixed": mixed.astype(float),
        "auprc": np.where(marked, table["auprc"], 0.0),
        "average_precision": np.where(mixed, table["average_precision"], 0.0),
        "roc_auc": np.where(mixed, table["roc_auc"], 0.0),
    }


def ranking_scores(sums: Sums, block: str) -> Flat:
    """Compute an official block of soft metrics, and its right AUPRC: over the documents with marked tokens.

    The official one counts the others as 0.5 each, whatever the model does.
    """
    documents, marked, mixed = sums["documents"], sums["marked"], sums["mixed"]
    return {
        (block, "auprc"): ratio(sums["auprc"] + NO_GOLD_AUPRC * (documents - marked), documents),
        (block, "average_precision"): ratio(sums["average_precision"], mixed),
        (block, "roc_auc_score"): ratio(sums["roc_auc"], mixed),
        ("corrected", block, "auprc"): ratio(sums["auprc"], marked),
    }


def _steps(values: Array) -> Array:
    """Compute how much each value adds to the one before, the first to 0."""
    steps = values.copy()
    steps[1:] -= values[:-1]
    return steps
