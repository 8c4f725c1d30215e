"""Quality against the time that was saved on the device."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pandas as pd

from analysis.curves import draw_front, draw_points, legend_above, points
from analysis.frames import Runs
from analysis.labels import label_points
from analysis.plots import Plot
from analysis.summary import devices

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _data(runs: Runs) -> pd.DataFrame:
    return points(runs, "wall_speedup")


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    draw_points(ax, frame, "wall_speedup", "quality")
    draw_front(ax, frame, "wall_speedup", "quality")
    ax.set_xlabel(textwrap.fill(f"Wall-clock speed-up over the full model at batch 1 on {devices(frame)}", 72))
    ax.set_ylabel(frame["y_metric"].iloc[0])
    legend_above(ax)
    label_points(ax, frame, "wall_speedup", "quality")


WALL_TRADEOFF = Plot(
    name="wall_tradeoff",
    summary="quality against wall-clock speed-up on the device of the runs",
    caption=(
        "The same quality against wall-clock speed-up at batch 1, measured on the device the axis names and valid for"
        " it alone. Both models are timed in the same rounds; the ratio is that of summed medians per example. Left of"
        " 1 a method is slower than the model it set out to speed up."
    ),
    data=_data,
    draw=_draw,
)
