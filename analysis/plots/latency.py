"""How latency is spread over examples and rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from analysis.figures.rows import ARM_COLUMNS, arm_values, draw_rows, row_height
from analysis.figures.style import INK, SURFACE, wrap
from analysis.plots import Plot
from analysis.tables.disturbance import MARK, is_disturbed
from analysis.tables.frames import Runs, timed_rows
from analysis.tables.summary import devices, format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
_COLUMNS = [*ARM_COLUMNS, "device", "percentile", "seconds", "samples", "disturbed", "run_ids"]
_LOG_ABOVE = 15  # p99 / p1 over all arms above which a linear axis hides the fast arms
_MIDDLE = 0.79  # of a row: where its line lies


def _data(runs: Runs) -> pd.DataFrame:
    """Return one row per timed arm and percentile of its raw samples, seeds pooled."""
    rows = []
    for arm in runs.arms:
        frames = [timed_rows(runs.frames[run_id]) for run_id in arm.run_ids]
        samples = [sample for frame in frames for seconds in frame["seconds"] for sample in seconds]
        if not samples:
            continue
        for percentile, value in zip(_PERCENTILES, np.percentile(samples, _PERCENTILES), strict=True):
            known = (*arm_values(arm, runs), arm.device, percentile, float(value), len(samples))
            rows.append((*known, is_disturbed(arm), " ".join(arm.run_ids)))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    several = frame["device"].nunique() > 1

    def draw_row(arm: pd.DataFrame, row: int, colour: str) -> tuple[str, str]:
        at = dict(zip(arm["percentile"], arm["seconds"], strict=True))
        _draw_spread(ax, at, height=row + _MIDDLE, colour=colour)
        note = ", ".join(f"p{p} {format_value(f'latency_p{p}_seconds', at[p])}" for p in (50, 90, 99)) + " ms"
        mark = MARK if arm["disturbed"].iloc[0] else ""
        return _label(arm["arm"].iloc[0], arm["device"].iloc[0], several=several), note + mark

    draw_rows(ax, frame, draw_row)
    low, high = (frame.loc[frame["percentile"] == p, "seconds"] * 1000 for p in (1, 99))
    if high.max() > _LOG_ABOVE * low.min() > 0:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))  # a power of ten would need mathtext
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(0, high.max() * 1.04)
    marked = f" ({MARK} busy or unsteady machine)" if frame["disturbed"].any() else ""
    ax.set_xlabel(wrap(f"Latency at batch 1 (ms) on {devices(frame)}{marked}"))


def _label(name: str, device: str, *, several: bool) -> str:
    return f"{name}, {device}" if several and device not in name else name


def _draw_spread(ax: Axes, at: Mapping[int, float], *, height: float, colour: str) -> None:
    """Draw p1 to p99 thin, p25 to p75 thick, a dot at the median and a tick at p90.

    `at` maps percentiles to seconds; they are drawn in ms."""
    ms = {percentile: seconds * 1000 for percentile, seconds in at.items()}
    ax.hlines(height, ms[1], ms[99], color=colour, linewidth=1.4, zorder=2)
    ax.hlines(height, ms[25], ms[75], color=colour, linewidth=8, alpha=0.55, zorder=2)
    ax.vlines(ms[90], height - 0.16, height + 0.16, color=INK, linewidth=1.4, zorder=3)
    dot: dict[str, Any] = {"marker": "o", "markersize": 7, "markeredgecolor": SURFACE, "markeredgewidth": 1}
    ax.plot([ms[50]], [height], color=colour, zorder=4, **dot)


LATENCY = Plot(
    name="latency",
    summary="latency at batch 1, one row per arm: median, quartiles, p90, p1 to p99",
    caption=(
        "Latency of single examples on the device the axis names, over all raw samples (every round of every timed"
        " example, seeds pooled). The dot is the median, the thick bar runs from p25 to p75, the thin line from p1 to"
        " p99, and the tick marks p90. Equal-looking medians with different tails are different systems."
    ),
    data=_data,
    draw=_draw,
    order=40,
    height=row_height(inches=0.66),
)
