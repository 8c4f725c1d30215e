"""Figures with a row per arm: the arm's name and a note stand above its row, each as wide as the figure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from analysis.figures.style import INK, MUTED, columns, series_looks, shorten
from analysis.tables.selection import series

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from analysis.tables.frames import Arm, Runs


ARM_COLUMNS = ("series", "method", "mechanism", "arm")
"""What a figure's frame says of an arm, so that it can be drawn: the values are those of `arm_values`."""

_LETTERS = 56
_KNOB = re.compile(r"\w+=")


def arm_values(arm: Arm, runs: Runs) -> tuple[str, str, str, str]:
    """Return an arm's values of `ARM_COLUMNS`."""
    return series(arm, runs), arm.first.method, arm.mechanism, arm.label


def row_height(*, inches: float) -> Callable[[pd.DataFrame], float]:
    """Return the function from a frame with a column `arm` to the height of its figure, the axis included.

    Args:
        inches: of a row; its label and its note take the uppermost 0.37.
    """
    return lambda frame: 0.75 + inches * max(frame["arm"].nunique(), 1)


def draw_rows(ax: Axes, frame: pd.DataFrame, draw_row: Callable[[pd.DataFrame, int, str], tuple[str, str]]) -> None:
    """Draw a row for each arm of a frame, in the frame's order, from the top.

    Args:
        ax: the axes.
        frame: columns `ARM_COLUMNS` at least.
        draw_row: the arm's part of the frame, its row's number, its method's colour -> what is written above the row:
            a label and a note.
    """
    looks = series_looks(frame)
    written = [
        draw_row(arm, row, looks[arm["series"].iloc[0]].colour)
        for row, (_, arm) in enumerate(frame.groupby("arm", sort=False))
    ]
    write_rows(ax, [label for label, _ in written], [note for _, note in written])


def layer_axis(ax: Axes, layers: int, *, label: str = "Layer") -> None:
    """Set a horizontal axis with a position for each layer, from 1."""
    ax.set_xlim(0.5, layers + 0.5)
    ax.set_xticks(range(1, layers + 1))
    ax.set_xlabel(label)


def write_rows(ax: Axes, labels: Sequence[str], notes: Sequence[str]) -> None:
    """Write rows 0, 1, … from the top instead of a vertical axis: labels, long ones without knobs' names, and notes."""
    ax.set_ylim(len(labels), 0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    line: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "va": "top"}
    for row, (label, note) in enumerate(zip(labels, notes, strict=True)):
        text = label if columns(label) <= _LETTERS else shorten(_KNOB.sub("", label), _LETTERS)
        ax.annotate(text, (0, row), xytext=(0, -2), color=INK, **line)
        ax.annotate(note, (0, row), xytext=(0, -14), color=MUTED, **line)
