"""After how many layers examples leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.figures.rows import ARM_COLUMNS, arm_values, draw_rows, layer_axis, row_height
from analysis.figures.style import INK, MUTED, SMALL_TEXT
from analysis.plots import Plot
from analysis.tables.frames import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TALLEST = 0.45  # of a row: the bar of the largest share
_WRITTEN = 0.005  # smaller shares would read 0%


def _data(runs: Runs) -> pd.DataFrame:
    """Return one row per arm and depth, seeds pooled; only arms whose examples leave at several depths, if any's do."""
    rows = []
    for arm in runs.arms:
        depths = pd.concat([runs.frames[run_id]["exit_depth"] for run_id in arm.run_ids])
        for depth in range(1, arm.first.layers + 1):
            rows.append(
                {
                    **dict(zip(ARM_COLUMNS, arm_values(arm, runs), strict=True)),
                    "depth": depth,
                    "layers": arm.first.layers,
                    "examples": int((depths == depth).sum()),
                    "share": float((depths == depth).mean()),
                    "mean_exit_depth": float(depths.mean()),
                    "run_ids": " ".join(arm.run_ids),
                }
            )
    frame = pd.DataFrame(rows)
    several = frame.groupby("run_ids")["share"].transform("max") < 1
    return frame[several].reset_index(drop=True) if several.any() else frame


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    scale = _TALLEST / frame["share"].max()

    def draw_row(arm: pd.DataFrame, row: int, colour: str) -> tuple[str, str]:
        _draw_bars(ax, arm, baseline=row + 1, scale=scale, colour=colour)
        return arm["arm"].iloc[0], f"mean {arm['mean_exit_depth'].iloc[0]:.2f} of {arm['layers'].iloc[0]}"

    draw_rows(ax, frame, draw_row)
    layer_axis(ax, int(frame["layers"].max()), label="Exit depth (layers run before the answer)")


def _draw_bars(ax: Axes, arm: pd.DataFrame, *, baseline: float, scale: float, colour: str) -> None:
    """Draw a bar per depth, upwards from the baseline (rows count downwards), its share above it."""
    ax.bar(arm["depth"], -scale * arm["share"], bottom=baseline, width=0.72, color=colour, zorder=2)
    ax.axhline(baseline, color=MUTED, linewidth=0.8, zorder=3)
    above: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": SMALL_TEXT, "color": INK}
    for depth, share in zip(arm["depth"], arm["share"], strict=True):
        if share >= _WRITTEN:
            ax.annotate(f"{share:.0%}", (depth, baseline - scale * share), xytext=(0, 1.5), **above)


EXIT_DEPTHS = Plot(
    name="exit_depths",
    summary="share of examples that leave after each layer, one row per arm",
    caption=(
        "The share of examples answered after each number of layers, a row per arm, on one scale (seeds pooled)."
        " Arms that run as many layers on every example are left out, unless there is no other."
    ),
    data=_data,
    draw=_draw,
    order=50,
    height=row_height(inches=0.98),
)
