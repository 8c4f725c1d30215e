"""Mean average precision, and the false-positive rate at the uniform level (Modarressi et al., 2022, section 5).

The scores of a document are divided by their sum, and a token is predicted where its share is at least 1/n, the share
that each of n tokens has when all are alike; that is where its score is at least the mean score. The false-positive
rate is the share of the tokens that nobody marked which are predicted. It is averaged over documents, and pooled:
all false positives over all unmarked tokens. Where nobody marked anything anywhere, there is no such rate.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eraser_eval.metrics.table import Array, Flat, Sums, Terms, ratio

NEAR = 1e-14
"""Relative distance to the level below which rounding could decide; exact arithmetic does it instead."""


class Level(NamedTuple):
    """Numbers of tokens of one document."""

    tokens: int
    rationale: int
    predicted: int
    true_positives: int

    def document_row(self) -> dict[str, float | None]:
        """Return the rates of the document, None where nothing was marked (precision, recall) or everything (fpr)."""
        wrong, other = self.predicted - self.true_positives, self.tokens - self.rationale
        return {
            "n_tokens": self.tokens,
            "n_rationale": self.rationale,
            "n_at_or_above_level": self.predicted,
            "true_positives": self.true_positives,
            "false_positives": wrong,
            "fpr": wrong / other if other else None,
            "precision": self.true_positives / self.predicted if self.rationale else None,
            "recall": self.true_positives / self.rationale if self.rationale else None,
        }


def at_uniform_level(marked: NDArray[np.bool_], scores: Array) -> Level:
    """Count what is predicted at the uniform level, from `scores` [n], none negative, and `marked` [n]."""
    chosen = above_uniform_level(scores)
    return Level(len(scores), int(marked.sum()), int(chosen.sum()), int((chosen & marked).sum()))


def above_uniform_level(scores: Array) -> NDArray[np.bool_]:
    """Mark the scores [n] that are at least their mean, as exact arithmetic on the decimal numbers would.

    Equal scores are all at the level, also where all are 0.
    """
    if not len(scores) or scores.min() == scores.max():
        return np.ones(len(scores), np.bool_)
    # A power of two keeps every digit and the sum finite.
    scaled = np.ldexp(scores, -int(np.frexp(np.abs(scores).max())[1]))
    level = scaled.mean()
    near = np.abs(scaled - level) <= NEAR * len(scores) * np.abs(scaled).max()
    chosen: NDArray[np.bool_] = scaled >= level
    if near.any():
        exact = [Fraction(repr(score)) for score in scores.tolist()]
        mean = sum(exact) / len(exact)
        chosen[near] = [exact[index] >= mean for index in np.flatnonzero(near)]
    return chosen


def agreement_terms(table: Terms) -> Terms:
    """Compute what is summed over documents, from the columns average_precision and those of `Level`."""
    tokens, rationale, predicted, right = (table[name] for name in Level._fields)
    marked, other = rationale > 0, tokens - rationale
    wrong = predicted - right
    rate = ratio(wrong, other, empty=0.0)
    terms = {
        "documents": np.ones_like(tokens),
        "with_rationale": marked.astype(float),
        "all_rationale": (marked & (other == 0)).astype(float),
        "with_other": (other > 0).astype(float),
        "with_both": (marked & (other > 0)).astype(float),
        "average_precision": np.where(marked, table["average_precision"], 0.0),
        "average_precision_with_other": np.where(marked & (other > 0), table["average_precision"], 0.0),
        "precision": np.where(marked, ratio(right, predicted, empty=0.0), 0.0),
        "recall": ratio(right, rationale, empty=0.0),
        "right": right,
        "rationale": rationale,
    }
    for name, values in (("wrong", wrong), ("other", other), ("rate", rate), ("predicted", predicted)):
        terms |= {name: values, f"{name}_with_rationale": np.where(marked, values, 0.0)}
    return terms


def agreement_scores(sums: Sums, *, level: bool) -> Flat:
    """Compute the block agreement; without `level` only what needs no scores above 0."""
    marked = sums["with_rationale"]
    scores = {
        "documents": sums["documents"],
        "documents_with_rationale": marked,
        "documents_all_rationale": sums["all_rationale"],
        "mean_average_precision": ratio(sums["average_precision"], marked),
        "mean_average_precision_without_documents_that_are_all_rationale": ratio(
            sums["average_precision_with_other"], sums["with_both"]
        ),
    }
    if level:
        some = np.where(marked > 0, 1.0, np.nan)
        scores |= {
            "fpr_mean_over_documents": some * ratio(sums["rate"], sums["with_other"]),
            "fpr_mean_over_documents_with_rationale": ratio(sums["rate_with_rationale"], sums["with_both"]),
            "fpr_pooled": some * ratio(sums["wrong"], sums["other"]),
            "fpr_pooled_documents_with_rationale": ratio(sums["wrong_with_rationale"], sums["other_with_rationale"]),
            "precision_mean_over_documents_with_rationale": ratio(sums["precision"], marked),
            "recall_mean_over_documents_with_rationale": ratio(sums["recall"], marked),
            "precision_pooled": some * ratio(sums["right"], sums["predicted"]),
            "precision_pooled_documents_with_rationale": ratio(sums["right"], sums["predicted_with_rationale"]),
            "recall_pooled": ratio(sums["right"], sums["rationale"]),
        }
    return {("agreement", name): value for name, value in scores.items()}
