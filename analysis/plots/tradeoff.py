"""Quality against the FLOPs that were saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analysis.curves import draw_front, draw_points, legend_above, points
from analysis.frames import Runs
from analysis.labels import label_points
from analysis.plots import Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _data(runs: Runs) -> pd.DataFrame:
    return points(runs, "flops_speedup")


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    draw_points(ax, frame, "flops_speedup", "quality")
    draw_front(ax, frame, "flops_speedup", "quality")
    ax.set_xlabel("FLOPs speed-up over the full model (ratio of sums, unpadded, analytic)")
    ax.set_ylabel(frame["y_metric"].iloc[0])
    legend_above(ax)
    label_points(ax, frame, "flops_speedup", "quality")


TRADEOFF = Plot(
    name="tradeoff",
    summary="quality against FLOPs speed-up, one curve per method",
    caption=(
        "Quality against FLOPs speed-up; up and to the right is better. A curve is one method, a point one knob value"
        " (written beside it where there is room), thin lines are intervals. The dotted staircase is the Pareto front:"
        " nothing measured beats it. A ring marks the point chosen on held-out data."
    ),
    data=_data,
    draw=_draw,
)
