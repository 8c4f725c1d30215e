"""What neural grafting is worth, subnet by subnet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from analysis.figures.labels import legend_below
from analysis.figures.style import INK, MUTED, SMALL_TEXT, SURFACE, shorten
from analysis.plots import Plot
from analysis.tables.frames import Runs
from analysis.tables.selection import first_metric
from analysis.tables.subnets import difference, family, pair_runs
from bench.registry import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ["series", "width", "depth", "without", "with", "difference", "difference_low", "difference_high"]
_COLUMNS += ["by_seed", "y_metric", "run_ids"]


def _data(runs: Runs) -> pd.DataFrame:
    """Return one row per static subnet that was trained both ways, all else equal, by falling width and depth.

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
        parts = []
        for size, both in subnets.groupby(["width", "depth"], sort=False):
            ids = {way: part["run_ids"].iloc[0].split() for way, part in both.groupby("graft")}
            parts.append((size, pair_runs(runs, ids.get("no", []), ids.get("yes", []))))
        parts = [(size, pairs) for size, pairs in parts if pairs]
        if len(parts) > 1:
            parts.append(((math.nan, math.nan), [pair for _, pairs in parts for pair in pairs]))
        rows += [_row(runs, (series, *size), pairs) for size, pairs in parts]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _row(runs: Runs, known: tuple[object, ...], pairs: Sequence[tuple[str, str]]) -> tuple[object, ...]:
    """Return a row for pairs of runs, without and with grafting: the means, their difference, and each seed's."""
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
    heights = _heights(frame)
    ax.hlines(heights, frame["without"], frame["with"], color=MUTED, linewidth=2, zorder=2)
    marks: dict[str, Any] = {"linestyle": "none", "color": MUTED, "markeredgecolor": MUTED, "zorder": 3}
    ax.plot(frame["without"], heights, **marks, marker="o", markersize=8, markerfacecolor=SURFACE, label="without")
    ax.plot(frame["with"], heights, **marks, marker="D", markersize=6.5, label="grafted")
    sizes = zip(frame["width"], frame["depth"], strict=True)
    ax.set_yticks(heights, ["mean" if np.isnan(width) else f"{width:g} x {depth:.2g}" for width, depth in sizes])
    ax.set_ylim(heights[-1] + 0.6, -0.6)
    edge = ax.get_yaxis_transform()
    for height, row in zip(heights, frame.to_dict("records"), strict=True):
        text = f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        ax.text(1.01, height, text, transform=edge, va="center", ha="left", color=INK, fontsize=SMALL_TEXT)
    if frame["series"].nunique() > 1:
        for name, height in dict(zip(frame["series"][::-1], heights[::-1], strict=True)).items():
            ax.text(0, height - 1, shorten(name, 40), transform=edge, va="center", ha="left", color=INK)
    ax.set_xlabel(frame["y_metric"].iloc[0])
    ax.set_ylabel("Subnet (width x depth)")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.margins(x=0.06)
    legend_below(ax)


def _heights(frame: pd.DataFrame) -> list[int]:
    """Return where each row stands, from the top; where there are several series, a line above each stays free."""
    number = frame["series"].ne(frame["series"].shift()).cumsum()
    return list(range(len(frame))) if number.max() == 1 else (np.arange(len(frame)) + number).tolist()


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
    height=lambda frame: 0.8 + 0.28 * (1 + _heights(frame)[-1]),
)
