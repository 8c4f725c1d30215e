"""Compute rationale metrics over documents and seeds: values, intervals, and paired differences to one method.

Every metric is a function of sums over documents, as in `eraser_eval`, so one draw of documents resamples all methods
and layers alike, and a difference is taken within each resample.

The marks of people are compared in documents that have some: where people marked nothing, any choice would count as
false. Other methods have ERASER's numbers, and differences are over the documents in which both are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.rationales.files import AVERAGE, PEOPLE
from eraser_eval.metrics.intervals import percentile_interval

if TYPE_CHECKING:
    import pandas as pd

Values = NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.95

FEWEST = 2
"""Documents that an interval needs at least."""


@dataclass(frozen=True)
class RationaleMetric:
    """A metric of rationales.

    Attributes:
        name: as in the table.
        summary: what it measures.
        higher_is_better: whether a higher value is a better one.
        needs: a column that the documents must have.
        terms: documents (a row each) -> (n, t) numbers that are summed; every second one is 1 where a document takes
            part, and else 0.
        reduce: (..., t) sums -> (...) values.
    """

    name: str
    summary: str
    higher_is_better: bool
    needs: str
    terms: Callable[[pd.DataFrame], Values]
    reduce: Callable[[Values], Values]


def _ratio(above: Values, below: Values) -> Values:
    ratio: Values = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)
    return ratio


def _mean(
    name: str,
    summary: str,
    *,
    value: Callable[[pd.DataFrame], Values] | None = None,
    needs: str = "",
    higher_is_better: bool = True,
) -> RationaleMetric:
    """Return a mean over the documents that have a number: in the column `needs`, or by `value`."""
    column = needs or name

    def terms(frame: pd.DataFrame) -> Values:
        values = frame[column].to_numpy(np.float64) if value is None else value(frame)
        finite = np.isfinite(values)
        return np.stack([np.where(finite, values, 0.0), finite.astype(float)], axis=1)

    return RationaleMetric(
        name, summary, higher_is_better, column, terms, lambda sums: _ratio(sums[..., 0], sums[..., 1])
    )


def _false_positives(frame: pd.DataFrame) -> Values:
    wrong = (frame["token_predicted"] - frame["token_both"]).to_numpy(np.float64)
    return _ratio(wrong, (frame["n_tokens"] - frame["n_rationale"]).to_numpy(np.float64))


def _token_f1(frame: pd.DataFrame) -> Values:
    """Return 2 both / (gold + predicted); undefined where neither has a token."""
    both, gold, predicted = (frame[f"token_{name}"].to_numpy(np.float64) for name in ("both", "gold", "predicted"))
    return _ratio(2 * both, gold + predicted)


def _iou_terms(frame: pd.DataFrame) -> Values:
    reached, gold, predicted = (
        frame[name].to_numpy(np.float64) for name in ("reached_0", "span_gold", "span_predicted")
    )
    precision, recall = (np.nan_to_num(_ratio(reached, below)) for below in (predicted, gold))
    return np.stack([precision, (predicted > 0).astype(float), recall, (gold > 0).astype(float)], axis=1)


def _iou_f1(sums: Values) -> Values:
    precision = np.nan_to_num(_ratio(sums[..., 0], sums[..., 1]))
    recall = _ratio(sums[..., 2], sums[..., 3])
    return np.where(precision + recall == 0, 0.0, _ratio(2 * precision * recall, precision + recall))


METRICS = (
    _mean(
        "mean_average_precision",
        "average precision of the scores, over documents with marked tokens",
        needs="average_precision",
    ),
    _mean("fpr", "share of unmarked tokens whose score is at least the uniform level 1/n", higher_is_better=False),
    _mean(
        "fpr_equal",
        "share of unmarked tokens among as many of the highest scores as AdapLeR keeps tokens in the layer",
        value=_false_positives,
        needs="token_predicted",
        higher_is_better=False,
    ),
    _mean("auprc", "area under the precision-recall curve of the scores"),
    _mean("token_f1", "F1 of as many tokens as AdapLeR keeps in the layer", value=_token_f1, needs="token_predicted"),
    RationaleMetric(
        "iou_f1",
        "ERASER's macro IOU F1 of as many tokens as AdapLeR keeps in the layer",
        True,
        "span_predicted",
        _iou_terms,
        _iou_f1,
    ),
    _mean("comprehensiveness", "what the predicted class loses without as many tokens as AdapLeR keeps in the layer"),
    _mean(
        "sufficiency",
        "what the predicted class loses with only as many tokens as AdapLeR keeps in the layer",
        higher_is_better=False,
    ),
    _mean("comprehensiveness_aopc", "what it loses without 1, 5, 10, 20 and 50 % of the tokens, a mean"),
    _mean(
        "sufficiency_aopc",
        "what it loses with only 1, 5, 10, 20 and 50 % of the tokens, a mean",
        higher_is_better=False,
    ),
)
"""The metrics of the table, where the documents have the numbers for them."""


def metrics_table(
    repeats: Sequence[pd.DataFrame], *, against: str, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Return the tidy table: a row per method, layer and metric.

    Args:
        repeats: of each training seed, a row per method, layer and document, all over the same documents; a value is
            the mean over seeds, and each draw of documents is the same in all of them.
        against: the method that differences are taken to; no differences where it is not there.
        resamples: of the percentile bootstrap over documents.
        seed: of the resampling.

    Returns:
        columns method, layer (`AVERAGE` for the mean over the layers in which it was measured), metric, documents,
        value, low, high (95 % interval), difference (value - that of `against` in the same layer), difference_low,
        difference_high; NaN where a number does not exist, and no interval of a number that fewer than two documents
        decide: with others drawn it could be anything.
    """
    import pandas as pd

    names = repeats[0]["annotation_id"].unique()
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    draws = np.concatenate([np.ones((1, len(names))), weights])  # the documents as they are come first
    frames = _frames_by_layer(repeats, names)
    rows: list[dict[str, object]] = []
    for metric in METRICS:
        seeds_of = {key: seeds for key, seeds in frames.items() if metric.needs in seeds[0]}
        values_of = _add_average({key: _resample(metric, seeds, draws, key[0]) for key, seeds in seeds_of.items()})
        baselines = {(PEOPLE, layer): seeds for (method, layer), seeds in seeds_of.items() if method == against}
        beside_people = _add_average({key: _resample(metric, seeds, draws, PEOPLE) for key, seeds in baselines.items()})
        for (method, layer), values in sorted(values_of.items()):
            row = {"method": method, "layer": layer, "metric": metric.name, "documents": len(names)}
            other = beside_people.get((method, layer), values_of.get((against, layer)))
            rows.append(row | _summarise(values, other if method != against else None))
    return pd.DataFrame(rows)


