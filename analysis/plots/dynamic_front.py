"""Is choosing for each example better than one good subnet for all?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.curves import FLOPS_AXIS, NO_KNOBS, draw_front, draw_points, legend_above, points
from analysis.frames import Runs
from analysis.labels import label_points
from analysis.pareto import front
from analysis.plots import Plot
from analysis.style import MUTED, SURFACE
from analysis.subnets import difference, family, groups, paired

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ["series", "curve", "method", "arm", "knobs", "model", "static"]
_COLUMNS += [f"{axis}{end}" for axis in ("flops_speedup", "quality") for end in ("", "_low", "_high")]
_COLUMNS += ["y_metric", "pareto", "selected", "rival", "over", "over_low", "over_high", "run_ids"]
_NONE = "-"


def _data(runs: Runs) -> pd.DataFrame:
    """The arms of jointly trained models, each with what chooses among its subnets; empty without both.

    `rival` is the best subnet of the arm's own model that costs no more, by held-out rows where it has them, `over`
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
    for _, own in frame[frame["static"]].groupby("model"):
        frame.loc[own.index, "pareto"] = front(own["flops_speedup"].tolist(), own["quality"].tolist())
    found = points(runs, "flops_speedup").set_index("arm")
    frame["curve"] = frame["arm"].map(found["curve"])
    named = dict(zip((arm.label for arm in runs.arms), groups(runs), strict=True))
    frame["knobs"] = [
        named[arm].removeprefix(own).strip() or NO_KNOBS for arm, own in zip(frame["arm"], frame["series"], strict=True)
    ]
    frame[["rival", "over", "over_low", "over_high"]] = [_over(runs, row, static) for _, row in frame.iterrows()]
    return frame[_COLUMNS].reset_index(drop=True)


def _over(runs: Runs, row: pd.Series[Any], static: pd.DataFrame) -> tuple[str, float, float, float]:
    """The best subnet of the same model at no more FLOPs, and the paired difference from it."""
    cheaper = static[
        (static["flops_speedup"] >= row["flops_speedup"]) & ~static["models"].map(row["models"].isdisjoint)
    ]
    pairs = {rival: paired(runs, rival.split(), row["run_ids"].split()) for rival in cheaper["run_ids"]}
    cheaper = cheaper[cheaper["run_ids"].map(pairs).astype(bool)]
    if row["static"] or cheaper.empty:
        return _NONE, math.nan, math.nan, math.nan
    judged = cheaper["heldout"] if cheaper["heldout"].notna().all() else cheaper["quality"]
    rival = cheaper.loc[judged.idxmax()]
    apart = difference(runs, pairs[rival["run_ids"]], row["y_metric"])
    return rival["arm"], apart.value, apart.low, apart.high


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    static, dynamic = frame[frame["static"]], frame[~frame["static"]]
    hollow: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 6, "zorder": 2}
    x, y = static["flops_speedup"], static["quality"]
    ax.plot(x, y, color=SURFACE, markeredgecolor=MUTED, label="static subnets", **hollow)
    draw_points(ax, dynamic, "flops_speedup", "quality")
    for number, (_, own) in enumerate(static.groupby("model")):
        draw_front(ax, own, "flops_speedup", "quality", label="_again" if number else "their Pareto front")
    ax.set_xlabel(FLOPS_AXIS)
    ax.set_ylabel(frame["y_metric"].iloc[0])
    legend_above(ax)
    label_points(ax, dynamic, "flops_speedup", "quality")


DYNAMIC_FRONT = Plot(
    name="dynamic_front",
    summary="methods that choose a subnet for each example, over the front of the static subnets",
    caption=(
        "Circles are static subnets of a jointly trained model, the dotted staircase is their front, which knows the"
        " reported answers and so flatters them. The others choose among the same subnets for each example, or are"
        " controls that choose by chance. The data of the figure name for each point the subnet of the same model that"
        " costs no more and does best on held-out rows (on these, where there are none), and the paired difference."
    ),
    data=_data,
    draw=_draw,
    order=64,
)
