"""Metrics: each against scikit-learn, or against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from analysis.tables.frames import timed_rows
from bench.errors import InputError
from bench.registry import METRICS
from tests.support.stored_runs import StoredRun, read_runs

TWO_EXAMPLES = pd.DataFrame(
    {
        "example_id": ["a", "b"],
        "label": [0, 1],
        "prediction": [0, 0],
        "length": [10, 20],
        "exit_depth": [1, 4],
        "tokens": [[10, 0, 0, 0], [20, 10, 10, 5]],
        "flops": [1_000_000_000, 3_000_000_000],
        "reference_flops": [2_000_000_000, 6_000_000_000],
        "seconds": [[0.1, 0.3, 0.2], [0.4, 0.5, 0.6]],
        "reference_seconds": [[0.4, 0.4, 0.1], [1.0, 1.0, 1.0]],
    }
)
BY_HAND = {
    "accuracy": 0.5,
    "f1": 0.0,  # class 1 is never predicted
    "macro_f1": 1 / 3,  # class 0: 2 * 1 / (1 + 2), class 1: 0
    "matthews": 0.0,  # one prediction for all
    "pearson": 0.0,
    "spearman": 0.0,
    "flops_speedup": 2.0,  # 8 / 4
    "gflops": 2.0,
    "mean_exit_depth": 2.5,
    "tokens_kept": 0.40625,  # (10/40 + 45/80) / 2
    "wall_speedup": 2.0,  # medians (0.4 + 1.0) / (0.2 + 0.5)
    "latency_p50_seconds": 0.35,  # of 0.1 0.2 0.3 0.4 0.5 0.6
    "latency_p90_seconds": 0.55,
    "latency_p99_seconds": 0.595,
}


@pytest.fixture
def examples(tmp_path: Path) -> pd.DataFrame:
    """Forty examples of which three are wrong and twenty timed."""
    return read_runs(tmp_path, StoredRun("run", wrong=(1, 2, 5), depths=(2, 6))).frames["run"]


@pytest.mark.parametrize("name", BY_HAND)
def test_metrics_give_the_hand_counts(name: str) -> None:
    """Each of these metrics gives the value worked out by hand on two examples."""
    assert METRICS[name].compute(TWO_EXAMPLES) == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_finite_on_a_stored_run(name: str, examples: pd.DataFrame) -> None:
    """Each metric is a finite float on a stored run, and its two-step form gives the same value."""
    metric = METRICS[name]
    rows = timed_rows(examples) if metric.timed else examples
    value = metric.compute(rows)
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert metric.terms is not None
    assert metric.reduce is not None
    terms = metric.terms(rows)
    assert terms.shape[0] == len(rows)
    np.testing.assert_allclose(metric.reduce(np.stack([terms, terms[::-1]])), [value, value], rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_no_metric_is_defined_on_no_examples(name: str, examples: pd.DataFrame) -> None:
    """An empty table is refused by the metric's name."""
    with pytest.raises(InputError, match=f"{name} of 0 examples"):
        METRICS[name].compute(examples.head(0))


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].timed])
def test_a_speed_metric_refuses_untimed_rows(name: str, examples: pd.DataFrame) -> None:
    """A row without latencies is refused, not skipped."""
    with pytest.raises(InputError, match="20 of 40 examples were not timed"):
        METRICS[name].compute(examples)


