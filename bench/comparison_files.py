"""How comparisons of rationales lie on disk: what marks them as finished, and tables that are never half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.folders import aside, require_own

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.json"
"""Of one comparison, written last."""

OVERVIEW = "overview.json"
"""Of several that were put together, written last."""

AVERAGE = -1
"""In the column `layer` of a table: the mean over the layers in which a metric was measured."""

PEOPLE = "human"
"""The method whose scores are people's own marks: of a document in which they marked nothing it says nothing."""

POINTS, POINTS_CSV = "points.parquet", "points.csv"
"""The table of those."""

_BESIDE = "*seed-[0-9]*"
"""Of a comparison's folder beside others."""

_PARTS = ".*.part"
"""Of files that a killed process left half-written."""

_SINGLE = (
    *(SUMMARY, "documents.parquet", "table.parquet", "table.csv", "words.parquet", "shown.jsonl"),
    *("index.html", "figures", "predictions", "scores", "gold"),
)
"""What a comparison alone in its folder writes, first what marks it as finished; with its page."""

_CONTENT = {
    ".": (*_SINGLE, OVERVIEW, POINTS, POINTS_CSV, _BESIDE, _PARTS),
    "predictions": ("*-layer*.jsonl", _PARTS),
    "scores": ("*-layer*.json*", _PARTS),
    "gold": ("docs.jsonl", "train.jsonl", "val.jsonl", "test.jsonl", _PARTS),
}
"""Folder of a comparison -> the names in it."""


def require_replaceable(out: Path) -> None:
    """Check that comparisons may be written to the folder `out`: it is new, empty or that of earlier ones.

    An unfinished one counts; it has its scores from the start.

    Raises:
        InputError: it is a file or lies below one, or it holds something that is no comparison.
    """
    for place in (out, *out.glob(_BESIDE)):
        for folder, names in _CONTENT.items():
            require_own(place / folder, names, kind="a comparison")
        if place.is_dir() and any(place.iterdir()) and not ((place / "scores").exists() or any(place.glob(_BESIDE))):
            raise InputError(f"{place} is not empty, but holds no scores of a comparison; name an empty or new folder")


def forget_single(out: Path) -> None:
    """Remove the one comparison that a folder held, where several take its place; its texts would stay otherwise."""
    for name in _SINGLE:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


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
