"""The percentile interval that scorer, rationale tables and report share."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eraser_eval.metrics.intervals import percentile_interval


@pytest.mark.parametrize(("level", "ends"), [(0.95, (2.5, 97.5)), (0.9, (5.0, 95.0)), (0.5, (25.0, 75.0))])
def test_as_much_lies_outside_on_each_side(level: float, ends: tuple[float, float]) -> None:
    """Of 0, 1, ..., 100 in any order the ends are the percentiles themselves."""
    values = np.random.default_rng(0).permutation(np.arange(101.0))
    assert percentile_interval(values, level=level) == pytest.approx(ends)


@pytest.mark.parametrize("values", [[], [0.0, 1.0, math.nan]], ids=["none", "one undefined"])
def test_what_has_no_interval_has_no_ends(values: list[float]) -> None:
    """Without resamples, or with one that is NaN, both ends are NaN."""
    assert all(map(math.isnan, percentile_interval(np.array(values), level=0.95)))
