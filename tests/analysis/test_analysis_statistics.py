"""Intervals, paired differences, the McNemar test and the Pareto front."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.tables.pareto import front
from analysis.tables.statistics import interval, mcnemar, mean_difference, paired_difference
from bench.errors import InputError
from bench.metrics import Metric
from bench.registry import METRICS

ACCURACY = METRICS["accuracy"]


def answers(right: list[bool]) -> pd.DataFrame:
    """Examples of class 1 that are answered rightly or wrongly."""
    return pd.DataFrame(
        {"example_id": [f"e{n}" for n in range(len(right))], "label": 1, "prediction": [int(one) for one in right]}
    )


def test_the_interval_of_accuracy_is_the_binomials() -> None:
    """Resampling rows of 0 and 1 is a binomial draw: the ends are its quantiles, to within resampling noise."""
    found = interval(ACCURACY, answers([True] * 80 + [False] * 20), resamples=20_000)
    wanted = stats.binom(100, 0.8).ppf([0.025, 0.975]) / 100
    assert found.value == 0.8
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=0.0101)


def test_the_same_seed_gives_the_same_interval() -> None:
    """Intervals are reproducible, and another seed moves them."""
    frame = answers([True] * 59).assign(flops=np.arange(1, 60), reference_flops=60)
    metric = METRICS["flops_speedup"]
    assert interval(metric, frame, seed=1) == interval(metric, frame, seed=1)
    assert interval(metric, frame, seed=1) != interval(metric, frame, seed=2)


def test_higher_confidence_is_wider() -> None:
    """A 99% interval contains the 80% interval."""
    frame = answers([True] * 70 + [False] * 30)
    wide, narrow = (interval(ACCURACY, frame, confidence=confidence) for confidence in (0.99, 0.8))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_constant_data_has_an_interval_of_no_width() -> None:
    """Where every example is right, so is every resample; no warning is given."""
    found = interval(ACCURACY, answers([True] * 30))
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_one_example_has_no_interval() -> None:
    """One row says nothing of other rows: the ends are NaN."""
    found = interval(ACCURACY, answers([True]))
    assert found.value == 1.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_windows_of_a_text_are_drawn_together() -> None:
    """Three windows a text that are all right or all wrong say no more than one: the interval is that of the texts."""
    texts = [True] * 80 + [False] * 20
    whole, alone = answers([right for right in texts for _ in range(3)]), answers(texts)
    names = [f"a#b{text}#{window}" for text in range(100) for window in range(3)]
    own = [f"a#b{text}" for text in range(100) for _ in range(3)]
    windows = whole.assign(example_id=names, text_id=own).sample(frac=1, random_state=0, ignore_index=True)
    found, wanted, naive = (interval(ACCURACY, frame, resamples=2000) for frame in (windows, alone, whole))
    assert found.value == wanted.value
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.0101)
    assert naive.high - naive.low < 0.7 * (found.high - found.low)
    other = windows.assign(prediction=1)
    found, wanted = (
        paired_difference(ACCURACY, one, two, resamples=2000)
        for one, two in ((windows, other), (alone, alone.assign(prediction=1)))
    )
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.0101)


def test_texts_of_several_lengths_are_drawn_whole() -> None:
    """With one text of one window and one of three, every resample is a mixture of whole texts."""
    frame = answers([True, False, False, False]).assign(text_id=["a", "b", "b", "b"])
    found = interval(ACCURACY, frame, resamples=400)
    assert (found.value, found.low, found.high) == (0.25, 0.0, 1.0)
    assert math.isnan(interval(ACCURACY, frame.iloc[1:]).low)


def test_a_metric_without_terms_is_resampled_row_by_row() -> None:
    """The slow path gives what the fast path gives."""
    frame = answers([True] * 15 + [False] * 5)
    slow = Metric(name="slow", summary="", compute=ACCURACY.compute)
    assert interval(slow, frame, resamples=50) == interval(ACCURACY, frame, resamples=50)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    """A confidence outside (0, 1) is refused with its value."""
    with pytest.raises(InputError, match=f"confidence is {confidence}"):
        interval(ACCURACY, answers([True, False]), confidence=confidence)


def test_a_difference_pairs_examples_whatever_their_order() -> None:
    """Two runs with the same answers differ by nothing in every resample, though their rows are shuffled."""
    frame = answers([True] * 15 + [False] * 10)
    found = paired_difference(ACCURACY, frame, frame.sample(frac=1, random_state=0))
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_difference_is_the_second_minus_the_first() -> None:
    """One example of four won is a difference of + 0.25."""
    found = paired_difference(ACCURACY, answers([True, True, False, False]), answers([True, True, True, False]))
    assert found.value == 0.25
    assert 0.0 <= found.low <= 0.25 <= found.high


def test_a_difference_needs_the_same_examples() -> None:
    """Other ids, other labels or an id twice are refused."""
    frame = answers([True, False, True])
    with pytest.raises(InputError, match="1 only in the first, 0 only in the second"):
        paired_difference(ACCURACY, frame, frame.head(2))
    with pytest.raises(InputError, match="gold labels differ"):
        paired_difference(ACCURACY, frame, frame.assign(label=0))
    with pytest.raises(InputError, match="'e0' occurs twice"):
        paired_difference(ACCURACY, pd.concat([frame, frame.head(1)]), frame)


def test_a_mean_difference_resamples_all_pairs_by_the_same_examples() -> None:
    """What one pair wins on an example another loses there: no resample moves the mean of 0."""
    rng = np.random.default_rng(0)
    wins = rng.random(40) < 0.3
    before, after = answers([False] * 40), answers(list(wins))
    both = [(before, after), (after, before)]
    found = mean_difference(ACCURACY, both)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    alone = paired_difference(ACCURACY, before, after)
    assert alone.low < alone.value < alone.high
    assert mean_difference(ACCURACY, [both[0], both[0]]) == alone, "a pair twice is no more evidence"


def test_a_mean_difference_needs_the_same_examples_in_all_pairs() -> None:
    """Two pairs, each of its own examples, are refused."""
    frame, fewer = answers([True, False, True]), answers([True, False])
    with pytest.raises(InputError, match="1 only in the first"):
        mean_difference(ACCURACY, [(frame, frame), (fewer, fewer)])


def test_mcnemar_by_hand() -> None:
    """Five examples won and none lost: p = 2 / 2^5."""
    found = mcnemar(answers([False] * 5 + [True] * 5), answers([True] * 10))
    assert (found.only_a, found.only_b) == (0, 5)
    assert found.p_value == pytest.approx(2 / 2**5)


def test_mcnemar_without_disagreement() -> None:
    """Two runs that are right on the same examples are not told apart: p is 1."""
    assert mcnemar(answers([True, False]), answers([True, False])).p_value == 1.0


def test_the_front_by_hand() -> None:
    """Of six points, the three that no other beats are on the front; equal points share their place."""
    x = [1.0, 2.0, 2.0, 3.0, 3.0, 1.5]
    y = [0.9, 0.8, 0.7, 0.6, 0.6, 0.8]
    assert front(x, y) == [True, True, False, True, True, False]


def test_the_front_leaves_out_what_was_not_measured() -> None:
    """A point with a NaN is off the front and hides nobody."""
    assert front([1.0, math.nan, 2.0], [0.9, 1.0, math.nan]) == [True, False, False]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_dominates_the_rest(points: list[tuple[int, int]]) -> None:
    """Some point is on the front; each point off it is beaten by one on it; none on it is beaten by any."""
    on = front([x for x, _ in points], [y for _, y in points])
    best = [point for point, is_on in zip(points, on, strict=True) if is_on]

    def beaten(point: tuple[int, int], others: list[tuple[int, int]]) -> bool:
        return any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in others)

    assert best
    assert all(beaten(point, points) != is_on for point, is_on in zip(points, on, strict=True))
    assert all(beaten(point, best) for point, is_on in zip(points, on, strict=True) if not is_on)
