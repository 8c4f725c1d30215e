"""Curves of operating points: one per method, a point per knob value, with an interval in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.frames import Arm, Runs
from analysis.identity import fingerprint
from analysis.pareto import front
from analysis.selection import first_metric, series
from analysis.style import INK, MUTED, SURFACE, WIDTH, Look, columns, series_looks, shorten
from analysis.table import table
from bench.registry import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NO_KNOBS = "no knobs"

_LETTERS = 84  # of a legend's entry: as many as the figure is wide

FLOPS_AXIS = "FLOPs speed-up over the full model (ratio of sums, unpadded, analytic)"
"""The label of every axis of FLOPs speed-ups."""


def points(runs: Runs, x: str, y: str | None = None) -> pd.DataFrame:
    """The arms of one task as points.

    Args:
        runs: of one task.
        x: metric of the horizontal axis; arms without it are left out.
        y: metric of the vertical axis, by default the task's first quality metric, in the columns `quality`.

    Returns:
        series, curve (points of one curve are joined), method, arm, knobs, x, its ends, y, its ends, y_metric,
        pareto (among what reports on the same texts and, where time counts, was timed on the same device; a speed of a
        disturbed machine beats nobody), selected, examples, device, disturbed, run_ids; in knob order.
    """
    frame = table(runs)
    name = y or first_metric(runs.arms[0])
    vertical = y or "quality"
    frame = frame.rename(columns={f"{name}{end}": f"{vertical}{end}" for end in ("", "_low", "_high")})
    frame["curve"] = _curves(runs)
    frame["knobs"] = frame["knobs"].where(frame["knobs"] != "", NO_KNOBS)
    frame["y_metric"] = name
    frame["disturbed"] = frame["disturbed_by"] != ""
    trusted = frame.assign(**{x: frame[x].where(~frame["disturbed"] | (not METRICS[x].timed))})
    frame["pareto"] = _best(trusted, x, vertical, _rivals(runs, timed=METRICS[x].timed))
    columns = ["series", "curve", "method", "arm", "knobs"]
    columns += [f"{axis}{end}" for axis in (x, vertical) for end in ("", "_low", "_high")]
    columns += ["y_metric", "pareto", "selected", "examples", "device", "disturbed", "run_ids"]
    return frame.loc[frame[x].notna() & frame[vertical].notna(), columns].reset_index(drop=True)


def _rivals(runs: Runs, *, timed: bool) -> list[str]:
    """Of each arm what those share that it can be held against: the texts, and where time counts the device."""
    shared = [(arm.first.data.get("split"), fingerprint(arm.first, "evaluation")) for arm in runs.arms]
    return [f"{data} {arm.device if timed else ''}" for data, arm in zip(shared, runs.arms, strict=True)]


def _best(frame: pd.DataFrame, x: str, y: str, rivals: Sequence[str]) -> pd.Series[bool]:
    """Which points no other of the same rivals beats."""
    groups = [
        pd.Series(front(own[x].tolist(), own[y].tolist()), index=own.index, dtype=bool)
        for _, own in frame.groupby(list(rivals), sort=False)
    ]
    return pd.concat(groups).reindex(frame.index)


def _curves(runs: Runs) -> list[str]:
    """Each arm's curve: its series, and all knobs but that which takes the most values, of one model if any."""
    names = [series(arm, runs) for arm in runs.arms]
    groups = {name: [arm for arm, other in zip(runs.arms, names, strict=True) if other == name] for name in names}
    return [_curve(arm, name, groups[name]) for arm, name in zip(runs.arms, names, strict=True)]


def _curve(arm: Arm, name: str, group: Sequence[Arm]) -> str:
    values, of_model = (
        {knob: {str(other.knobs.get(knob)) for other in others} for knob in arm.knobs}
        for others in (group, [other for other in group if other.first.artifacts == arm.first.artifacts])
    )
    swept = max(values, key=lambda knob: (len(of_model[knob]), len(values[knob])), default=None)
    fixed = [f"{knob}={arm.knobs[knob]}" for knob in values if knob != swept and len(values[knob]) > 1]
    return " ".join([name, *fixed])


