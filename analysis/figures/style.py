"""How figures look: one palette in which colour is never the only cue, and text that survives a phone.

A figure is drawn in the light colours; on a page each of them is replaced by a CSS variable of the same role,
so that the page's dark mode reaches into the figure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width
from zlib import crc32

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

WIDTH = 4.8
"""Inches; 345.6 units of a figure's viewBox, so that on a phone of 390 pixels a unit is about a pixel."""

TEXT, SMALL_TEXT = 9.5, 9.4
"""Sizes of text, in units of a figure's viewBox."""

RC: Mapping[Any, Any] = MappingProxyType(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": MUTED,
        "axes.facecolor": SURFACE,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.labelsize": TEXT,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": TEXT,
        "figure.facecolor": SURFACE,
        "font.family": "DejaVu Sans",
        "font.size": TEXT,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "legend.fontsize": TEXT,
        "legend.frameon": False,
        "savefig.facecolor": SURFACE,
        "svg.fonttype": "none",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": MUTED,
        "xtick.labelcolor": INK,
        "xtick.labelsize": TEXT,
        "ytick.color": MUTED,
        "ytick.labelcolor": INK,
        "ytick.labelsize": TEXT,
    }
)
"""Matplotlib settings of every figure. Mathtext is off: a `$` in a knob is a dollar sign."""


@dataclass(frozen=True)
class Look:
    """How a method, or an explainer of rationales, is drawn.

    Attributes:
        colour: says by which mechanism it works.
        marker: tells it from others of one colour.
        control: whether it is a control, which has hollow markers and dashed lines.
    """

    colour: str
    marker: str
    control: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """Return matplotlib's arguments for its line."""
        return {"color": self.colour, "linestyle": (0, (4, 2)) if self.control else "-"}

    @property
    def points(self) -> dict[str, Any]:
        """Return matplotlib's arguments for its markers."""
        return {
            "marker": self.marker,
            "color": self.colour,
            "markerfacecolor": SURFACE if self.control else self.colour,
            "markeredgecolor": self.colour if self.control else SURFACE,
            "markeredgewidth": 1.3 if self.control else 0.5,
        }


_LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "full": (INK, "*"),
        "static_subnet": (MUTED, "h"),
        "static_depth": (MUTED, "X"),
        "adapler": (SERIES[0], "o"),
        "random_tokens": (SERIES[0], "o"),
        "last_tokens": (SERIES[0], "D"),
        "width_gates": (SERIES[1], "s"),
        "random_widths": (SERIES[1], "s"),
        "constant_widths": (SERIES[1], "D"),
        "flexible": (SERIES[2], "^"),
        "random_flexible": (SERIES[2], "^"),
        "prefix_exit": (SERIES[3], "D"),
        "random_exits": (SERIES[3], "D"),
        "entropy_exit": (SERIES[4], "v"),
        "patience_exit": (SERIES[5], "P"),
        "attention": (SERIES[1], "s"),
        "rollout": (SERIES[2], "^"),
        "saliency": (SERIES[3], "D"),
        "integrated_gradients": (SERIES[4], "v"),
        "kept": (SERIES[5], "P"),
        "human": (INK, "D"),
        "random": (MUTED, "o"),
        "position": (MUTED, "s"),
    }
)
"""Method or explainer -> colour and marker. A name that is not here gets both by its hash."""


def method_look(method: str, mechanism: str = "", *, control: bool = False, number: int = 0) -> Look:
    """Return the look of a method or an explainer, the same in every figure.

    Args:
        method: its registry name.
        mechanism: the method that gives it its colour, if another: that which it is a control for.
        control: whether it is a control.
        number: of the marker, counted from the method's usual one; the full model has only one.
    """
    marker = _usual_look(method)[1]
    if marker in MARKERS:
        marker = MARKERS[(MARKERS.index(marker) + number) % len(MARKERS)]
    return Look(_usual_look(mechanism or method)[0], marker, control)


def _usual_look(method: str) -> tuple[str, str]:
    marker, colour = divmod(crc32(method.encode()), len(SERIES))
    return _LOOKS.get(method, (SERIES[colour], MARKERS[marker % len(MARKERS)]))


def series_looks(frame: pd.DataFrame) -> dict[str, Look]:
    """Return series name -> look, of a frame with columns `series`, `method` and `mechanism`.

    `mechanism` is the method itself, or that which it is a control for. Series of one method share its colour and
    differ in their markers. A method's controls follow it.
    """
    looks: dict[str, Look] = {}
    rows = frame[["mechanism", "method", "series"]].drop_duplicates("series")
    rows.insert(1, "control", rows["method"] != rows["mechanism"])
    for mechanism, control, method, series in rows.sort_values([*rows]).itertuples(index=False):
        options = [method_look(method, mechanism, control=control, number=number) for number in range(len(MARKERS))]
        looks[series] = next((look for look in options if look not in looks.values()), options[0])
    return looks


def wrap(text: str, letters: int = 54) -> str:
    """Return the text in lines of at most so many letters, by default as wide as a figure's axes."""
    return textwrap.fill(text, letters * len(text) // max(columns(text), 1) or 1)


def columns(text: str) -> int:
    """Return how wide a text is, in letters: one of Chinese, Japanese or Korean, or an emoji, is as wide as two."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(letter) in "WF") for letter in text)


def shorten(text: str, width: int) -> str:
    """Return the text at most as wide as `width` letters, with an ellipsis where some were cut."""
    if columns(text) <= width:
        return text
    ends = [columns(text[:end]) for end in range(1, min(len(text), width) + 1)]
    return f"{text[: sum(end < width for end in ends)]}…"
