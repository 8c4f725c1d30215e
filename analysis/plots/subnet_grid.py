"""Quality of every subnet, width by depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.patches import Rectangle

from analysis.figures.style import INK, MUTED, SMALL_TEXT, SURFACE, shorten
from analysis.plots import Plot
from analysis.tables.frames import Runs
from analysis.tables.subnets import family

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ["group", "arm", "width", "depth", "layers", "quality", "quality_low", "quality_high"]
_COLUMNS += ["flops_speedup", "y_metric", "run_ids"]
_PALEST, _DARKEST = 0.06, 0.5  # opacity of the worst and the best cell: ink stays legible on both, in light and in dark


def _data(runs: Runs) -> pd.DataFrame:
    """Return one row per static subnet of one width, by group, falling width and rising depth."""
    frame = family(runs)
    uniform = frame[frame["static"] & frame["width"].notna()]
    return uniform.sort_values(["group", "width", "depth"], ascending=[True, False, True])[_COLUMNS].reset_index(
        drop=True
    )


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    depths = sorted(frame["depth"].unique())
    low, high = frame["quality"].min(), frame["quality"].max()
    top, ticks = 0.0, {}
    for name, group in frame.groupby("group", sort=False):
        ax.text(-0.47, top + 0.42, shorten(str(name), 50), va="center", color=INK)
        top += 0.8
        for width, subnets in group.groupby("width", sort=False):
            ticks[top + 0.5] = f"{width:g}"
            for _, subnet in subnets.iterrows():
                _draw_cell(ax, subnet, corner=(depths.index(subnet["depth"]), top), low=low, high=high)
            top += 1
        top += 0.2
    ax.set_xlim(-0.5, len(depths) - 0.5)
    ax.set_ylim(top, 0)
    layers = int(frame["layers"].iloc[0])
    ax.set_xticks(range(len(depths)), [f"{depth:.2g}\n({round(depth * layers)} layers)" for depth in depths])
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.set_xlabel("Depth (fraction of the layers that run)")
    ax.set_ylabel("Width (fraction of heads and neurons)")
    ax.grid(visible=False)


def _draw_cell(ax: Axes, subnet: pd.Series[Any], *, corner: tuple[int, float], low: float, high: float) -> None:
    """Draw a cell, the darker the better, with its quality and what it saves."""
    column, top = corner
    share = (subnet["quality"] - low) / (high - low) if high > low else 1.0
    opacity = _PALEST + (_DARKEST - _PALEST) * share
    ax.add_patch(Rectangle((column - 0.5, top), 1, 1, facecolor=MUTED, alpha=opacity, linewidth=0))
    ax.add_patch(Rectangle((column - 0.5, top), 1, 1, facecolor="none", edgecolor=SURFACE, linewidth=2))
    middle: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
    ax.text(column, top + 0.36, f"{subnet['quality']:.3f}", fontsize=10, **middle)
    ax.text(column, top + 0.76, f"FLOPs ÷ {subnet['flops_speedup']:.2f}", fontsize=SMALL_TEXT, **middle)


SUBNET_GRID = Plot(
    name="subnet_grid",
    summary="quality of each subnet of a jointly trained model, width by depth",
    caption=(
        "Quality of each subnet of the jointly trained model, the darker the better on one scale for the whole figure,"
        " and how many times fewer FLOPs it needs than the full model. Widths fall from top to bottom, depths rise from"
        " left to right; seeds are averaged."
    ),
    data=_data,
    draw=_draw,
    order=60,
    height=lambda frame: 1.1 + 0.5 * (len(frame.drop_duplicates(["group", "width"])) + frame["group"].nunique()),
)
