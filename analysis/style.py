"""How figures look: one palette in which colour is never the only cue, and text that survives a phone.

A figure is drawn in the light colours; on a page each of them is replaced by a CSS variable of the same role,
so that the page's dark mode reaches into the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from analysis.frames import REFERENCE

if TYPE_CHECKING:
    import pandas as pd

INK, MUTED, GRID, SURFACE = "#1b2126", "#5b656e", "#dde2e7", "#fefefe"
SERIES = ("#0b6bb0", "#c4500c", "#06806b", "#9b3f87", "#836500", "#5a54c9")
"""Told apart by every common colour vision; each is at least 4.5 : 1 on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")

VARIABLES: Mapping[str, str] = MappingProxyType(
    {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface"}
    | {colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)}
)
"""Colour in a figure -> CSS variable on a page."""

WIDTH = 7.2
"""Inches; 518 units of a figure's viewBox."""

RC: Mapping[Any, Any] = MappingProxyType(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": MUTED,
        "axes.facecolor": SURFACE,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.labelsize": 10,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.facecolor": SURFACE,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "savefig.facecolor": SURFACE,
        "svg.fonttype": "none",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": MUTED,
        "xtick.labelcolor": INK,
        "xtick.labelsize": 9.5,
        "ytick.color": MUTED,
        "ytick.labelcolor": INK,
        "ytick.labelsize": 9.5,
    }
)
"""Matplotlib settings of every figure. Mathtext is off: a `$` in a knob is a dollar sign."""


@dataclass(frozen=True)
class Look:
    """A series' colour and marker."""

    colour: str
    marker: str


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Names that may repeat -> looks, by the order of the names."""
    return {name: look(number) for number, name in enumerate(sorted(set(names)))}


def look(number: int) -> Look:
    """The look of a number; numbers repeat a colour, but not with the same marker."""
    return Look(SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)])


def series_looks(frame: pd.DataFrame) -> dict[str, Look]:
    """Series name -> look, from a frame with columns `series` and `method`; the full model is drawn in ink.

    A column `look` holds the numbers of the others, the same in every figure of a report; without it they are numbered
    by name.
    """
    full = set(frame.loc[frame["method"] == REFERENCE, "series"])
    others = frame.loc[~frame["series"].isin(full)]
    if "look" in frame:
        found = {name: look(number) for name, number in zip(others["series"], others["look"], strict=True)}
    else:
        found = looks(others["series"].tolist())
    return {name: Look(INK, "*") for name in full} | found


def columns(text: str) -> int:
    """How wide a text is, in letters: one of Chinese, Japanese or Korean, or an emoji, is as wide as two."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(letter) in "WF") for letter in text)


def shorten(text: str, width: int) -> str:
    """Text at most as wide as `width` letters, with an ellipsis where some were cut."""
    if columns(text) <= width:
        return text
    ends = [columns(text[:end]) for end in range(1, min(len(text), width) + 1)]
    return f"{text[: sum(end < width for end in ends)]}…"
