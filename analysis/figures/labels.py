"""Texts in figures of curves: names beside the curves or in a legend, and knob values where there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from analysis.figures.curves import varying_knobs
from analysis.figures.style import SMALL_TEXT, SURFACE, TEXT, WIDTH, columns, series_looks, shorten, wrap

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

Entry = tuple[str, "Artist"]
"""Of a legend: the label, and the artist that it explains."""

_OFFSETS = ((0, 8), (0, -8), (8, 0), (-8, 0), (6, 6), (6, -6), (-6, -6), (-6, 6))  # units, the best position first
_REACH = 5  # units around a marker that stay free
_APART = 3  # pixels between two texts
_TOUCHING = 15  # pixels between two points below which a name at one seems to be the other's
_STEPS = 40  # positions on a line at which a text is seen to cross it
_BESIDE_CURVE = 24  # letters of a series' name, above which all names stand in a legend
_LEGEND_LETTERS = 58  # of an entry's line: as many as the figure is wide
_LEGEND_ROW = 0.19  # inches


@dataclass(frozen=True)
class Room:
    """What a text may not cover in the axes, in pixels.

    Attributes:
        frame: of the axes, inside which texts must lie.
        boxes: around points and around other texts.
        lines: (n, 2) positions along curves and other lines.
        intervals: (m, 2) positions along intervals, which a text crosses only where it has to.
    """

    frame: Bbox
    boxes: tuple[Bbox, ...]
    lines: NDArray[np.float64]
    intervals: NDArray[np.float64]

    def has(self, box: Bbox) -> bool:
        """Return whether a text of this box lies inside and covers no point, text or line."""
        if not (self.frame.contains(*box.min) and self.frame.contains(*box.max)):
            return False
        return not (any(map(box.overlaps, self.boxes)) or box.padded(_APART).count_contains(self.lines))

    def without(self, boxes: Iterable[Bbox]) -> Room:
        """Return the room that is left beside further texts."""
        return replace(self, boxes=(*self.boxes, *(box.padded(_APART) for box in boxes)))


def label_curves(ax: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Name the series of `draw_points`, and write knob values beside the points for which there is room.

    Names stand beside their curves where all of them have room, otherwise in a legend below the axes, which also
    says what other labelled artists are. Axis limits must be final.
    """
    names = series_names(frame)
    beside = max(map(columns, names.values())) <= _BESIDE_CURVE
    entries = _legend_entries(ax)
    others = [(label, artist) for label, artist in entries if label not in names]
    _draw_legend(ax, others)
    room = _measure_room(ax, frame, x, y)
    boxes = _write_names(ax, frame, (x, y), names, room) if beside else []
    if not boxes:
        _draw_legend(ax, [(names.get(label, label), artist) for label, artist in entries], instead_of=others)
        room = _measure_room(ax, frame, x, y)
    _write_values(ax, frame, (x, y), room.without(boxes))


def series_names(frame: pd.DataFrame) -> dict[str, str]:
    """Return series -> its name in a figure: without what all share, with the knobs in which its points differ."""
    parts = {name: name.split(", ") for name in frame["series"]}
    shared = set.intersection(*map(set, parts.values()))
    names = {}
    for name, members in frame.groupby("series", sort=False):
        knobs = dict.fromkeys(knob for each in members["knobs"] for knob in varying_knobs(each, members["knobs"]))
        method, *traits = parts[str(name)]
        short = ", ".join([method, *(trait for trait in traits if trait not in shared)])
        full = f"{short} ({', '.join(knobs)})" if knobs else short
        names[str(name)] = wrap(shorten(full, 2 * _LEGEND_LETTERS), _LEGEND_LETTERS)
    return names


def legend_below(ax: Axes) -> None:
    """Draw a legend of all labelled artists below the axes; the figure grows by its height."""
    _draw_legend(ax, _legend_entries(ax))


def _legend_entries(ax: Axes) -> list[Entry]:
    artists, labels = ax.get_legend_handles_labels()
    return list(zip(labels, artists, strict=True))


def _figure(ax: Axes) -> Figure:
    return cast("Figure", ax.get_figure(root=True))


def _draw_legend(ax: Axes, entries: Sequence[Entry], *, instead_of: Sequence[Entry] = ()) -> None:
    """Draw a legend below the axes, or replace it, in as many columns as its longest entry allows."""
    figure = _figure(ax)
    for legend in list(figure.legends):
        legend.remove()
    labels = [label for label, _ in entries]
    grown = _legend_rows(labels) - _legend_rows([label for label, _ in instead_of])
    figure.set_figheight(figure.get_figheight() + grown * _LEGEND_ROW)
    if entries:
        figure.legend(
            [artist for _, artist in entries],
            labels,
            loc="outside lower left",
            ncols=_legend_columns(labels),
            fontsize=SMALL_TEXT,
            handlelength=1.6,
            columnspacing=1.2,
            labelspacing=0.3,
            borderpad=0.2,
        )


