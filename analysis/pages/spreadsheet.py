"""Tables as CSV that may be opened in a spreadsheet: no cell of text is a formula there."""

from __future__ import annotations

import re

import pandas as pd

from analysis.figures.render import map_texts
from bench.visible import visible

_FORMULA = re.compile(r"[=+\-@\t\r].", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def spreadsheet(frame: pd.DataFrame) -> str:
    """Return the frame as CSV; an apostrophe stands before a text that a spreadsheet would calculate."""
    return map_texts(frame, _cell).to_csv(index=False)


def _cell(value: str) -> str:
    text = visible(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
