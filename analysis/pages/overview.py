"""The one figure above all results: what speed costs in quality, on long texts and on short ones."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures.render import draw_vector
from analysis.figures.style import INK, RC, TEXT, WIDTH, Look, method_look
from analysis.tables.frames import REFERENCE, Arm, Runs, timed_rows
from analysis.tables.selection import first_metric
from analysis.tables.statistics import mean_difference
from bench.registry import METRICS
from bench.store.packs import open_runs

PANEL_HEIGHT = 2.2
"""Inches."""


def overview_data(settings: Path, results: Path) -> pd.DataFrame:
    """Return one row per drawn arm: panel, curve, method, its label's position, speedup, difference in points.

    Args:
        settings: TOML file that names panels and, of each, curves: results, method, knobs, a label and where it stands.
        results: folder of the stored results.
    """
    panels = tomllib.loads(settings.read_text(encoding="utf8"))["panels"]
    rows = [row for panel in panels for curve in panel["curves"] for row in _curve_rows(panel["title"], curve, results)]
    return pd.DataFrame(rows)


def _curve_rows(panel: str, curve: Mapping[str, Any], results: Path) -> Iterator[dict[str, object]]:
    reader = open_runs(results / curve["results"])
    runs = Runs.read(reader, reader.ids())
    x, y = curve["label_at"]
    for arm in runs.arms:
        wanted = arm.first.method == curve["method"] and arm.knobs.items() >= curve.get("knobs", {}).items()
        samples = [timed_rows(runs.frames[run_id]) for run_id in arm.run_ids]
        if wanted and all(map(len, samples)):
            speedup = fmean(METRICS["wall_speedup"].compute(rows) for rows in samples)
            position = {"panel": panel, "curve": curve["label"], "label_x": x, "label_y": y}
            method = {"method": arm.first.method, "mechanism": arm.mechanism}
            yield {**position, **method, "speedup": speedup, **_difference(arm, runs)}


def _difference(arm: Arm, runs: Runs) -> dict[str, float]:
    """Return the paired difference to the full model of the same seeds, in points."""
    pairs = [
        (runs.frames[full.run_id], runs.frames[record.run_id])
        for record in arm.records
        if (full := runs.full_model(record)) is not None
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
        axes[0].text(0.95, 2.9, "full model")
        axes[-1].set_xlabel("times as fast as the full model\n(wall clock, batch 1, one CPU thread)")
        figure.supylabel("accuracy against the full model (points)", fontsize=TEXT)
        return draw_vector(figure)


def _draw_panel(ax: Axes, frame: pd.DataFrame) -> None:
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.plot(1, 0, **method_look(REFERENCE).points, markersize=12, linestyle="none")
    for name, curve in frame.groupby("curve", sort=False):
        method, mechanism = curve[["method", "mechanism"]].iloc[0]
        look = method_look(method, mechanism, control=method != mechanism)
        _draw_curve(ax, curve.sort_values("speedup"), look)
        ax.text(curve["label_x"].iloc[0], curve["label_y"].iloc[0], str(name), color=look.colour)


def _draw_curve(ax: Axes, curve: pd.DataFrame, look: Look) -> None:
    ax.vlines(curve["speedup"], curve["low"], curve["high"], color=look.colour, alpha=0.4, linewidth=1.1)
    ax.plot(curve["speedup"], curve["difference"], **look.line | look.points, markersize=5.5, linewidth=1.5)
