"""The table of arms: every metric with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis.tables.disturbance import disturbances
from analysis.tables.frames import Arm, Runs, timed_rows
from analysis.tables.selection import choose_arms, first_metric, quality_metrics, series
from analysis.tables.statistics import UNKNOWN, Interval, interval, mean_interval
from bench.registry import METRICS


def table(runs: Runs) -> pd.DataFrame:
    """Return one row per arm.

    Columns: task, series, method, arm, knobs, backbone, preset, synthetic, seeds, examples, timed_examples, device,
    disturbed_by (why its latencies are not to be trusted; empty where nothing says so);
    for each metric m: m, m_low, m_high (means over seeds) and m_seed_sd (NaN with one seed); heldout_<first
    metric>, heldout_flops_speedup, selected, run_ids. A metric that an arm lacks is NaN.
    """
    return _table(runs).copy()


@lru_cache(maxsize=8)  # every figure reads the same table; bootstrapping it once is enough
def _table(runs: Runs) -> pd.DataFrame:
    chosen = set(choose_arms(runs).values())
    return pd.DataFrame([_row(arm, runs, chosen=arm in chosen) for arm in runs.arms])


def _row(arm: Arm, runs: Runs, *, chosen: bool) -> dict[str, object]:
    frames = [runs.frames[run_id] for run_id in arm.run_ids]
    quality = first_metric(arm)
    row: dict[str, object] = {
        "task": arm.first.task,
        "series": series(arm, runs),
        "method": arm.first.method,
        "arm": arm.label,
        "knobs": " ".join(f"{name}={value}" for name, value in arm.knobs.items()),
        "backbone": arm.first.backbone,
        "preset": arm.first.preset,
        "synthetic": bool(arm.first.data.get("synthetic", False)),
        "seeds": ", ".join(map(str, arm.seeds)),
        "examples": min(map(len, frames)),
        "timed_examples": min(len(timed_rows(frame)) for frame in frames),
        "device": arm.device,
        "disturbed_by": "; ".join(disturbances(arm.records)),
    }
    for name in metric_names([arm]):
        row |= _estimate(name, frames)
    return row | {
        f"heldout_{quality}": arm.heldout_mean(quality),
        "heldout_flops_speedup": arm.heldout_mean("flops_speedup"),
        "selected": chosen,
        "run_ids": " ".join(arm.run_ids),
    }


def metric_names(arms: Iterable[Arm]) -> list[str]:
    """Name what the arms are measured by: their tasks' quality metrics, then compute, then speed; speed-ups first."""
    quality = dict.fromkeys(name for arm in arms for name in quality_metrics(arm))
    others = [name for name in METRICS if not METRICS[name].quality]
    return [*quality, *sorted(others, key=lambda name: (METRICS[name].timed, not name.endswith("_speedup"), name))]


def _estimate(name: str, frames: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Compute the metric's mean over seeds, the mean ends of the seeds' intervals and their standard deviation."""
    estimates = [measure(name, frame) for frame in frames]
    mean = mean_interval(estimates)
    return {
        name: mean.value,
        f"{name}_low": mean.low,
        f"{name}_high": mean.high,
        f"{name}_seed_sd": float(np.std([one.value for one in estimates], ddof=1)) if len(estimates) > 1 else math.nan,
    }


def measure(name: str, frame: pd.DataFrame) -> Interval:
    """Compute a metric of a run's table and its interval; of a timed one over the timed rows, NaN if there are none."""
    metric = METRICS[name]
    rows = timed_rows(frame) if metric.timed else frame
    return interval(metric, rows) if len(rows) else UNKNOWN
