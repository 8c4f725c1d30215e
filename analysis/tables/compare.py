"""Two runs side by side, on the same examples."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.tables.disturbance import MARK, disturbances, note
from analysis.tables.frames import Runs, timed_rows
from analysis.tables.identity import backbone_names, device, fingerprint, same_examples
from analysis.tables.statistics import (
    CONFIDENCE,
    Interval,
    align,
    group_rows_by_text,
    interval,
    interval_note,
    mcnemar,
    paired_difference,
)
from analysis.tables.summary import SYNTHETIC_NOTE, Summary, devices, format_value, heading
from analysis.tables.table import metric_names
from bench.errors import InputError
from bench.registry import METRICS
from bench.store.packs import RunReader
from bench.store.records import Record


def compare(store: RunReader, a: str, b: str) -> pd.DataFrame:
    """Compute every metric of runs `a` and `b`, and what changes from `a` to `b`.

    Returns:
        One row per metric: metric, a, a_low, a_high, b, b_low, b_high, difference (b - a), difference_low,
        difference_high (paired bootstrap over examples), better ("a" or "b" by the metric's direction; "" where
        that interval holds 0, McNemar's p is above 0.05, or a speed was taken on a disturbed machine), mcnemar_p
        (exact; accuracy only, and NaN where texts are read in several windows), device (of the two timings; a timed
        metric is left out unless both runs have it), disturbed_by (why a speed is not to be trusted).

    Raises:
        InputError: a run is missing, or the two are of different tasks or example sets.
    """
    if a == b:
        raise InputError(f"run {a} is to be compared with itself; name two different runs")
    runs = Runs.read(store, [a, b])
    one, other = runs.records
    require_paired(one, other)
    align(runs.frames[a], runs.frames[b])
    devices_of_both = " / ".join(dict.fromkeys([device(one), device(other)]))
    rows = [_row(name, runs.frames[a], runs.frames[b]) for name in metric_names(runs.arms)]
    frame = pd.DataFrame([{**row, "device": devices_of_both, "disturbed_by": ""} for row in rows if row])
    is_timed = frame["metric"].map(lambda name: METRICS[name].timed)
    if reasons := disturbances(runs.records):
        frame.loc[is_timed, ["better", "disturbed_by"]] = ["", "; ".join(reasons)]
    return frame


def require_paired(one: Record, other: Record) -> None:
    """Check that two runs report on the same texts: equal ids and labels say nothing of them.

    Raises:
        InputError: they are of other tasks, splits or fingerprints.
    """
    a, b = one.run_id, other.run_id
    if one.task != other.task:
        raise InputError(f"run {a} is of task {one.task!r}, run {b} of {other.task!r}; compare runs of one task")
    splits = [record.data.get("split") for record in (one, other)]
    if splits[0] != splits[1]:
        raise InputError(
            f"run {a} reports on split {splits[0]!r}, run {b} on {splits[1]!r}; compare runs of one split (--split)"
        )
    if not same_examples(one, other):
        prints = [fingerprint(record, "evaluation") for record in (one, other)]
        raise InputError(
            f"run {a} reports on data of fingerprint {prints[0]}, run {b} on {prints[1]}: their texts, pairs or labels "
            f"differ, so they are not paired; evaluate both on one --data-dir with the same --eval-rows"
        )


def _row(name: str, a: pd.DataFrame, b: pd.DataFrame) -> dict[str, object]:
    metric = METRICS[name]
    if metric.timed:
        both = set(timed_rows(a)["example_id"]) & set(timed_rows(b)["example_id"])
        a, b = (timed_rows(frame)[timed_rows(frame)["example_id"].isin(both)] for frame in (a, b))
    if a.empty:
        return {}
    difference = paired_difference(metric, a, b)
    independent = len(group_rows_by_text(a)) == len(a)
    p_value = mcnemar(a, b).p_value if name == "accuracy" and independent else math.nan
    return {
        "metric": name,
        **_interval_columns("a", interval(metric, a)),
        **_interval_columns("b", interval(metric, b)),
        **_interval_columns("difference", difference),
        "better": _better_run(difference, more=metric.higher_is_better, p_value=p_value),
        "mcnemar_p": p_value,
    }


def _better_run(difference: Interval, *, more: bool, p_value: float) -> str:
    """Return the better run, by whether `more` is better; "" where the interval or the test leaves it open."""
    if p_value > 1 - CONFIDENCE or not (difference.low > 0 or difference.high < 0):
        return ""
    return "b" if (difference.low > 0) == more else "a"


def _interval_columns(name: str, estimate: Interval) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def comparison(store: RunReader, a: str, b: str) -> Summary:
    """Return `compare` as text, for a terminal.

    Raises:
        InputError: as `compare`.
    """
    frame = compare(store, a, b)
    rows = [
        (
            heading(row["metric"], frame),
            *(_cell(row, column) for column in ("a", "b", "difference")),
            "withheld" if row["disturbed_by"] else row["better"].upper(),
            "" if math.isnan(row["mcnemar_p"]) else f"{row['mcnemar_p']:.2g}",
        )
        for _, row in frame.iterrows()
    ]
    one, other = store.record(a), store.record(b)
    backbones = backbone_names([one, other])
    made = f" ({SYNTHETIC_NOTE})" if one.data.get("synthetic") else ""
    busy = note(Runs(records=(one, other), frames={}))
    return Summary(
        columns=("metric", f"A {a}", f"B {b}", "B - A", "better", "McNemar p"),
        rows=tuple(rows),
        notes=(
            f"A: {one.label}, {backbones[0]}, seed {one.seed}",
            f"B: {other.label}, {backbones[-1]}, seed {other.seed}",
            f"task: {one.task}{made}",
            f"interval: {interval_note(store.examples(a).to_pandas())}; B - A resamples both runs by the same examples",
            f"better: where the interval of B - A leaves out 0 and p, if there is one, is at most {1 - CONFIDENCE:g}",
            f"speeds: on {devices(frame)}, over the examples timed in both runs",
            *([f"busy machine: {busy}"] if busy else []),
        ),
    )


def _cell(row: pd.Series[Any], column: str) -> str:
    sign = "+" if column == "difference" and row[column] > 0 else ""
    names = (column, f"{column}_low", f"{column}_high")
    value, low, high = (format_value(row["metric"], float(row[name])) for name in names)
    return f"{sign}{value}{MARK if row['disturbed_by'] else ''} [{low}, {high}]"
