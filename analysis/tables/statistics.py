"""Intervals and paired tests: what the evaluated examples can and cannot tell apart.

All resampling is over texts: the rows of a run's table, those of one text (its windows, where it is read in several)
together. It says how much a number would move with other texts of the same kind, nothing of another training seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bench.errors import InputError
from eraser_eval.metrics.intervals import percentile_interval

if TYPE_CHECKING:
    from bench.metrics import Metric

CONFIDENCE = 0.95
RESAMPLES = 1000
LARGE = 10_000
RESAMPLES_LARGE = 400
INTERVAL_NOTE = (
    f"{CONFIDENCE:.0%} percentile bootstrap over examples, {RESAMPLES:,} resamples"
    f" ({RESAMPLES_LARGE} above {LARGE:,} examples)"
)
"""The interval's name, wherever one is shown."""

_BATCH_ROWS = 500_000  # resampled rows held at once: 4 MB of float64 for each of a metric's terms


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval; the ends are NaN where one example, or none, allows no interval."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan, math.nan)
"""Of nothing that could be measured."""


@dataclass(frozen=True)
class McNemar:
    """Examples that only one of two runs got right, and the exact two-sided p-value of that split.

    Attributes:
        only_a, only_b: numbers of examples.
        p_value: of as uneven a split or worse, were either run equally likely to be the one that is right.
    """

    only_a: int
    only_b: int
    p_value: float