def _frames_by_layer(repeats: Sequence[pd.DataFrame], names: NDArray[Any]) -> dict[tuple[str, int], list[pd.DataFrame]]:
    """Return (method, layer) -> a frame of each seed, with the documents in this order."""
    frames: dict[tuple[str, int], list[pd.DataFrame]] = defaultdict(list)
    for documents in repeats:
        for (method, layer), frame in documents.groupby(["method", "layer"], sort=False):
            frames[str(method), int(str(layer))].append(frame.set_index("annotation_id").loc[names])
    return frames


def _resample(metric: RationaleMetric, seeds: Sequence[pd.DataFrame], draws: Values, compared_as: str) -> Values:
    """Return the mean over seeds of what `_resample_seed` returns."""
    return np.asarray(np.mean([_resample_seed(metric, frame, draws, compared_as) for frame in seeds], axis=0))


def _resample_seed(metric: RationaleMetric, frame: pd.DataFrame, draws: Values, compared_as: str) -> Values:
    """Return the metric of the documents, then of each resample; the latter NaN where too few documents decide.

    Compared as people, a method counts in documents with marks alone.
    """
    terms = metric.terms(frame)
    if compared_as == PEOPLE:
        terms = terms * (frame["n_rationale"].to_numpy(np.float64) > 0)[:, None]
    values = metric.reduce(draws @ terms)
    if np.count_nonzero(terms[:, 1::2].any(axis=1)) < FEWEST:
        values[1:] = np.nan
    return values


def _add_average(values_of: Mapping[tuple[str, int], Values]) -> dict[tuple[str, int], Values]:
    """Return the values with each method's mean over layers."""
    methods = dict.fromkeys(method for method, _ in values_of)
    return {**values_of, **{(method, AVERAGE): _mean_over_layers(values_of, method) for method in methods}}


def _mean_over_layers(values_of: Mapping[tuple[str, int], Values], method: str) -> Values:
    """Return the mean over the method's layers in which the metric was measured."""
    layers = [values for (name, _), values in values_of.items() if name == method]
    measured = [values for values in layers if np.isfinite(values[0])]
    mean: Values = np.mean(measured or layers, axis=0)
    return mean


def _summarise(values: Values, other: Values | None) -> dict[str, float]:
    """Return the value with its interval, and the difference to the other with its interval."""
    low, high = _interval(values[1:])
    estimate = {"value": float(values[0]), "low": low, "high": high}
    differences = np.full(len(values), np.nan) if other is None else values - other
    low, high = _interval(differences[1:])
    return estimate | {"difference": float(differences[0]), "difference_low": low, "difference_high": high}


def _interval(values: Values) -> tuple[float, float]:
    """Return the interval of the resamples in which a number is defined."""
    return percentile_interval(values[np.isfinite(values)], level=LEVEL)