def telling(knobs: str, series: pd.Series[str]) -> dict[str, str]:
    """Of a point, the knobs in which the points of its series differ, all where it is alone: name -> value."""
    if knobs == NO_KNOBS:
        return {}
    parts = knobs.split()
    shared = set.intersection(*(set(other.split()) for other in series)) if len(series) > 1 else set()
    return {name: value for name, _, value in (part.partition("=") for part in parts if part not in shared)}


def draw_points(ax: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Intervals, curves, markers, and rings around chosen points; the axis limits are final then."""
    styles = series_looks(frame)
    for _, curve in frame.groupby("curve", sort=True):
        look = styles[curve["series"].iloc[0]]
        ax.plot(curve[x], curve[y], color=look.colour, linewidth=1.6, zorder=3)
        _intervals(ax, curve, (x, y), look)
    for name, look in styles.items():
        members = frame[frame["series"] == name]
        told = dict.fromkeys(knob for own in members["knobs"] for knob in telling(own, members["knobs"]))
        named = f"{name} ({', '.join(told)})" if told else name
        entry = named if columns(named) <= _LETTERS else shorten(name, _LETTERS)
        ax.plot(members[x], members[y], **_marks(look), label=entry)
    chosen = frame[frame["selected"]]
    if len(chosen):
        ring: dict[str, Any] = {
            "linestyle": "none",
            "marker": "o",
            "markersize": 14,
            "markerfacecolor": "none",
            "zorder": 5,
        }
        ax.plot(chosen[x], chosen[y], **ring, markeredgecolor=INK, markeredgewidth=1.3, label="chosen (held-out)")
    ax.margins(0.09, 0.12)
    ax.set_xlim(ax.get_xlim())
    ax.set_ylim(ax.get_ylim())


def _marks(look: Look) -> dict[str, Any]:
    size = 13 if look.marker == "*" else 7.5
    return {
        "linestyle": "none",
        "marker": look.marker,
        "markersize": size,
        "color": look.colour,
        "markeredgecolor": SURFACE,
        "markeredgewidth": 0.8,
        "zorder": 4,
    }


def _intervals(ax: Axes, frame: pd.DataFrame, axes: tuple[str, str], look: Look) -> None:
    """Thin lines from the low to the high end, in both directions."""
    x, y = axes
    line: dict[str, Any] = {"color": look.colour, "linewidth": 1.1, "alpha": 0.45, "zorder": 2}
    ax.hlines(frame[y], frame[f"{x}_low"], frame[f"{x}_high"], **line)
    ax.vlines(frame[x], frame[f"{y}_low"], frame[f"{y}_high"], **line)


def cross_disturbed(ax: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Cross out the points whose speed was taken on a disturbed machine."""
    disturbed = frame[frame["disturbed"]]
    if len(disturbed):
        cross: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 12, "zorder": 5}
        ax.plot(disturbed[x], disturbed[y], **cross, markeredgecolor=INK, label="busy machine, no verdict")


def draw_front(ax: Axes, frame: pd.DataFrame, x: str, y: str, *, label: str = "Pareto front") -> None:
    """The staircase of what no point beats: to the left of it and below it everything is dominated.

    Fronts of several data sets or devices are no one staircase, and are left out.
    """
    best = frame[frame["pareto"]].drop_duplicates([x, y]).sort_values(x)
    if len(best) > 1 and best[y].is_monotonic_decreasing:
        line: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (2, 2)), "zorder": 1}
        ax.step(best[x], best[y], where="pre", label=label, **line)


def legend_above(ax: Axes) -> None:
    """A legend over the axes, in as many columns as its longest entry allows."""
    handles, labels = ax.get_legend_handles_labels()
    beside = max(1, min(4, int(WIDTH * 72 / (max(map(columns, labels), default=1) * 5.8 + 40))))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.02), "borderaxespad": 0}
    ax.legend(handles, labels, ncols=beside, handlelength=1.6, columnspacing=1.4, **place)
