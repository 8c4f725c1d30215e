"""Curves of operating points: one per method, a point per knob value, with an interval in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.figures.style import INK, MUTED, Look, series_looks, wrap
from analysis.tables.frames import Arm, Runs
from analysis.tables.identity import fingerprint
from analysis.tables.pareto import front
from analysis.tables.selection import first_metric, series
from analysis.tables.table import table
from bench.registry import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NO_KNOBS = "no knobs"

FLOPS_AXIS = wrap("FLOPs speed-up over the full model (ratio of sums, unpadded, analytic)")
"""The label of every axis of FLOPs speed-ups."""


def points(runs: Runs, x: str, y: str | None = None) -> pd.DataFrame:
    """Return the arms of one task as points.

    Args:
        runs: of one task.
        x: metric of the horizontal axis; arms without it are left out.
        y: metric of the vertical axis, by default the task's first quality metric, in the columns `quality`.

    Returns:
        series, curve (points of one curve are joined), method, mechanism (the method, or that which it is a control
        for), arm, knobs, x, its ends, y, its ends, y_metric, pareto (among what reports on the same texts and, where
        time counts, was timed on the same device; a speed of a disturbed machine beats nobody), selected, examples,
        device, disturbed, run_ids; in knob order.
    """
    frame = table(runs)
    name = y or first_metric(runs.arms[0])
    vertical = y or "quality"
    frame = frame.rename(columns={f"{name}{end}": f"{vertical}{end}" for end in ("", "_low", "_high")})
    frame["curve"] = _curves(runs)
    frame["mechanism"] = [arm.mechanism for arm in runs.arms]
    frame["knobs"] = frame["knobs"].where(frame["knobs"] != "", NO_KNOBS)
    frame["y_metric"] = name
    frame["disturbed"] = frame["disturbed_by"] != ""
    trusted = frame.assign(**{x: frame[x].where(~frame["disturbed"] | (not METRICS[x].timed))})
    frame["pareto"] = _mark_unbeaten(trusted, x, vertical, _rivals(runs, timed=METRICS[x].timed))
    columns = ["series", "curve", "method", "mechanism", "arm", "knobs"]
    columns += [f"{axis}{end}" for axis in (x, vertical) for end in ("", "_low", "_high")]
    columns += ["y_metric", "pareto", "selected", "examples", "device", "disturbed", "run_ids"]
    return frame.loc[frame[x].notna() & frame[vertical].notna(), columns].reset_index(drop=True)


def _rivals(runs: Runs, *, timed: bool) -> list[str]:
    """Return for each arm what its rivals share with it: the texts, and where time counts the device."""
    shared = [(arm.first.data.get("split"), fingerprint(arm.first, "evaluation")) for arm in runs.arms]
    return [f"{data} {arm.device if timed else ''}" for data, arm in zip(shared, runs.arms, strict=True)]


def _mark_unbeaten(frame: pd.DataFrame, x: str, y: str, rivals: Sequence[str]) -> pd.Series[bool]:
    """Return whether no rival beats a point, for each point."""
    groups = [
        pd.Series(front(group[x].tolist(), group[y].tolist()), index=group.index, dtype=bool)
        for _, group in frame.groupby(list(rivals), sort=False)
    ]
    return pd.concat(groups).reindex(frame.index)


def _curves(runs: Runs) -> list[str]:
    """Return each arm's curve: its series, and all knobs but that which takes the most values, of one model if any."""
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


def varying_knobs(knobs: str, series: pd.Series[str]) -> dict[str, str]:
    """Return a point's knobs in which the points of its series differ, all where it is alone: name -> value."""
    if knobs == NO_KNOBS:
        return {}
    parts = knobs.split()
    shared = set.intersection(*(set(other.split()) for other in series)) if len(series) > 1 else set()
    return {name: value for name, _, value in (part.partition("=") for part in parts if part not in shared)}


def draw_points(ax: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Draw intervals, curves, markers, and rings around chosen points; the axis limits are final then.

    Markers carry the name of their series as label.
    """
    looks = series_looks(frame)
    for _, curve in frame.groupby("curve", sort=True):
        look = looks[curve["series"].iloc[0]]
        ax.plot(curve[x], curve[y], **look.line, linewidth=1.5, zorder=3)
        _draw_intervals(ax, curve, (x, y), look)
    for name, look in looks.items():
        members, size = frame[frame["series"] == name], 12 if look.marker == "*" else 6.5
        ax.plot(members[x], members[y], linestyle="none", **look.points, markersize=size, zorder=4, label=name)
    chosen = frame[frame["selected"]]
    if len(chosen):
        ring: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 13, "markerfacecolor": "none"}
        ring |= {"markeredgecolor": INK, "markeredgewidth": 1.2, "zorder": 5}
        ax.plot(chosen[x], chosen[y], **ring, label="chosen (held-out)")
    ax.margins(0.09, 0.12)
    ax.set_xlim(ax.get_xlim())
    ax.set_ylim(ax.get_ylim())


def _draw_intervals(ax: Axes, frame: pd.DataFrame, axes: tuple[str, str], look: Look) -> None:
    """Draw thin lines from the low to the high end, in both directions."""
    x, y = axes
    line: dict[str, Any] = {"color": look.colour, "linewidth": 1.1, "alpha": 0.4, "zorder": 2}
    ax.hlines(frame[y], frame[f"{x}_low"], frame[f"{x}_high"], **line)
    ax.vlines(frame[x], frame[f"{y}_low"], frame[f"{y}_high"], **line)


def cross_disturbed(ax: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Cross out the points whose speed was taken on a disturbed machine."""
    disturbed = frame[frame["disturbed"]]
    if len(disturbed):
        cross: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 12, "zorder": 5}
        ax.plot(disturbed[x], disturbed[y], **cross, markeredgecolor=INK, label="busy machine, no verdict")


def draw_front(ax: Axes, frame: pd.DataFrame, x: str, y: str, *, label: str = "Pareto front") -> None:
    """Draw the staircase of the unbeaten points: to the left of it and below it everything is dominated.

    Fronts of several data sets or devices are no one staircase, and are left out.
    """
    best = frame[frame["pareto"]].drop_duplicates([x, y]).sort_values(x)
    if len(best) > 1 and best[y].is_monotonic_decreasing:
        line: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (1, 2)), "zorder": 1}
        ax.plot(best[x].repeat(2)[:-1], best[y].repeat(2)[1:], label=label, **line)
