"""How the drop thresholds of each layer moved while they were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analysis.figures.rows import ARM_COLUMNS, arm_values, draw_rows, row_height
from analysis.figures.style import MUTED
from analysis.plots import Plot
from analysis.tables.frames import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = [*ARM_COLUMNS, "seed", "stage", "step", "layer", "eta", "run_ids"]
_TALLEST = 0.58  # of a row: a threshold of 1


def _data(runs: Runs) -> pd.DataFrame:
    """Return one row per watched step and layer, of the first arm of each trained model, and its first seed."""
    rows, seen = [], set()
    for arm in runs.arms:
        record = arm.first
        for stage, outcome in record.training.items():
            history, artifact = outcome["history"], record.artifacts.get(stage)
            if artifact in seen or "eta" not in history:
                continue
            seen.add(artifact)
            for step, etas in zip(history["step"], history["eta"], strict=True):
                known = (*arm_values(arm, runs), record.seed, stage, step)
                rows += [(*known, layer, eta, record.run_id) for layer, eta in enumerate(etas, start=1)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    def draw_row(arm: pd.DataFrame, row: int, colour: str) -> tuple[str, str]:
        baseline, layers = row + 0.97, int(arm["layer"].max())
        for number, (_, layer) in enumerate(arm.groupby("layer", sort=True), start=1):
            shade = 0.3 + 0.7 * number / layers
            ax.plot(layer["step"], baseline - _TALLEST * layer["eta"], color=colour, alpha=shade, linewidth=1.6)
        ax.axhline(baseline, color=MUTED, linewidth=0.8)
        last = arm[arm["step"] == arm["step"].max()].sort_values("layer")["eta"]
        return arm["arm"].iloc[0], "at the end " + " ".join(f"{eta:.2f}".removeprefix("0") for eta in last)

    draw_rows(ax, frame, draw_row)
    ax.set_xlim(0, max(1, frame["step"].max()))
    ax.set_xlabel("Optimiser step")


THRESHOLDS = Plot(
    name="thresholds",
    summary="each layer's drop threshold while it was trained, one row per trained model",
    caption=(
        "The threshold of each layer over training, as a fraction of an equal share (0 at the row's line, 1 at its"
        " top): tokens whose share is lower are dropped. Pale lines are the first layers, dark ones the last; the"
        " values at the end are in the order of the layers. Of arms that share a model, and of several seeds, the"
        " first is shown."
    ),
    data=_data,
    draw=_draw,
    order=56,
    height=row_height(inches=1.0),
)
