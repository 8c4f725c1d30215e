"""Curves of rationale metrics over layers, a line per method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.style import MUTED, Look, looks

SPREAD = 0.5
"""Of the room between two layers, how much the methods' points are spread over, so that intervals stay apart."""

CONTROL_MARKERS = ("x", "+", "1", "2")

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
class Curve:
    """A figure of one metric over layers.

    Attributes:
        name: the metric; file stem and anchor.
        title, caption: what is seen.
        draw, height: as of `analysis.plots.Plot`.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Axes, pd.DataFrame], None]
    height: Callable[[pd.DataFrame], float] = lambda _: 4.6


def curves(metrics: Sequence[str], meanings: Mapping[str, Sequence[object]]) -> Iterator[Curve]:
    """A curve for each metric that has one and that the table has."""
    for name, title in TITLES.items():
        if name in metrics:
            summary, higher = meanings[name]
            better = "Higher is better." if higher else "Lower is better."
            caption = (
                f"{title[0].upper()}{title[1:]}: {summary}. {better} Bars are 95 % intervals over documents. A method "
                "without layers of its own has the same scores in all of them. Controls are dashed."
            )
            yield Curve(name, title, caption, _drawn(title))


def _drawn(title: str) -> Callable[[Axes, pd.DataFrame], None]:
    def draw(ax: Axes, frame: pd.DataFrame) -> None:
        methods = list(dict.fromkeys(frame["method"]))
        controls = set(frame.loc[frame["control"], "method"])
        named = [method for method in methods if method not in controls]
        styles = looks(named, named) | {
            name: Look(MUTED, CONTROL_MARKERS[number % len(CONTROL_MARKERS)])
            for number, name in enumerate(sorted(controls))
        }
        for number, method in enumerate(methods):
            own = frame[(frame["method"] == method) & np.isfinite(frame["value"])].sort_values("layer")
            shift = SPREAD * ((number + 0.5) / len(methods) - 0.5)
            ends = np.abs(np.stack([own["value"] - own["low"], own["high"] - own["value"]]))
            look = styles[method]
            ax.errorbar(
                own["layer"] + shift,
                own["value"],
                yerr=ends,
                color=look.colour,
                marker=look.marker,
                markersize=5,
                linewidth=1.2,
                linestyle="--" if method in controls else "-",
                elinewidth=0.9,
                label=method,
            )
        ax.set_xticks(sorted(set(frame["layer"])))
        ax.set_xlabel("Layer, from 0")
        ax.set_ylabel(f"{title[0].upper()}{title[1:]}")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    return draw
