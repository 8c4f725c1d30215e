"""The runs of a jointly trained model: its static subnets, and what chooses among them for each example."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis.tables.frames import Runs
from analysis.tables.identity import same_examples
from analysis.tables.selection import first_metric, series
from analysis.tables.statistics import Interval, mean_difference
from analysis.tables.table import table
from bench.registry import METRICS

STATIC = "static_subnet"
STAGE = "final"
"""The training stage that all runs of one family share."""


def family(runs: Runs) -> pd.DataFrame:
    """Return the table's rows of arms whose model was trained jointly, quality in the columns `quality`.

    `static` tells subnets from what chooses among them; `models` names the trained models, one per seed; `heldout` is
    the quality on held-out rows; of a subnet of one width `width` and `depth` are its fractions,
    else NaN; `group` names the series and those of its other knobs that vary.
    """
    frame = table(runs)
    name = first_metric(runs.arms[0])
    frame = frame.rename(columns={f"{name}{end}": f"quality{end}" for end in ("", "_low", "_high")})
    frame["y_metric"] = name
    frame["heldout"] = frame[f"heldout_{name}"].astype(float)
    frame["static"] = frame["method"] == STATIC
    models = [frozenset(str(record.artifacts.get(STAGE)) for record in arm.records) for arm in runs.arms]
    frame["models"] = pd.Series(models, index=frame.index)
    for column, knob in (("width", "width_mult"), ("depth", "depth_mult")):
        frame[column] = [to_number(arm.knobs.get(knob)) for arm in runs.arms]
    frame["layers"] = [arm.first.layers for arm in runs.arms]
    frame["group"] = groups(runs, apart=("width_mult", "depth_mult"))
    related = [STAGE in arm.first.artifacts for arm in runs.arms]
    return frame[pd.Series(related)].reset_index(drop=True)


def groups(runs: Runs, *, apart: Sequence[str] = ()) -> list[str]:
    """Return each arm's series, with those of its knobs, but for some, that vary within the series."""
    names = [series(arm, runs) for arm in runs.arms]
    labels = []
    for arm, name in zip(runs.arms, names, strict=True):
        others = [other for other, its_name in zip(runs.arms, names, strict=True) if its_name == name]
        varying = [
            f"{knob}={value}"
            for knob, value in arm.knobs.items()
            if knob not in apart and len({str(other.knobs.get(knob)) for other in others}) > 1
        ]
        labels.append(" ".join([name, *varying]))
    return labels


def to_number(value: object) -> float:
    """Return a knob's value as a number; NaN where it is none, such as a list of widths."""
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def pair_runs(runs: Runs, a: Sequence[str], b: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the runs of two lists that have one seed and report on the same texts, by rising seed."""
    records = {record.run_id: record for record in runs.records}
    one, other = ({records[run_id].seed: run_id for run_id in ids} for ids in (a, b))
    pairs = [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]
    return [(a, b) for a, b in pairs if same_examples(records[a], records[b])]


def difference(runs: Runs, pairs: Sequence[tuple[str, str]], metric: str) -> Interval:
    """Compute the mean over pairs of runs (a, b) of metric(b) - metric(a), and its interval."""
    return mean_difference(METRICS[metric], [(runs.frames[a], runs.frames[b]) for a, b in pairs])
