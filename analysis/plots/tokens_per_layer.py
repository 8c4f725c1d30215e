"""How many of a text's tokens each layer still runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.figures.rows import ARM_COLUMNS, arm_values, draw_rows, layer_axis, row_height
from analysis.figures.style import INK, MUTED, SMALL_TEXT
from analysis.plots import Plot
from analysis.tables.frames import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
_COLUMNS = [*ARM_COLUMNS, "layer", "layers", "mean", *_QUANTILES, "examples", "run_ids"]
_TALLEST = 0.48  # of a row: all tokens


def _data(runs: Runs) -> pd.DataFrame:
    """Return one row per layer of every arm that drops tokens, seeds pooled; examples that have left do not count."""
    rows = []
    for arm in runs.arms:
        frames = [runs.frames[run_id] for run_id in arm.run_ids]
        tokens = np.concatenate([np.vstack(frame["tokens"].tolist()) for frame in frames])
        alive = tokens / np.concatenate([frame["length"].to_numpy() for frame in frames])[:, None]
        if not ((alive > 0) & (alive < 1)).any():
            continue
        for layer in range(arm.first.layers):
            shares = alive[tokens[:, layer] > 0, layer]
            if len(shares):
                quantiles = np.quantile(shares, list(_QUANTILES.values())).tolist()
                known = (*arm_values(arm, runs), layer + 1, arm.first.layers)
                rows.append((*known, float(shares.mean()), *quantiles, len(shares), " ".join(arm.run_ids)))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    def draw_row(arm: pd.DataFrame, row: int, colour: str) -> tuple[str, str]:
        _draw_layers(ax, arm, baseline=row + 0.97, colour=colour)
        return arm["arm"].iloc[0], f"mean {arm['mean'].mean():.0%} of the tokens alive"

    draw_rows(ax, frame, draw_row)
    layer_axis(ax, int(frame["layers"].max()))


def _draw_layers(ax: Axes, arm: pd.DataFrame, *, baseline: float, colour: str) -> None:
    """Draw a bar per layer up to the mean share alive. The mean is above it; p5 to p95 and p25 to p75 are beside it."""
    ax.bar(arm["layer"], -_TALLEST * arm["mean"], bottom=baseline, width=0.5, color=colour, alpha=0.85, zorder=2)
    ax.axhline(baseline, color=MUTED, linewidth=0.8, zorder=3)
    beside = arm["layer"] + 0.36
    for ends, width in ((("p5", "p95"), 1.2), (("p25", "p75"), 4.5)):
        low, high = (baseline - _TALLEST * arm[end] for end in ends)
        ax.vlines(beside, low, high, color=INK, linewidth=width, alpha=0.75, zorder=3)
    above: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": SMALL_TEXT, "color": INK}
    for layer, mean in zip(arm["layer"], arm["mean"], strict=True):
        ax.annotate(f"{mean:.0%}", (layer, baseline - _TALLEST * mean), xytext=(0, 1.5), **above)


TOKENS_PER_LAYER = Plot(
    name="tokens_per_layer",
    summary="share of a text's tokens that each layer runs on, one row per arm",
    caption=(
        "The share of an example's tokens that each layer runs on, a row per arm that drops any (seeds pooled,"
        " examples that have left do not count). The bar and the number are the mean; beside it the thick line goes"
        " from the 25th to the 75th percentile over examples, the thin one from the 5th to the 95th."
    ),
    data=_data,
    draw=_draw,
    order=55,
    height=row_height(inches=1.1),
)
