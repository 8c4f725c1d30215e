"""How wide each layer runs, for how many examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.figures.rows import ARM_COLUMNS, arm_values, draw_rows, layer_axis, row_height
from analysis.figures.style import INK, MUTED, SMALL_TEXT, SURFACE
from analysis.plots import Plot
from analysis.tables.frames import Runs
from analysis.tables.subnets import groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = [*ARM_COLUMNS, "name", "layer", "layers", "width", "share", "examples", "run_ids"]
_TALLEST = 0.66  # of a row: all examples
_PALEST, _DARKEST = 0.06, 0.5  # opacity of width 0 and 1: ink stays legible on both, in light and in dark
_WRITTEN = 0.15  # smaller shares have no room for a number


def _data(runs: Runs) -> pd.DataFrame:
    """Return one row per arm, layer and width, seeds pooled, of the arms in which widths differ.

    Examples that have left do not count.
    """
    rows = []
    for arm, name in zip(runs.arms, groups(runs), strict=True):
        heads = np.concatenate([np.vstack(runs.frames[run_id]["heads"].tolist()) for run_id in arm.run_ids])
        reference = runs.full_model(arm.first)
        most = np.vstack(runs.frames[reference.run_id]["heads"].tolist()).max() if reference else heads.max()
        if len(np.unique(heads[heads > 0])) < 2:
            continue
        for layer in range(heads.shape[1]):
            present = heads[heads[:, layer] > 0, layer]
            known = (*arm_values(arm, runs), name, layer + 1, arm.first.layers)
            rows += [
                (*known, float(count / most), float((present == count).mean()), len(present), " ".join(arm.run_ids))
                for count in np.unique(present)
            ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    def draw_row(arm: pd.DataFrame, row: int, colour: str) -> tuple[str, str]:
        for _, layer in arm.groupby("layer", sort=True):
            _draw_layer(ax, layer, baseline=row + 0.97, colour=colour)
        ax.axhline(row + 0.97, color=MUTED, linewidth=0.8, zorder=3)
        mean = (arm["width"] * arm["share"] * arm["examples"]).sum() / (arm["share"] * arm["examples"]).sum()
        return arm["name"].iloc[0], f"mean width {mean:.2f}"

    draw_rows(ax, frame, draw_row)
    layer_axis(ax, int(frame["layers"].max()))


def _draw_layer(ax: Axes, layer: pd.DataFrame, *, baseline: float, colour: str) -> None:
    """Draw a bar from the narrowest width, at the bottom, to the widest and darkest, with the widths written in."""
    foot = baseline
    for _, part in layer.sort_values("width").iterrows():
        height, number = _TALLEST * part["share"], part["layer"]
        opacity = _PALEST + (_DARKEST - _PALEST) * part["width"]
        style: dict[str, Any] = {"color": colour, "alpha": opacity, "edgecolor": SURFACE, "linewidth": 1, "zorder": 2}
        ax.bar(number, -height, bottom=foot, width=0.8, **style)
        if part["share"] >= _WRITTEN:
            text = f"{part['width']:.2f}".rstrip("0").rstrip(".").removeprefix("0")
            ax.text(number, foot - height / 2, text, ha="center", va="center", fontsize=SMALL_TEXT, color=INK, zorder=4)
        foot -= height


WIDTHS_PER_LAYER = Plot(
    name="widths_per_layer",
    summary="share of examples at each width, layer by layer, one row per arm",
    caption=(
        "The share of examples that each layer runs at each width, a row per arm whose widths differ (seeds pooled,"
        " examples that have left do not count). A bar holds all examples; the narrowest width is at the bottom and the"
        " palest, and larger parts name theirs, as a fraction of heads and neurons."
    ),
    data=_data,
    draw=_draw,
    order=58,
    height=row_height(inches=1.35),
)