def _legend_rows(labels: Sequence[str]) -> int:
    lines = sum(len(label.splitlines()) for label in labels)
    return -(-lines // _legend_columns(labels))


def _legend_columns(labels: Sequence[str]) -> int:
    widest = max((columns(line) for label in labels for line in label.splitlines()), default=1)
    return max(1, min(4, int(WIDTH * 72 / (widest * 5.2 + 36))))


def _measure_room(ax: Axes, frame: pd.DataFrame, x: str, y: str) -> Room:
    figure = _figure(ax)
    figure.draw_without_rendering()  # the layout must be final before anything is measured

    def pixels(points: pd.DataFrame) -> NDArray[np.float64]:
        return np.asarray(ax.transData.transform(points.to_numpy(float)))

    reach = _REACH * figure.dpi / 72
    boxes = tuple(Bbox.from_extents(px, py, px, py).padded(reach) for px, py in pixels(frame[[x, y]]))
    ends = [(frame[[f"{x}_low", y]], frame[[f"{x}_high", y]]), (frame[[x, f"{y}_low"]], frame[[x, f"{y}_high"]])]
    intervals = [_between(pixels(low), pixels(high)) for low, high in ends]
    solid_lines = [line for line in ax.lines if line.get_linestyle() != "None"]
    corners = [np.asarray(line.get_transform().transform(line.get_path().vertices)) for line in solid_lines]
    lines = [_between(line[:-1], line[1:]) for line in corners]
    return Room(ax.get_window_extent(), boxes, np.vstack(lines), np.vstack(intervals))


def _between(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positions along n straight lines, (n, 2) and (n, 2) -> (n * steps, 2)."""
    share = np.linspace(0, 1, _STEPS)[:, None, None]
    return (starts + share * (ends - starts)).reshape(-1, 2)


def _write_names(
    ax: Axes, frame: pd.DataFrame, axes: tuple[str, str], names: Mapping[str, str], room: Room
) -> list[Bbox]:
    """Write each series' name at one of its points and return the boxes; write none where one finds no room."""
    notes: list[Annotation] = []
    for name, look in series_looks(frame).items():
        free = room.without(note.get_window_extent() for note in notes)
        points = _name_positions(ax, frame, axes, name)
        note = _write(ax, names[name], points, colour=look.colour, size=TEXT, room=free)
        if note is None:
            for written in notes:
                written.remove()
            return []
        notes.append(note)
    return [note.get_window_extent() for note in notes]


def _name_positions(ax: Axes, frame: pd.DataFrame, axes: tuple[str, str], name: str) -> NDArray[np.float64]:
    """Return the points of a series, (n, 2), the last first, those last that nearly touch a point of another."""
    points = frame[list(axes)].to_numpy(float)[::-1]
    member = (frame["series"] == name).to_numpy()[::-1]
    pixels = np.asarray(ax.transData.transform(points))
    distances = np.linalg.norm(pixels[member, None] - pixels[None, ~member], axis=-1).min(1, initial=_TOUCHING)
    return points[member][np.argsort(-distances, kind="stable")]


def _write_values(ax: Axes, frame: pd.DataFrame, axes: tuple[str, str], room: Room) -> None:
    """Write knob values beside points, those of chosen points and of methods that are no controls first."""
    looks = series_looks(frame)
    controls = frame["series"].map(lambda name: looks[name].control)
    order = frame.assign(control=controls).sort_values(["control", "selected"], ascending=[True, False], kind="stable")
    for _, point in order.iterrows():
        knobs = varying_knobs(point["knobs"], frame.loc[frame["series"] == point["series"], "knobs"])
        if knobs:
            text, position = shorten(", ".join(knobs.values()), 32), point[list(axes)].to_numpy(float)
            colour = looks[point["series"]].colour
            note = _write(ax, text, [position], colour=colour, size=SMALL_TEXT, room=room)
            room = room.without([note.get_window_extent()] if note else [])


def _write(
    ax: Axes, text: str, points: Iterable[NDArray[np.float64]], *, colour: str, size: float, room: Room
) -> Annotation | None:
    """Write the text beside one of the points, the first that has room, where it crosses the fewest intervals."""
    for point in points:
        notes = [_note(ax, text, point, offset, colour=colour, size=size) for offset in _OFFSETS]
        boxes = [note.get_window_extent() for note in notes]
        free = [number for number, box in enumerate(boxes) if room.has(box)]
        best = min(free, key=lambda number: boxes[number].count_contains(room.intervals), default=None)
        for number, note in enumerate(notes):
            if number != best:
                note.remove()
        if best is not None:
            return notes[best]
    return None


def _note(
    ax: Axes, text: str, point: NDArray[np.float64], offset: tuple[int, int], *, colour: str, size: float
) -> Annotation:
    dx, dy = offset
    note = ax.annotate(
        text,
        (point[0], point[1]),
        xytext=offset,
        textcoords="offset points",
        ha="center" if dx == 0 else "left" if dx > 0 else "right",
        va="center" if dy == 0 else "bottom" if dy > 0 else "top",
        fontsize=size,
        color=colour,
        bbox={"facecolor": SURFACE, "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        zorder=6,
    )
    note.set_in_layout(False)
    return note
