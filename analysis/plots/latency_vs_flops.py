"""Does work that was saved become time that was saved?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analysis.figures.curves import FLOPS_AXIS, cross_disturbed, draw_points, points
from analysis.figures.labels import label_curves
from analysis.figures.style import MUTED, wrap
from analysis.plots import Plot
from analysis.tables.frames import Runs
from analysis.tables.summary import devices

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _data(runs: Runs) -> pd.DataFrame:
    return points(runs, "flops_speedup", "wall_speedup").drop(columns="pareto")


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    draw_points(ax, frame, "flops_speedup", "wall_speedup")
    cross_disturbed(ax, frame, "flops_speedup", "wall_speedup")
    ax.axline((1, 1), slope=1, color=MUTED, linewidth=1, linestyle=(0, (5, 3)), zorder=1, label="equal savings")
    ax.set_xlabel(FLOPS_AXIS)
    ax.set_ylabel(wrap(f"Wall-clock speed-up at batch 1 on {devices(frame)}", 36))
    label_curves(ax, frame, "flops_speedup", "wall_speedup")


LATENCY_VS_FLOPS = Plot(
    name="latency_vs_flops",
    summary="wall-clock speed-up against FLOPs speed-up",
    caption=(
        "How much of the FLOPs speed-up becomes wall-clock speed-up at batch 1 on the device the axis names. On the"
        " dashed line every FLOP saved is time saved; the distance below it is what deciding, gathering and launching"
        " cost."
    ),
    data=_data,
    draw=_draw,
    order=30,
)