def test_quality_agrees_with_scikit_learn_on_random_answers() -> None:
    """The vectorised form that intervals use equals scikit-learn's value, resample by resample."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"label": rng.integers(0, 2, 200), "prediction": rng.integers(0, 2, 200)})
    agrees(frame, "accuracy", accuracy_score, rng)
    agrees(frame, "f1", f1_score, rng)
    agrees(frame, "matthews", matthews_corrcoef, rng)
    agrees(frame, "macro_f1", lambda label, prediction: f1_score(label, prediction, average="macro"), rng)


def test_quality_of_many_classes_agrees_with_scikit_learn() -> None:
    """So it does for five classes of 30 examples, two of them so rare that resamples lack them."""
    rng = np.random.default_rng(4)
    label, other = rng.choice(3, 30), rng.choice(3, 30)
    label[:2] = other[:2] = 3, 4
    frame = pd.DataFrame({"label": label, "prediction": np.where(rng.random(30) < 0.5, label, other)})
    agrees(frame, "matthews", matthews_corrcoef, rng)
    agrees(frame, "macro_f1", lambda label, prediction: f1_score(label, prediction, average="macro"), rng)


def test_correlations_agree_with_scipy_on_scores_with_ties() -> None:
    """Pearson and Spearman of a resample, which repeats rows and so ties their ranks, equal scipy's."""
    rng = np.random.default_rng(5)
    label = rng.integers(0, 26, 60) / 5
    frame = pd.DataFrame({"label": label, "prediction": label + rng.normal(0, 1.5, 60)})
    agrees(frame, "pearson", lambda label, prediction: pearsonr(label, prediction).statistic, rng)
    agrees(frame, "spearman", lambda label, prediction: spearmanr(label, prediction).statistic, rng)


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
def test_a_correlation_with_what_never_varies_is_0(name: str) -> None:
    """Where one side is the same everywhere a correlation is 0, without a warning, in both forms."""
    metric = METRICS[name]
    assert metric.terms is not None
    assert metric.reduce is not None
    constant, varying = [0.1] * 10, [1, 2] * 5  # ten times 0.1 is not 1: the mean is off by a rounding error
    for label, prediction in ((constant, varying), (varying, constant), (constant, constant)):
        frame = pd.DataFrame({"label": label, "prediction": prediction})
        assert metric.compute(frame) == metric.reduce(metric.terms(frame)) == 0.0


def agrees(
    frame: pd.DataFrame, name: str, truth: Callable[[pd.Series, pd.Series], float], rng: np.random.Generator
) -> None:
    """The metric on the frame, and its two-step form on five resamples, equal the truth."""
    metric = METRICS[name]
    assert metric.terms is not None
    assert metric.reduce is not None
    rows = rng.integers(0, len(frame), (5, len(frame)))
    wanted = [truth(frame["label"].take(row), frame["prediction"].take(row)) for row in rows]
    np.testing.assert_allclose(metric.reduce(metric.terms(frame)[rows]), wanted)
    assert metric.compute(frame) == pytest.approx(truth(frame["label"], frame["prediction"]))


def test_accuracy_counts_classes_beyond_two() -> None:
    """Accuracy does not care how many classes there are."""
    frame = pd.DataFrame({"label": [0, 1, 2, 2], "prediction": [0, 2, 2, 1]})
    assert METRICS["accuracy"].compute(frame) == 0.5


def test_f1_refuses_a_third_class() -> None:
    """Binary F1 on three classes is an error that names the odd class."""
    with pytest.raises(InputError, match=r"classes \[2\] too"):
        METRICS["f1"].compute(pd.DataFrame({"label": [0, 1, 2], "prediction": [0, 1, 1]}))


def test_f1_where_class_1_never_occurs() -> None:
    """With no class 1 anywhere F1 is 0, without a warning."""
    assert METRICS["f1"].compute(pd.DataFrame({"label": [0, 0], "prediction": [0, 0]})) == 0.0


def test_latency_of_unequal_rounds() -> None:
    """Where examples have different numbers of rounds, the percentile is still over all samples."""
    frame = pd.DataFrame({"seconds": [[1.0, 2.0, 3.0], [10.0]]})
    assert METRICS["latency_p50_seconds"].compute(frame) == 2.5


def test_the_speedup_is_a_ratio_of_sums() -> None:
    """Not a mean of ratios: 10/1 and 10/10 give 20/11, not 5.5."""
    frame = pd.DataFrame({"flops": [1, 10], "reference_flops": [10, 10]})
    assert METRICS["flops_speedup"].compute(frame) == pytest.approx(20 / 11)
