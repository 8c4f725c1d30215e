"""What neural grafting is worth, subnet by subnet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.curves import legend_above
from analysis.frames import Runs
from analysis.plots import Plot
from analysis.selection import first_metric
from analysis.style import INK, MUTED, SERIES, SURFACE, shorten
from analysis.subnets import difference, family, paired
from bench.registry import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ["series", "width", "depth", "without", "with", "difference", "difference_low", "difference_high"]
_COLUMNS += ["by_seed", "y_metric", "run_ids"]


def _data(runs: Runs) -> pd.DataFrame:
    """One row per static subnet that was trained both ways and is otherwise the same, by falling width and depth.

    Several of a series are followed by the mean over subnets and seeds, of width and depth NaN.
    """
    frame = family(runs)
    frame = frame[frame["static"] & frame["width"].notna()]
    grafted = {arm.label: str(arm.knobs.get("graft")) for arm in runs.arms}
    others = frame["group"].str.replace(r" graft=\w+", "", regex=True)
    frame = frame.assign(graft=frame["arm"].map(grafted), rest=others)
    frame = frame.sort_values(["rest", "width", "depth"], ascending=[True, False, False])
    rows = []
    for series, subnets in frame.groupby("rest", sort=False):
        found = []
        for place, both in subnets.groupby(["width", "depth"], sort=False):
            ids = {way: part["run_ids"].iloc[0].split() for way, part in both.groupby("graft")}
            found.append((place, paired(runs, ids.get("no", []), ids.get("yes", []))))
        found = [(place, pairs) for place, pairs in found if pairs]
        if len(found) > 1:
            found.append(((math.nan, math.nan), [pair for _, pairs in found for pair in pairs]))
        rows += [_row(runs, (series, *place), pairs) for place, pairs in found]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _row(runs: Runs, known: tuple[object, ...], pairs: Sequence[tuple[str, str]]) -> tuple[object, ...]:
    """Of pairs of runs, without and with grafting: the mean of either, of the difference, and of each seed's."""
    name = first_metric(runs.arms[0])
    apart = difference(runs, pairs, name)
    seeds = {record.run_id: record.seed for record in runs.records}
    scores = {run_id: METRICS[name].compute(runs.frames[run_id]) for pair in pairs for run_id in pair}
    without, grafted = (fmean(scores[run_id] for run_id in ids) for ids in zip(*pairs, strict=True))
    by_seed = [
        f"seed {seed}: {fmean(scores[b] - scores[a] for a, b in pairs if seeds[a] == seed):+.4f}"
        for seed in sorted({seeds[a] for a, _ in pairs})
    ]
    ids = " ".join(run_id for pair in pairs for run_id in pair)
    return (*known, without, grafted, apart.value, apart.low, apart.high, ", ".join(by_seed), name, ids)


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    places = np.arange(len(frame))
    ax.hlines(places, frame["without"], frame["with"], color=MUTED, linewidth=2, zorder=2)
    look: dict[str, Any] = {"linestyle": "none", "markersize": 8, "zorder": 3, "markeredgewidth": 1.6}
    ax.plot(frame["without"], places, marker="o", color=SURFACE, markeredgecolor=SERIES[1], label="without", **look)
    ax.plot(frame["with"], places, marker="D", color=SERIES[0], markeredgecolor=SERIES[0], label="grafted", **look)
    several = frame["series"].nunique() > 1
    ax.set_yticks(
        places,
        [
            ("mean over subnets" if np.isnan(width) else f"width {width:g}, depth {depth:.2g}")
            + (f", {shorten(name, 64)}" if several else "")
            for name, width, depth in zip(frame["series"], frame["width"], frame["depth"], strict=True)
        ],
    )
    ax.set_ylim(len(frame) - 0.4, -0.6)
    edge = ax.get_yaxis_transform()
    for place, row in enumerate(frame.to_dict("records")):
        text = f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        ax.text(1.01, place, text, transform=edge, va="center", ha="left", color=INK, fontsize=8.5)
    ax.set_xlabel(frame["y_metric"].iloc[0])
    ax.margins(x=0.06)
    legend_above(ax)


GRAFTING = Plot(
    name="grafting",
    summary="quality of each subnet with and without neural grafting",
    caption=(
        "Each subnet trained without (circle) and with neural grafting (diamond), all else equal. On the right what"
        " grafting changes, with a paired interval over examples, which says nothing of another training; seeds are"
        " averaged, and the last row is the mean over the subnets. The data of the figure have each seed's difference."
    ),
    data=_data,
    draw=_draw,
    order=62,
    height=lambda frame: 1.1 + 0.32 * len(frame),
)
