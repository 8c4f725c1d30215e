"""Figures, one file each: `data` says what is drawn (and is stored as CSV), `draw` draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from analysis.tables.frames import Runs


@dataclass(frozen=True)
class Plot:
    """A figure.

    Attributes:
        name: file stem and anchor.
        summary: one line for listings.
        caption: what the reader sees and how to read it.
        data: runs of one task -> the tidy frame that the figure draws; empty where the runs hold nothing for it.
        draw: axes, that frame -> nothing.
        order: its position on the page, lowest first; plots of one order go by name.
        height: that frame -> the figure's height in inches; its width is always the same.
    """

    name: str
    summary: str
    caption: str
    data: Callable[[Runs], pd.DataFrame]
    draw: Callable[[Axes, pd.DataFrame], None]
    order: int = 100
    height: Callable[[pd.DataFrame], float] = lambda _: 4.4
