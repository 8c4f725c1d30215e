"""Curves of rationale metrics over layers or over speed-ups, a line per method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.labels import legend_below
from analysis.figures.style import Look, method_look, wrap

SPREAD = 0.5
"""Share of the room between two layers over which the methods' points are spread, so that intervals stay apart."""

TITLES = {
    "mean_average_precision": "mean average precision",
    "fpr": "false-positive rate at the uniform level",
    "fpr_equal": "false-positive rate at equal numbers of tokens",
    "token_f1": "token F1 at equal numbers of tokens",
    "comprehensiveness": "comprehensiveness at equal numbers of tokens",
    "sufficiency": "sufficiency at equal numbers of tokens",
}
"""The metrics that get a figure."""


@dataclass(frozen=True)
class Axis:
    """What metrics are drawn over.

    Attributes:
        name: starts the names of the figures.
        label: of the axis.
        phrase: ends their titles.
        note: a sentence for every caption.
        steps: whether only whole numbers are on it; the points of one layer are spread around its number.
    """

    name: str
    label: str
    phrase: str
    note: str
    steps: bool


LAYERS = Axis(
    "",
    "Layer, from 0",
    "by layer",
    "A method without layers of its own has the same scores in all of them.",
    steps=True,
)
SPEEDUPS = Axis(
    "speedup-",
    "FLOPs speed-up of AdapLeR on these documents",
    "against speed-up",
    "Means over layers; the others explain the fine-tuned model, and select as many tokens as AdapLeR at each point.",
    steps=False,
)


@dataclass(frozen=True)
class Curve:
    """A figure of one metric.

    Attributes:
        name: file stem and anchor.
        metric: as in the table.
        title, caption: what is seen.
        draw, height: as of `analysis.plots.Plot`.
    """

    name: str
    metric: str
    title: str
    caption: str
    draw: Callable[[Axes, pd.DataFrame], None]
    height: Callable[[pd.DataFrame], float] = lambda _: 3.9


def curves(meanings: Mapping[str, Sequence[object]], over: Axis) -> Iterator[Curve]:
    """Return a curve for each metric that has one and that the table has.

    Args:
        meanings: metric -> (what it says, whether higher is better).
        over: what it is drawn over, the column `x` of the frames.
    """
    for metric, title in TITLES.items():
        if metric in meanings:
            summary, higher = meanings[metric]
            better = "Higher is better." if higher else "Lower is better."
            caption = (
                f"{title[0].upper()}{title[1:]}: {summary}. {better} {over.note} Bars are 95 % intervals over "
                "documents. Controls, which know nothing of the model, are hollow and dashed."
            )
            yield Curve(f"{over.name}{metric}", metric, f"{title}, {over.phrase}", caption, _draw_function(title, over))


def _draw_function(title: str, over: Axis) -> Callable[[Axes, pd.DataFrame], None]:
    """Return what draws a metric of every method, a line each, and the legend below."""

    def draw(ax: Axes, frame: pd.DataFrame) -> None:
        methods, controls = list(dict.fromkeys(frame["method"])), set(frame.loc[frame["control"], "method"])
        for number, method in enumerate(methods):
            rows = frame[(frame["method"] == method) & np.isfinite(frame["value"])].sort_values("x")
            shift = SPREAD * ((number + 0.5) / len(methods) - 0.5) if over.steps else 0.0
            look = method_look(method, control=method in controls)
            _draw_method(ax, rows.assign(x=rows["x"] + shift), method, look)
        if over.steps:
            ax.set_xticks(sorted(set(frame["x"])))
        ax.set_xlabel(wrap(over.label))
        ax.set_ylabel(wrap(f"{title[0].upper()}{title[1:]}", 36))
        legend_below(ax)

    return draw


def _draw_method(ax: Axes, rows: pd.DataFrame, method: str, look: Look) -> None:
    """Draw one method's line with its intervals."""
    ax.vlines(rows["x"], rows["low"], rows["high"], color=look.colour, linewidth=0.9)
    ax.plot(rows["x"], rows["value"], **look.line | look.points, markersize=5, linewidth=1.2, label=method)
