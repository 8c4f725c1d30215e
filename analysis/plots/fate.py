"""What becomes of one text's words, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.figures.rows import ARM_COLUMNS, arm_values, draw_rows, row_height
from analysis.figures.style import MUTED, SMALL_TEXT, shorten
from analysis.plots import Plot
from analysis.tables.frames import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = [*ARM_COLUMNS, "position", "piece", "live_layers", "layers", "run_ids"]
_TALLEST, _BASELINE = 0.31, 0.52  # of a row: live in every layer; where bars stand
_PIECE: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "top", "fontsize": SMALL_TEXT}


def _data(runs: Runs) -> pd.DataFrame:
    """Return one row per word piece of the first shown example, of every arm that drops any of them."""
    rows = []
    for arm in runs.arms:
        for example in arm.first.shown[:1]:
            live, pieces = example["layers"], example["pieces"]
            if len(set(live)) == 1:
                continue
            rows += [
                (*arm_values(arm, runs), position, piece, layers, arm.first.layers, arm.first.run_id)
                for position, (piece, layers) in enumerate(zip(pieces, live, strict=True))
            ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    def draw_row(arm: pd.DataFrame, row: int, colour: str) -> tuple[str, str]:
        baseline = row + _BASELINE
        share = arm["live_layers"] / arm["layers"]
        ax.bar(arm["position"], -_TALLEST * share, bottom=baseline, width=0.7, color=colour)
        ax.axhline(baseline, color=MUTED, linewidth=0.8)
        for position, piece, live in zip(arm["position"], arm["piece"], share, strict=True):
            weight = {"alpha": 0.55 + 0.45 * live, "fontweight": "bold" if live == 1 else "normal"}
            ax.text(position, baseline + 0.03, shorten(piece, 12), **_PIECE, **weight)
        return arm["arm"].iloc[0], f"live in {share.mean():.0%} of the layers on average"

    draw_rows(ax, frame, draw_row)
    ax.set_xlim(-1.2, frame["position"].max() + 0.6)
    ax.set_xticks([])


FATE = Plot(
    name="fate",
    summary="one example's word pieces and how long each stays, one row per arm",
    caption=(
        "The first example of the evaluation split, a row per arm that drops any of its word pieces. The higher the"
        " bar over a piece, the more layers ran on it; pieces in bold reached the last one. Long texts are cut off."
    ),
    data=_data,
    draw=_draw,
    order=57,
    height=row_height(inches=1.95),
)
