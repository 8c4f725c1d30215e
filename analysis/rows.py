"""Figures with a row per arm, the arm's name above its row: as many letters as the figure is wide."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from analysis.style import INK, MUTED, columns, series_looks, shorten

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


_LETTERS = 56
_KNOB = re.compile(r"\w+=")


def row_height(*, inches: float) -> Callable[[pd.DataFrame], float]:
    """A frame with a column `arm` -> the height of a figure with a row per arm, its axis included."""
    return lambda frame: 0.75 + inches * max(frame["arm"].nunique(), 1)


def draw_rows(ax: Axes, frame: pd.DataFrame, draw_row: Callable[[pd.DataFrame, int, str], tuple[str, str]]) -> None:
    """Draw a row for each arm of a frame, in the frame's order, from the top.

    Args:
        frame: columns `series`, `method` and `arm` at least.
        draw_row: the arm's part of the frame, its row's number, its series' colour -> what is written above the row:
            a label and a note.
    """
    styles = series_looks(frame)
    written = [
        draw_row(arm, row, styles[arm["series"].iloc[0]].colour)
        for row, (_, arm) in enumerate(frame.groupby("arm", sort=False))
    ]
    write_rows(ax, [label for label, _ in written], [note for _, note in written])


def layer_axis(ax: Axes, layers: int, *, label: str = "Layer") -> None:
    """A horizontal axis with a place for each layer, from 1."""
    ax.set_xlim(0.5, layers + 0.5)
    ax.set_xticks(range(1, layers + 1))
    ax.set_xlabel(label)


def write_rows(ax: Axes, labels: Sequence[str], notes: Sequence[str]) -> None:
    """Rows 0, 1, … from the top instead of a vertical axis, with labels, long ones without knobs' names, and notes."""
    ax.set_ylim(len(labels), 0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    place = ax.get_yaxis_transform()
    for row, (label, note) in enumerate(zip(labels, notes, strict=True)):
        told = label if columns(label) <= _LETTERS else shorten(_KNOB.sub("", label), _LETTERS)
        ax.text(0, row + 0.09, told, transform=place, va="top", ha="left", color=INK, fontsize=9.5)
        ax.text(1, row + 0.09, note, transform=place, va="top", ha="right", color=MUTED, fontsize=9.5)
