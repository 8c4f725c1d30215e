"""How often an engine answers and decides as PyTorch does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analysis.figures.rows import ARM_COLUMNS, arm_values, draw_rows, row_height
from analysis.plots import Plot
from analysis.tables.frames import Arm, Runs
from analysis.tables.statistics import CONFIDENCE
from bench.store.records import TORCH, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_CHECKS: dict[str, tuple[str, ...]] = {"answer": ("prediction",), "decisions": ("exit_depth", "tokens", "heads")}
"""What is compared -> columns of the examples that are then equal, in every layer where they have an entry for each."""

_COLUMNS = [*ARM_COLUMNS, "what", "share", "low", "high", "examples", "accuracy_change", "run_ids"]
_MIDDLE = 0.7  # of a row: where its first interval lies
_STEP = 0.16  # of a row, between them
_MARKERS = dict(zip(_CHECKS, "os", strict=True))


def _data(runs: Runs) -> pd.DataFrame:
    """Return one row per arm of another engine than PyTorch and thing compared; seeds pooled.

    `share` of the examples on which both do the same, with Wilson's interval (Brown, Cai and DasGupta, 2001).
    """
    rows: list[tuple[object, ...]] = []
    for arm in runs.arms:
        pairs = list(_pairs(arm, runs))
        if not pairs:
            continue
        change = float(np.mean([one["correct"].mean() - other["correct"].mean() for one, other in pairs]))
        for what, columns in _CHECKS.items():
            same = np.concatenate([_agree(one[[*columns]], other[[*columns]]) for one, other in pairs])
            ends = binomtest(int(same.sum()), len(same)).proportion_ci(CONFIDENCE, method="wilson")
            numbers = (what, float(same.mean()), float(ends.low), float(ends.high), len(same), change)
            rows.append((*arm_values(arm, runs), *numbers, " ".join(arm.run_ids)))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _agree(one: pd.DataFrame, other: pd.DataFrame) -> NDArray[np.bool_]:
    """Return whether two tables of the same examples hold the same values, for each example."""
    rows = zip(one.itertuples(index=False), other.itertuples(index=False), strict=True)
    return np.array([all(map(np.array_equal, *row)) for row in rows])


def _pairs(arm: Arm, runs: Runs) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the arm's classified examples beside PyTorch's, of the same trained model and knobs, in one order."""
    for record in arm.records:
        for other in runs.records:
            examples, expected = runs.frames[record.run_id], runs.frames[other.run_id]
            if _same_but_engine(record, other) and examples["correct"].notna().all():
                yield examples, expected.set_index("example_id").loc[examples["example_id"]].reset_index()
                break


def _same_but_engine(record: Record, other: Record) -> bool:
    """Check whether the other run is of the same model, knobs and examples, in PyTorch, and the record's is not."""
    same = ("task", "method", "knobs", "artifacts", "data")
    elsewhere = record.backend != TORCH and other.backend == TORCH
    return elsewhere and all(getattr(record, name) == getattr(other, name) for name in same)


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    def draw_row(arm: pd.DataFrame, row: int, colour: str) -> tuple[str, str]:
        heights = row + _MIDDLE + np.linspace(0, _STEP, len(arm))
        ax.hlines(heights, arm["low"], arm["high"], color=colour, linewidth=1.4, alpha=0.6)
        for what, share, height in zip(arm["what"], arm["share"], heights, strict=True):
            ax.plot([share], [height], _MARKERS[what], color=colour, markersize=5.5)
        said = ", ".join(f"{what} {share:.1%}" for what, share in zip(arm["what"], arm["share"], strict=True))
        return arm["arm"].iloc[0], f"{said}; accuracy {100 * arm['accuracy_change'].iloc[0]:+.1f} points"

    draw_rows(ax, frame, draw_row)
    ax.set_xlim(min(0.95, frame["low"].min() - 0.01), 1.002)
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.set_xlabel("Examples on which both do the same")


AGREEMENT = Plot(
    name="agreement",
    summary="how often an engine answers and decides as PyTorch does",
    caption=(
        "The same trained model in another engine or precision, against PyTorch in float32, example by example: the"
        " share with the same answer (circle), and with the same decisions (square: as many tokens and the same width"
        " in every layer, the same depth), each with a 95 % Wilson interval. The note says how the accuracy changes."
        " Decisions that differ are near a threshold; the answer is mostly the same."
    ),
    data=_data,
    draw=_draw,
    order=45,
    height=row_height(inches=0.8),
)
