"""Quality against what was saved: FLOPs, and time on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analysis.figures.curves import FLOPS_AXIS, cross_disturbed, draw_front, draw_points, points
from analysis.figures.labels import label_curves
from analysis.figures.style import wrap
from analysis.plots import Plot
from analysis.tables.summary import devices
from bench.registry import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _tradeoff(name: str, *, saved: str, axis: str, summary: str, caption: str, order: int) -> Plot:
    """Return the plot of quality against the metric `saved`.

    `{devices}` in the axis' label stands for the devices on which it was timed.
    """

    def draw(ax: Axes, frame: pd.DataFrame) -> None:
        draw_points(ax, frame, saved, "quality")
        draw_front(ax, frame, saved, "quality")
        if METRICS[saved].timed:
            cross_disturbed(ax, frame, saved, "quality")
        ax.set_xlabel(wrap(axis.format(devices=devices(frame))))
        ax.set_ylabel(frame["y_metric"].iloc[0])
        label_curves(ax, frame, saved, "quality")

    return Plot(name, summary, caption, data=lambda runs: points(runs, saved), draw=draw, order=order)


TRADEOFF = _tradeoff(
    "tradeoff",
    saved="flops_speedup",
    axis=FLOPS_AXIS,
    summary="quality against FLOPs speed-up, one curve per method",
    caption=(
        "Quality against FLOPs speed-up; up and to the right is better. A curve is one method, a point one knob value"
        " (written beside it where there is room, as far as a curve's points differ), thin lines are intervals. The"
        " dotted staircase is the Pareto front: nothing measured beats it. A ring marks the point chosen on held-out"
        " data."
    ),
    order=10,
)
WALL_TRADEOFF = _tradeoff(
    "wall_tradeoff",
    saved="wall_speedup",
    axis="Wall-clock speed-up over the full model at batch 1 on {devices}",
    summary="quality against wall-clock speed-up on the device of the runs",
    caption=(
        "The same quality against wall-clock speed-up at batch 1, measured on the device the axis names and valid for"
        " it alone. Both models are timed in the same rounds; the ratio is that of summed medians per example. Left of"
        " 1 a method is slower than the model it set out to speed up."
    ),
    order=20,
)
