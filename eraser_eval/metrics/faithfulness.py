"""Faithfulness: what happens to the predicted class when its reason is erased, or is all that is left?

Comprehensiveness and sufficiency (DeYoung et al., 2020, section 5), their means over thresholds (AOPC: divided by the
number of thresholds, without a point for nothing erased), and the change of entropy and KL(after || before), in nats.
They follow the predicted class, whether or not it is right, and are averaged over annotations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from eraser_eval.formats.predictions import Distribution, Erased, Prediction, same_threshold
from eraser_eval.metrics.table import Flat, Sums, Terms, ratio

KINDS = ("comprehensiveness", "sufficiency")
DEFAULT_THRESHOLDS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""The official scorer's; used where the file has them all."""


def line_values(prediction: Prediction, tokens: int) -> dict[str, float]:
    """Compute what one annotation contributes; nothing for a field that it does not have.

    `tokens` is the length of its documents with evidence, of which tokens_to_flip is a share.
    """
    values: dict[str, float] = {}
    if prediction.tokens_to_flip is not None:
        values["tokens_to_flip"] = prediction.tokens_to_flip / tokens if tokens else math.nan
    if prediction.scores is None or prediction.classification is None:
        return values
    before, label = prediction.scores, prediction.classification
    for kind, after in _kinds(prediction.erased).items():
        values[kind] = before[label] - after[label]
        values[f"{kind}_entropy"] = entropy(before) - entropy(after)
        values[f"{kind}_kl"] = divergence(after, before)
    for index, erased in enumerate((prediction.thresholded or {}).values()):
        for kind, after in _kinds(erased).items():
            values[f"{kind}@{index}"] = before[label] - after[label]
    return values


def entropy(distribution: Distribution) -> float:
    """Compute H(p) in nats, of p divided by its sum."""
    total = sum(distribution.values())
    return -sum(p / total * math.log(p / total) for p in distribution.values() if p > 0)


def divergence(after: Distribution, before: Distribution) -> float:
    """Compute KL(after || before) in nats, each divided by its sum.

    It is infinite where `before` rules out what `after` does not.
    """
    total, base = sum(after.values()), sum(before.values())
    nats = 0.0
    for label, p in after.items():
        if p > 0:
            nats += p / total * math.log((p / total) / (before[label] / base)) if before[label] > 0 else math.inf
    return nats


def choose_thresholds(available: Sequence[float], requested: Sequence[float] | None) -> tuple[int, ...] | None:
    """Find the indices of the thresholds to use among those of the file; None where a needed one is missing.

    Without `requested` they are the official ones if the file has them all, and else all of the file.
    """
    needed = sorted(DEFAULT_THRESHOLDS if requested is None else requested)
    indices = [index for each in needed for index, share in enumerate(available) if same_threshold(each, share)]
    if len(indices) == len(needed):
        return tuple(indices)
    return tuple(range(len(available))) if requested is None else None


def faithfulness_terms(table: Terms) -> Terms:
    """Compute what is summed over annotations: the finite values, and how many there are."""
    terms: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    for name, values in table.items():
        finite = np.isfinite(values)
        terms |= {name: np.where(finite, values, 0.0), f"{name}#": finite.astype(float)}
        terms["rows"] = np.ones(len(values))
    return terms


def faithfulness_scores(sums: Sums, thresholds: Sequence[int]) -> Flat:
    """Compute the official numbers of classification_scores that exist; infinite KLs are left undefined."""
    block, scores = "classification_scores", Flat()
    for kind in KINDS:
        if kind in sums:
            for name in (kind, f"{kind}_entropy", f"{kind}_kl"):
                all_finite = sums[f"{name}#"] == sums["rows"]
                scores[block, name] = np.where(all_finite, ratio(sums[name], sums["rows"]), np.nan)
            scores["corrected", block, f"{kind}_kl"] = ratio(sums[f"{kind}_kl"], sums[f"{kind}_kl#"])
        points = [ratio(sums[f"{kind}@{index}"], sums["rows"]) for index in thresholds if f"{kind}@{index}" in sums]
        scores |= {(block, f"{kind}_aopc_points", index): point for index, point in enumerate(points)}
        if points:
            scores[block, f"{kind}_aopc"] = np.mean(points, axis=0)
    if "tokens_to_flip" in sums:
        scores[("tokens_to_flip_mean_fraction",)] = ratio(sums["tokens_to_flip"], sums["tokens_to_flip#"])
    return scores


def _kinds(erased: Erased) -> Mapping[str, Distribution]:
    by_kind = {"comprehensiveness": erased.comprehensiveness, "sufficiency": erased.sufficiency}
    return {kind: after for kind, after in by_kind.items() if after is not None}
