"""Knob values written beside their points, where there is room."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from analysis.curves import telling
from analysis.style import SURFACE, series_looks, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

_OFFSETS = ((0, 11), (11, 0), (0, -11), (-11, 0), (9, 9), (9, -9), (-9, -9), (-9, 9))  # points, the best place first
_REACH = 8  # points around a marker that stay free
_APART = 4  # pixels between two labels
_STEPS = 40  # places along a curve's segment at which a label is seen to cross it


def label_points(ax: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Write knob values beside points, chosen ones first; a value that would cover a point or a value is left out.

    Of the places that are free, the one that crosses the fewest curves is taken. Axis limits must be final.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()  # the layout must be final before anything is measured
    scale = figure.dpi / 72
    pixels = pd.DataFrame(ax.transData.transform(frame[[x, y]].to_numpy(float)), columns=["x", "y"], index=frame.index)
    taken = [Bbox.from_extents(px, py, px, py).padded(_REACH * scale) for px, py in pixels.to_numpy()]
    crossed = np.vstack([_along(pixels.loc[curve.index].to_numpy()) for _, curve in frame.groupby("curve")])
    styles = series_looks(frame)
    for _, point in frame.sort_values("selected", ascending=False, kind="stable").iterrows():
        told = telling(point["knobs"], frame.loc[frame["series"] == point["series"], "knobs"])
        if told:
            taken += _write(
                ax,
                shorten(", ".join(told.values()), 32),
                (point[x], point[y]),
                colour=styles[point["series"]].colour,
                taken=taken,
                crossed=crossed,
            )


def _along(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) corners of a curve -> (m, 2) places along it, the corners included."""
    share = np.linspace(0, 1, _STEPS)[:, None]
    segments = [start + share * (end - start) for start, end in itertools.pairwise(corners)]
    return np.vstack([corners, *segments])


def _write(
    ax: Axes,
    text: str,
    point: tuple[float, float],
    *,
    colour: str,
    taken: Sequence[Bbox],
    crossed: NDArray[np.float64],
) -> list[Bbox]:
    """Write the text in the best free place; the box it takes, or none where no place is free."""
    notes = [_note(ax, text, point, offset=offset, colour=colour) for offset in _OFFSETS]
    boxes = [note.get_window_extent() for note in notes]
    frame = ax.get_window_extent()
    free = [
        number
        for number, box in enumerate(boxes)
        if frame.containsx(box.x0)
        and frame.containsx(box.x1)
        and frame.containsy(box.y0)
        and frame.containsy(box.y1)
        and not any(box.overlaps(other) for other in taken)
    ]
    best = min(free, key=lambda number: boxes[number].count_contains(crossed), default=None)
    for number, note in enumerate(notes):
        if number != best:
            note.remove()
    return [] if best is None else [boxes[best].padded(_APART)]


def _note(ax: Axes, text: str, point: tuple[float, float], *, offset: tuple[int, int], colour: str) -> Annotation:
    dx, dy = offset
    note = ax.annotate(
        text,
        point,
        xytext=offset,
        textcoords="offset points",
        ha="center" if dx == 0 else "left" if dx > 0 else "right",
        va="center" if dy == 0 else "bottom" if dy > 0 else "top",
        fontsize=9,
        color=colour,
        bbox={"facecolor": SURFACE, "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        zorder=6,
    )
    note.set_in_layout(False)
    return note
