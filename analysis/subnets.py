"""The runs of a jointly trained model: its static subnets, and what chooses among them for each example."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis.frames import Runs
from analysis.identity import same_examples
from analysis.selection import first_metric, series
from analysis.statistics import Interval, mean_difference
from analysis.table import table
from bench.registry import METRICS

STATIC = "static_subnet"
STAGE = "final"
"""The training stage that all runs of one family share."""


def family(runs: Runs) -> pd.DataFrame:
    """The rows of the table of arms whose model was trained jointly, quality in the columns `quality`.

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
        frame[column] = [number(arm.knobs.get(knob)) for arm in runs.arms]
    frame["layers"] = [arm.first.layers for arm in runs.arms]
    frame["group"] = groups(runs, apart=("width_mult", "depth_mult"))
    related = [STAGE in arm.first.artifacts for arm in runs.arms]
    return frame[pd.Series(related)].reset_index(drop=True)


def groups(runs: Runs, *, apart: Sequence[str] = ()) -> list[str]:
    """Each arm's series, with those of its knobs, but for some, that vary within the series."""
    names = [series(arm, runs) for arm in runs.arms]
    found = []
    for arm, name in zip(runs.arms, names, strict=True):
        others = [other for other, own in zip(runs.arms, names, strict=True) if own == name]
        varying = [
            f"{knob}={value}"
            for knob, value in arm.knobs.items()
            if knob not in apart and len({str(other.knobs.get(knob)) for other in others}) > 1
        ]
        found.append(" ".join([name, *varying]))
    return found


def number(value: object) -> float:
    """A knob's value as a number; NaN where it is none, such as a list of widths."""
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def paired(runs: Runs, a: Sequence[str], b: Sequence[str]) -> list[tuple[str, str]]:
    """Of two lists of runs the pairs of one seed that report on the same texts, by rising seed."""
    records = {record.run_id: record for record in runs.records}
    one, other = ({records[run_id].seed: run_id for run_id in ids} for ids in (a, b))
    pairs = [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]
    return [(a, b) for a, b in pairs if same_examples(records[a], records[b])]


def difference(runs: Runs, pairs: Sequence[tuple[str, str]], metric: str) -> Interval:
    """The mean over pairs of runs (a, b) of what the metric of b has over that of a."""
    return mean_difference(METRICS[metric], [(runs.frames[a], runs.frames[b]) for a, b in pairs])
