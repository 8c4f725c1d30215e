"""Metrics of time on the device of the run: wall-clock latency at batch 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.metrics import Metric
from bench.metrics.ratio import columns, ratio_metric, require_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def _require_timed(examples: pd.DataFrame) -> None:
    untimed = int((examples["seconds"].map(len) == 0).sum())
    if untimed:
        raise InputError(f"{untimed} of {len(examples)} examples were not timed; give a speed metric timed rows only")


def _samples(examples: pd.DataFrame) -> NDArray[np.float64]:
    """Return raw latencies in seconds, (n, rounds); an example with fewer rounds is filled with NaN."""
    import numpy as np

    _require_timed(examples)
    rounds = max(map(len, examples["seconds"]))
    filled = [[*seconds, *[np.nan] * (rounds - len(seconds))] for seconds in examples["seconds"]]
    return np.asarray(filled, np.float64)


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"


def _latency(percentile: int) -> Metric:
    """Make the metric of a percentile over all raw samples of the timed examples, linearly interpolated."""
    name = f"latency_p{percentile}_seconds"

    def reduce(terms: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        flat = terms.reshape(*terms.shape[:-2], -1)
        quantile = np.nanquantile if np.isnan(flat).any() else np.quantile
        return np.asarray(quantile(flat, percentile / 100, axis=-1), np.float64)

    def compute(examples: pd.DataFrame) -> float:
        require_rows(examples, name)
        return float(reduce(_samples(examples)))

    return Metric(
        name=name,
        summary=f"p{percentile} of wall-clock latency at batch 1 over all rounds of all timed examples, seconds",
        compute=compute,
        higher_is_better=False,
        headline=percentile == 50,
        timed=True,
        unit="ms",
        scale=1000,
        format=_three_digits,
        terms=_samples,
        reduce=reduce,
    )


def _medians(examples: pd.DataFrame) -> NDArray[np.float64]:
    import numpy as np

    _require_timed(examples)
    return columns(
        [np.median(seconds) for seconds in examples["reference_seconds"]],
        [np.median(seconds) for seconds in examples["seconds"]],
    )


LATENCY_P50 = _latency(50)
LATENCY_P90 = _latency(90)
LATENCY_P99 = _latency(99)
WALL_SPEEDUP = ratio_metric(
    "wall_speedup",
    "full model's seconds over this run's seconds in the same rounds: medians per example, ratio of sums over examples",
    terms=_medians,
    higher_is_better=True,
    headline=True,
    timed=True,
    format="{:z.2f}".format,
)
