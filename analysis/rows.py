"""Figures with a row per arm, the arm's name above its row: as many letters as the figure is wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.style import INK, MUTED, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def row_height(rows: int, *, inches: float) -> float:
    """The height of a figure with that many rows, its axis included."""
    return 0.75 + inches * max(rows, 1)


def write_rows(ax: Axes, labels: Sequence[str], notes: Sequence[str]) -> None:
    """Turn the vertical axis into rows 0, 1, … from the top; write a label and a note above each."""
    ax.set_ylim(len(labels), 0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    place = ax.get_yaxis_transform()
    for row, (label, note) in enumerate(zip(labels, notes, strict=True)):
        ax.text(0, row + 0.09, shorten(label, 56), transform=place, va="top", ha="left", color=INK, fontsize=9.5)
        ax.text(1, row + 0.09, note, transform=place, va="top", ha="right", color=MUTED, fontsize=9.5)
