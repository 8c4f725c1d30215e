"""How comparisons of rationales lie on disk: what marks them as finished, and tables that are never half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.folders import aside

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.json"
"""Of one comparison, written last."""

OVERVIEW = "overview.json"
"""Of several that were put together, written last."""

AVERAGE = -1
"""In the column `layer` of a table: the mean over all layers."""

POINTS, POINTS_CSV = "points.parquet", "points.csv"
"""The table of those."""


def summary_in(folder: Path) -> dict[str, Any]:
    """What a finished comparison says of itself.

    Raises:
        InputError: there is none in the folder.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise InputError(f"{folder} holds no finished comparison; run bench rationales --out {folder}")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
    return found


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as parquet so that a reader sees the old one or the new, never a part."""
    with aside(path) as part:
        frame.to_parquet(part, index=False)
