"""The one figure above all results: how long an answer takes on each engine, and what that costs in quality."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from analysis.figures.render import draw_vector
from analysis.figures.style import INK, RC, TEXT, WIDTH, method_look
from analysis.tables.engines import TimedGroup, timed_groups
from analysis.tables.frames import Arm, Runs
from analysis.tables.selection import first_metric
from analysis.tables.statistics import mean_difference
from bench.registry import METRICS
from bench.store.packs import open_runs

PANEL_HEIGHT = 2.7
"""Inches."""


def overview_data(settings: Path, results: Path) -> pd.DataFrame:
    """Return one row per drawn arm: panel, curve, look, its label's position, milliseconds, difference in points.

    Args:
        settings: TOML file that names panels and, of each, curves: results, methods, backend, the method whose look it
            has, a label and its position.
        results: folder of the stored results.
    """
    panels = tomllib.loads(settings.read_text(encoding="utf8"))["panels"]
    rows = [row for panel in panels for curve in panel["curves"] for row in _curve_rows(panel["title"], curve, results)]
    return pd.DataFrame(rows)


def _curve_rows(panel: str, curve: Mapping[str, Any], results: Path) -> Iterator[dict[str, object]]:
    reader = open_runs(results / curve["results"])
    x, y = curve["label_at"]
    said = {"panel": panel, "curve": curve["label"], "look": curve["look"], "label_x": x, "label_y": y}
    for group in timed_groups(Runs.read(reader, reader.ids())):
        for arm in group.arms:
            if arm.first.backend == curve["backend"] and arm.first.method in curve["methods"]:
                yield {**said, "milliseconds": 1000 * group.latency(arm), **_difference(arm, group)}


def _difference(arm: Arm, group: TimedGroup) -> dict[str, float]:
    """Return the paired difference to the full model in PyTorch of the same seeds, in points."""
    pairs = [
        (group.runs.frames[full.run_id], group.runs.frames[record.run_id])
        for record in arm.records
        if (full := group.runs.full_model(record)) is not None
    ]
    change = mean_difference(METRICS[first_metric(arm)], pairs)
    return {"difference": 100 * change.value, "low": 100 * change.low, "high": 100 * change.high}


def draw_overview(frame: pd.DataFrame) -> str:
    """Return the figure as SVG: a panel below the other, on the same axes, curves with their names."""
    panels = list(dict.fromkeys(frame["panel"]))
    with mpl.rc_context({**RC, "svg.hashsalt": "overview"}):
        figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * len(panels) + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, sharey=True, sharex=True, squeeze=False)[:, 0]
        for ax, panel in zip(axes, panels, strict=True):
            _draw_panel(ax, frame[frame["panel"] == panel])
            ax.set_title(panel, loc="left")
        axes[-1].set_xlabel("milliseconds for one text (median, one CPU thread)")
        figure.supylabel("accuracy against the full model (points)", fontsize=TEXT)
        return draw_vector(figure)


def _draw_panel(ax: Axes, frame: pd.DataFrame) -> None:
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))  # a power of ten would need mathtext
    ax.xaxis.set_minor_formatter(NullFormatter())
    for name, curve in frame.sort_values("milliseconds").groupby("curve", sort=False):
        look = method_look(curve["look"].iloc[0])
        ax.vlines(curve["milliseconds"], curve["low"], curve["high"], color=look.colour, alpha=0.4, linewidth=1.1)
        style: dict[str, Any] = {**look.line, **look.points, "markersize": 5.5, "linewidth": 1.5}
        ax.plot(curve["milliseconds"], curve["difference"], **style)
        ax.text(curve["label_x"].iloc[0], curve["label_y"].iloc[0], str(name), color=look.colour)
