"""The one figure above all results: what speed costs in quality, on long texts and on short ones."""

from __future__ import annotations

import io
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

from analysis.frames import Arm, Runs, timed
from analysis.render import NO_METADATA
from analysis.selection import first_metric
from analysis.statistics import mean_difference
from analysis.style import INK, RC, WIDTH, look
from bench.packs import open_runs
from bench.registry import METRICS

HEIGHT = 3.7
"""Inches."""


def overview_data(settings: Path, results: Path) -> pd.DataFrame:
    """Return one row per drawn arm: panel, curve, its label's position, speedup, difference with its ends in points.

    Args:
        settings: TOML file that names panels and, of each, curves: results, method, knobs, a label and where it stands.
        results: folder of the stored results.
    """
    panels = tomllib.loads(settings.read_text(encoding="utf8"))["panels"]
    rows = [row for panel in panels for curve in panel["curves"] for row in _curve(panel["title"], curve, results)]
    return pd.DataFrame(rows)


def _curve(panel: str, curve: Mapping[str, Any], results: Path) -> Iterator[dict[str, object]]:
    reader = open_runs(results / curve["results"])
    runs = Runs.read(reader, reader.ids())
    x, y = curve["label_at"]
    for arm in runs.arms:
        wanted = arm.first.method == curve["method"] and arm.knobs.items() >= curve.get("knobs", {}).items()
        samples = [timed(runs.frames[run_id]) for run_id in arm.run_ids]
        if wanted and all(map(len, samples)):
            speedup = fmean(METRICS["wall_speedup"].compute(rows) for rows in samples)
            position = {"panel": panel, "curve": curve["label"], "label_x": x, "label_y": y}
            yield {**position, "speedup": speedup, **_difference(arm, runs)}


def _difference(arm: Arm, runs: Runs) -> dict[str, float]:
    """Return the paired difference to the full model of the same seeds, in points."""
    pairs = [
        (runs.frames[full.run_id], runs.frames[record.run_id])
        for record in arm.records
        if (full := runs.full(record)) is not None
    ]
    change = mean_difference(METRICS[first_metric(arm)], pairs)
    return {"difference": 100 * change.value, "low": 100 * change.low, "high": 100 * change.high}


def draw_overview(frame: pd.DataFrame) -> str:
    """Return the figure as SVG: a panel beside the other, on one vertical axis, curves with their names."""
    with mpl.rc_context({**RC, "svg.hashsalt": "overview"}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(dict.fromkeys(frame["panel"]))
        axes = figure.subplots(1, len(panels), sharey=True, sharex=True, squeeze=False)[0]
        colours = {name: look(number).colour for number, name in enumerate(dict.fromkeys(frame["curve"]))}
        for ax, panel in zip(axes, panels, strict=True):
            _draw_panel(ax, frame[frame["panel"] == panel], colours)
            ax.set_title(panel, loc="left", fontsize=10)
        axes[0].text(0.86, -1.9, "full model")
        axes[0].set_ylabel("accuracy against the full model (points)")
        figure.supxlabel("times as fast as the full model (wall clock, batch 1, one CPU thread)", fontsize=10)
        vector = io.BytesIO()
        figure.savefig(vector, format="svg", metadata=NO_METADATA)
    return vector.getvalue().decode("utf8")


def _draw_panel(ax: Axes, frame: pd.DataFrame, colours: Mapping[str, str]) -> None:
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.plot(1, 0, marker="*", markersize=12, color=INK, linestyle="none")
    for name, curve in frame.groupby("curve", sort=False):
        colour, curve = colours[str(name)], curve.sort_values("speedup")
        ax.vlines(curve["speedup"], curve["low"], curve["high"], color=colour, alpha=0.4, linewidth=1.1)
        ax.plot(curve["speedup"], curve["difference"], marker="o", markersize=5, linewidth=1.5, color=colour)
        ax.text(curve["label_x"].iloc[0], curve["label_y"].iloc[0], str(name), color=colour)
