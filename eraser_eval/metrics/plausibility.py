"""Hard rationales: do the predicted spans, and their tokens, agree with the marked ones?

Intersection over union (IOU), exact spans and tokens, as DeYoung et al. (2020, section 5) and the official scorer
define them. A pair is an annotation and one of its documents; averages ("macro") are over pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eraser_eval.metrics.table import Array, Flat, Sums, Terms, f1, ratio

KINDS = ("span", "token")


def hard_counts(gold: NDArray[np.int32], predicted: NDArray[np.int32], thresholds: Sequence[float]) -> dict[str, float]:
    """Count what one pair contributes.

    Args:
        gold: the marked spans [k, 2], distinct.
        predicted: the predicted spans [m, 2], distinct.
        thresholds: the IOUs from which on two spans meet.

    Returns:
        numbers of spans and tokens in the gold, in the prediction and in both; for each threshold the predicted spans
        that meet a marked one (`reached`) and the marked spans that are met (`met`).
    """
    counts = {
        "span_gold": float(len(gold)),
        "span_predicted": float(len(predicted)),
        **dict.fromkeys(("span_both", "token_gold", "token_predicted", "token_both"), 0.0),
        **{f"{kind}_{index}": 0.0 for index in range(len(thresholds)) for kind in ("reached", "met")},
    }
    marked, chosen = _mask(gold), _mask(predicted)
    shared = min(len(marked), len(chosen))
    counts["token_gold"], counts["token_predicted"] = float(marked.sum()), float(chosen.sum())
    counts["token_both"] = float((marked[:shared] & chosen[:shared]).sum())
    if not len(gold) or not len(predicted):
        return counts
    overlap = _overlap(predicted, gold)
    counts["span_both"] = float((predicted[:, None] == gold[None]).all(2).sum())
    for index, threshold in enumerate(thresholds):
        counts[f"reached_{index}"] = float((overlap.max(1) >= threshold).sum())
        counts[f"met_{index}"] = float((overlap.max(0) >= threshold).sum())
    return counts


def hard_terms(table: Terms) -> Terms:
    """Compute what is summed over pairs: the counts themselves, and each pair's scores."""
    terms = dict(table)
    gold, predicted = table["span_gold"], table["span_predicted"]
    # A pair takes part in the averages if it has a span; the tokens' averages know only spans with tokens.
    for kind in KINDS:
        precision = ratio(table[f"{kind}_both"], table[f"{kind}_predicted"], empty=0.0)
        recall = ratio(table[f"{kind}_both"], table[f"{kind}_gold"], empty=0.0)
        terms[f"{kind}_pairs"] = ((table[f"{kind}_gold"] > 0) | (table[f"{kind}_predicted"] > 0)).astype(float)
        terms |= {f"{kind}_p": precision, f"{kind}_r": recall, f"{kind}_f1": f1(precision, recall)}
    terms |= {"pairs_gold": (gold > 0).astype(float), "pairs_predicted": (predicted > 0).astype(float)}
    for name in [name for name in table if name.startswith(("reached_", "met_"))]:
        terms[f"{name}_r"] = ratio(table[name], gold, empty=0.0)
        if name.startswith("reached_"):
            terms[f"{name}_p"] = ratio(table[name], predicted, empty=0.0)
    return terms


def hard_scores(sums: Sums, thresholds: Sequence[float]) -> Flat:
    """Compute the official blocks iou_scores, rationale_prf and token_prf, and the right IOU under "corrected".

    Official IOU counts the predicted spans that meet a marked one, for recall too, which can then exceed 1. Corrected
    recall counts the marked spans that are met.
    """
    scores: Flat = {}
    for index, threshold in enumerate(thresholds):
        for key, name in ((("iou_scores",), "reached"), (("corrected", "iou_scores"), "met")):
            scores[(*key, index, "threshold")] = np.full_like(sums["span_gold"], threshold)
            precision = _precision(sums[f"reached_{index}"], sums["span_predicted"])
            scores |= _prf((*key, index, "micro"), precision, ratio(sums[f"{name}_{index}"], sums["span_gold"]))
            precision = _precision(sums[f"reached_{index}_p"], sums["pairs_predicted"])
            scores |= _prf((*key, index, "macro"), precision, ratio(sums[f"{name}_{index}_r"], sums["pairs_gold"]))
    for kind, block in zip(KINDS, ("rationale_prf", "token_prf"), strict=True):
        both, gold = sums[f"{kind}_both"], sums[f"{kind}_gold"]
        scores |= _prf((block, "instance_micro"), _precision(both, sums[f"{kind}_predicted"]), ratio(both, gold))
        for score in ("p", "r", "f1"):
            mean = ratio(sums[f"{kind}_{score}"], sums[f"{kind}_pairs"])
            # Where nothing is marked anywhere, recall does not exist, and neither does F1.
            scores[block, "instance_macro", score] = mean if score == "p" else np.where(gold > 0, mean, np.nan)
    return scores


def _precision(right: Array, predicted: Array) -> Array:
    """Compute the precision, 0 where nothing is predicted."""
    return ratio(right, predicted, empty=0.0)


def _prf(key: tuple[str | int, ...], precision: Array, recall: Array) -> Flat:
    return {(*key, "p"): precision, (*key, "r"): recall, (*key, "f1"): f1(precision, recall)}


def _mask(spans: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Mark the tokens that lie in a span, up to the last one that does."""
    mask = np.zeros(int(spans[:, 1].max()) if len(spans) else 0, np.bool_)
    for start, end in spans.tolist():
        mask[start:end] = True
    return mask


def _overlap(one: NDArray[np.int32], other: NDArray[np.int32]) -> Array:
    """Compute the intersection over union, in tokens, of every two spans [m, k]."""
    start, end = np.maximum(one[:, None, 0], other[None, :, 0]), np.minimum(one[:, None, 1], other[None, :, 1])
    shared = np.maximum(end - start, 0)
    sizes = (one[:, 1] - one[:, 0])[:, None] + (other[:, 1] - other[:, 0])[None]
    # Two empty spans share nothing.
    overlap: Array = shared / np.maximum(sizes - shared, 1)
    return overlap
