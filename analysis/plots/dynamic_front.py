"""Is choosing for each example better than one good subnet for all?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.figures.curves import FLOPS_AXIS, NO_KNOBS, draw_front, draw_points, points
from analysis.figures.labels import label_curves
from analysis.figures.style import method_look
from analysis.plots import Plot
from analysis.tables.frames import Runs
from analysis.tables.pareto import front
from analysis.tables.subnets import STATIC, difference, family, groups, pair_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ["series", "curve", "method", "mechanism", "arm", "knobs", "model", "static"]
_COLUMNS += [f"{axis}{end}" for axis in ("flops_speedup", "quality") for end in ("", "_low", "_high")]
_COLUMNS += ["y_metric", "pareto", "selected", "rival", "over", "over_low", "over_high", "run_ids"]
_NONE = "-"  # where there is no rival
_TICKS = (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64)


def _data(runs: Runs) -> pd.DataFrame:
    """Return the arms of jointly trained models, each with what chooses among its subnets; empty without both.

    `rival` is the best subnet of the arm's model that costs no more, by held-out rows where it has them, `over`
    what the arm has over it.
    """
    frame = family(runs)
    chosen_from: frozenset[str] = frozenset().union(*frame.loc[~frame["static"], "models"])
    frame = frame[~frame["models"].map(chosen_from.isdisjoint).astype(bool)].copy()
    static = frame[frame["static"]]
    if static.empty:
        return pd.DataFrame(columns=_COLUMNS)
    frame["model"] = [" ".join(sorted(models)) for models in frame["models"]]
    frame["pareto"] = False
    for _, subnets in frame[frame["static"]].groupby("model"):
        frame.loc[subnets.index, "pareto"] = front(subnets["flops_speedup"].tolist(), subnets["quality"].tolist())
    arms = points(runs, "flops_speedup").set_index("arm")
    for column in ("curve", "mechanism"):
        frame[column] = frame["arm"].map(arms[column])
    names = dict(zip((arm.label for arm in runs.arms), groups(runs), strict=True))
    frame["knobs"] = [
        names[arm].removeprefix(series).strip() or NO_KNOBS
        for arm, series in zip(frame["arm"], frame["series"], strict=True)
    ]
    frame[["rival", "over", "over_low", "over_high"]] = [
        _compare_with_rival(runs, row, static) for _, row in frame.iterrows()
    ]
    return frame[_COLUMNS].reset_index(drop=True)


def _compare_with_rival(runs: Runs, row: pd.Series[Any], static: pd.DataFrame) -> tuple[str, float, float, float]:
    """Return the best subnet of the same model at no more FLOPs, and the paired difference from it."""
    cheaper = static[
        (static["flops_speedup"] >= row["flops_speedup"]) & ~static["models"].map(row["models"].isdisjoint)
    ]
    pairs = {rival: pair_runs(runs, rival.split(), row["run_ids"].split()) for rival in cheaper["run_ids"]}
    cheaper = cheaper[cheaper["run_ids"].map(pairs).astype(bool)]
    if row["static"] or cheaper.empty:
        return _NONE, math.nan, math.nan, math.nan
    judged = cheaper["heldout"] if cheaper["heldout"].notna().all() else cheaper["quality"]
    rival = cheaper.loc[judged.idxmax()]
    apart = difference(runs, pairs[rival["run_ids"]], row["y_metric"])
    return rival["arm"], apart.value, apart.low, apart.high


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    static, dynamic = frame[frame["static"]], frame[~frame["static"]]
    ax.set_xscale("log")  # most points lie between 1 and 3
    marks: dict[str, Any] = {**method_look(STATIC).points, "linestyle": "none", "markersize": 6.5, "zorder": 2}
    ax.plot(static["flops_speedup"], static["quality"], label="static subnets", **marks)
    draw_points(ax, dynamic, "flops_speedup", "quality")
    for number, (_, subnets) in enumerate(static.groupby("model")):
        draw_front(ax, subnets, "flops_speedup", "quality", label="_again" if number else "their Pareto front")
    low, high = ax.get_xlim()
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(FLOPS_AXIS)
    ax.set_ylabel(frame["y_metric"].iloc[0])
    label_curves(ax, dynamic, "flops_speedup", "quality")


DYNAMIC_FRONT = Plot(
    name="dynamic_front",
    summary="methods that choose a subnet for each example, over the front of the static subnets",
    caption=(
        "Grey hexagons are static subnets of a jointly trained model, the dotted staircase is their front, which knows"
        " the reported answers and so flatters them. The others choose among the same subnets for each example, or are"
        " controls that choose by chance. The data of the figure name for each point the subnet of the same model that"
        " costs no more and does best on held-out rows (on these, where there are none), and the paired difference."
    ),
    data=_data,
    draw=_draw,
    order=64,
)