def interval(
    metric: Metric,
    examples: pd.DataFrame,
    *,
    confidence: float = CONFIDENCE,
    resamples: int | None = None,
    seed: int = 0,
) -> Interval:
    """Compute a metric and its percentile bootstrap interval over rows (Efron and Tibshirani 1993, chapter 13).

    Args:
        metric: what is computed.
        examples: a run's table; for a timed metric, its timed rows.
        confidence: coverage, in (0, 1).
        resamples: number of resamples; by default 1,000, and 400 above 10,000 rows.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        InputError: the metric is not defined on these rows, or `confidence` lies outside (0, 1).
    """
    return _bootstrap(
        metric.compute(examples),
        lambda resampling: resampling.compute(metric, examples),
        texts=group_rows_by_text(examples),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Return the mean value of some intervals, such as those of an arm's seeds, and the means of their ends."""
    return Interval(*(fmean(getattr(each, name) for each in intervals) for name in ("value", "low", "high")))


def paired_difference(
    metric: Metric,
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    confidence: float = CONFIDENCE,
    resamples: int | None = None,
    seed: int = 0,
) -> Interval:
    """Compute metric(b) - metric(a) and its interval, both runs resampled by the same examples.

    Raises:
        InputError: the two tables hold different examples, or the metric is not defined on them.
    """
    return mean_difference(metric, [(a, b)], confidence=confidence, resamples=resamples, seed=seed)


def mean_difference(
    metric: Metric,
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    *,
    confidence: float = CONFIDENCE,
    resamples: int | None = None,
    seed: int = 0,
) -> Interval:
    """Compute the mean of metric(b) - metric(a) over pairs of runs, and its interval.

    Every run is resampled by the same examples.

    Raises:
        InputError: two tables hold different examples, or the metric is not defined on them.
    """
    sides = [align(a, b) for a, b in pairs]
    for _, b in sides[1:]:
        align(sides[0][0], b)
    return _bootstrap(
        fmean(metric.compute(b) - metric.compute(a) for a, b in sides),
        lambda resampling: np.mean(
            [resampling.compute(metric, b) - resampling.compute(metric, a) for a, b in sides], axis=0
        ),
        texts=group_rows_by_text(sides[0][0]),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def mcnemar(a: pd.DataFrame, b: pd.DataFrame) -> McNemar:
    """Test equal accuracy on the same examples (exact McNemar test; McNemar 1947; binomial, two-sided).

    It takes every example for independent of the others, which windows of one text are not.

    Raises:
        InputError: the two tables hold different examples.
    """
    a, b = align(a, b)
    right_a = a["label"].to_numpy() == a["prediction"].to_numpy()
    right_b = b["label"].to_numpy() == b["prediction"].to_numpy()
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p_value = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a=only_a, only_b=only_b, p_value=p_value)


def align(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sort both tables by example id.

    Raises:
        InputError: their ids or gold labels differ, or an id occurs twice.
    """
    a, b = (frame.sort_values("example_id", ignore_index=True) for frame in (a, b))
    for frame in (a, b):
        if frame["example_id"].duplicated().any():
            twice = frame.loc[frame["example_id"].duplicated(), "example_id"].iloc[0]
            raise InputError(f"example {twice!r:.40} occurs twice in one run; pairing needs one row per example")
    ids_a, ids_b = set(a["example_id"]), set(b["example_id"])
    if ids_a != ids_b:
        raise InputError(
            f"the runs hold different examples: {len(ids_a - ids_b)} only in the first, {len(ids_b - ids_a)} only in"
            " the second; evaluate both on the same split"
        )
    if not np.array_equal(a["label"].to_numpy(), b["label"].to_numpy()):
        raise InputError("the runs' gold labels differ on the same examples; evaluate both on the same data")
    return a, b


def interval_note(*tables: pd.DataFrame) -> str:
    """Return `INTERVAL_NOTE`, and that texts are drawn whole where a table has several windows of a text."""
    windowed = any(len(group_rows_by_text(table)) < len(table) for table in tables)
    return INTERVAL_NOTE + ("; windows of a text are drawn together" if windowed else "")


def group_rows_by_text(examples: pd.DataFrame) -> list[NDArray[np.int64]]:
    """Return the row numbers of each text, by first row; each row without a text_id is one text."""
    numbers, _ = pd.factorize(examples.get("text_id", examples["example_id"]))
    return np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])


@dataclass(frozen=True)
class _Resampling:
    """Draws of texts with replacement, the same for every metric and run that has these texts.

    Attributes:
        texts: the row numbers of each text.
        resamples: how many draws.
        seed: of the draws.
    """

    texts: Sequence[NDArray[np.int64]]
    resamples: int
    seed: int

    def compute(self, metric: Metric, examples: pd.DataFrame) -> NDArray[np.float64]:
        """Compute the metric on each draw's rows of the table [resamples]."""
        terms, reduce = metric.terms, metric.reduce
        if terms is None or reduce is None:
            return np.asarray([metric.compute(examples.take(rows)) for rows in self._rows()], np.float64)
        values = terms(examples)
        if metric.additive:
            by_text = np.add.reduceat(values[np.concatenate(self.texts)], self._starts, axis=0)
            return reduce((_counts(len(self.texts), self.resamples, self.seed) @ by_text)[:, None, :])
        if len(self.texts) < len(values):
            return np.asarray([reduce(values[rows]) for rows in self._rows()], np.float64)
        size = max(1, _BATCH_ROWS // len(values))
        draws = _draws(len(self.texts), self.resamples, self.seed)
        return np.concatenate([reduce(values[draws[start : start + size]]) for start in range(0, len(draws), size)])

    @property
    def _starts(self) -> NDArray[np.int64]:
        """Return where each text begins once its rows stand together [texts]."""
        return np.cumsum([0, *map(len, self.texts[:-1])])

    def _rows(self) -> Iterator[NDArray[np.int64]]:
        """Yield the row numbers of each draw."""
        for draw in _draws(len(self.texts), self.resamples, self.seed):
            yield np.concatenate([self.texts[text] for text in draw])


@lru_cache(maxsize=2)
def _draws(texts: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Draw text numbers [resamples, texts]."""
    return np.random.default_rng(seed).integers(0, texts, (resamples, texts))


@lru_cache(maxsize=2)
def _counts(texts: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Count how often each text is drawn [resamples, texts]."""
    return np.stack([np.bincount(draw, minlength=texts) for draw in _draws(texts, resamples, seed)]).astype(np.float64)


def _bootstrap(
    value: float,
    statistic: Callable[[_Resampling], NDArray[np.float64]],
    *,
    texts: Sequence[NDArray[np.int64]],
    confidence: float,
    resamples: int | None,
    seed: int,
) -> Interval:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, but coverage lies in (0, 1); 0.95 is usual")
    if len(texts) < 2:
        return Interval(value, math.nan, math.nan)
    rows = sum(map(len, texts))
    resampled = statistic(_Resampling(texts, resamples or (RESAMPLES_LARGE if rows > LARGE else RESAMPLES), seed))
    return Interval(value, *percentile_interval(resampled, level=confidence))
