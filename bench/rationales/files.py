"""Read and write the files of comparisons of rationales: markers of finished ones, and tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.store.digests import DIGESTS, require_seal, require_unchanged
from bench.store.folders import aside, require_own
from bench.store.json_files import misfit, read_object

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.json"
"""The marker of one finished comparison, written last."""

OVERVIEW = "overview.json"
"""The marker of several comparisons that were pooled, written last."""

AVERAGE = -1
"""The value of the column `layer` for the mean over the layers in which a metric was measured."""

PEOPLE = "human"
"""The method whose scores are people's marks; it says nothing of a document in which they marked nothing."""

POINTS, POINTS_CSV = "points.parquet", "points.csv"
"""Files of the table of pooled comparisons."""

_BESIDE = "*seed-[0-9]*"
"""Pattern of the folder of one comparison beside others."""

_PARTS = ".*.part"
"""Pattern of files that a killed process left half-written."""

_SINGLE = (
    *(SUMMARY, "documents.parquet", "table.parquet", "table.csv", "words.parquet", "shown.jsonl"),
    *("index.html", "figures", "predictions", "scores", "gold"),
)
"""Files of a comparison alone in its folder, the marker first; with its page."""

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
    for base in (out, *out.glob(_BESIDE)):
        for folder, names in _CONTENT.items():
            require_own(base / folder, names, kind="a comparison")
        if base.is_dir() and any(base.iterdir()) and not ((base / "scores").exists() or any(base.glob(_BESIDE))):
            raise InputError(f"{base} is not empty, but holds no scores of a comparison; name an empty or new folder")


def delete_single(out: Path) -> None:
    """Remove the one comparison that a folder held, where several take its place; its texts would stay otherwise."""
    for name in _SINGLE:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def summary_in(folder: Path) -> dict[str, Any]:
    """Read the summary of a finished comparison.

    Raises:
        InputError: there is none in the folder, or it is damaged.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise InputError(f"{folder} holds no finished comparison; run bench rationales --out {folder}")
    remedy = f"run bench rationales --out {folder} --fresh"
    summary = read_object(path, remedy=remedy)
    require_summary(summary, path, remedy=remedy)
    require_whole(folder, summary, path, remedy=remedy)
    return summary


def points_in(folder: Path) -> list[dict[str, Any]]:
    """Read the points of an overview, each the summary of its comparisons.

    Raises:
        InputError: there is none in the folder, or it is damaged.
    """
    path = folder / OVERVIEW
    if not path.is_file():
        raise InputError(
            f"{folder} holds no overview; run bench rationales with several seeds or points --out {folder}"
        )
    remedy = f"run bench rationales --out {folder} again, which puts it together anew"
    content = read_object(path, remedy=remedy)
    points: list[dict[str, Any]] = content.get("points", [])
    if wrong := misfit(points, Sequence[Mapping[str, Any]], "points"):
        raise InputError(f"{path} is damaged: {wrong}; {remedy}")
    if not points:
        raise InputError(f"{path} is damaged: it has no points; {remedy}")
    for number, point in enumerate(points):
        require_summary(point, path, remedy=remedy, prefix=f"points.{number}.")
    require_whole(folder, content, path, remedy=remedy)
    return points


_KINDS: Mapping[str, Any] = {
    "task": str,
    "source": str,
    "synthetic": bool,
    "sensitive": bool,
    "methods": Mapping[str, str],
    "controls": Sequence[str],
    "layers": int,
    "kept": Sequence[float],
    "accuracy": Mapping[str, float],
    "speedup": float,
    "seeds": Sequence[int],
    "backbone": str,
    "knobs": Mapping[str, object],
    "metrics": Mapping[str, Sequence[Any]],
    "documents": int,
}
"""Fields of a summary that pages read, and their kinds."""

_LATER: Mapping[str, Any] = {"finetune_seeds": Sequence[int]}
"""The same, of what the first versions did not write."""


def require_summary(summary: Mapping[str, Any], path: Path, *, remedy: str, prefix: str = "") -> None:
    """Check that a summary says what pages read.

    Raises:
        InputError: a field is missing or of another kind.
    """
    later = {name: kind for name, kind in _LATER.items() if name in summary}
    for name, kind in {**_KINDS, **later}.items():
        wrong = misfit(summary[name], kind, prefix + name) if name in summary else f"it has no {prefix}{name}"
        if wrong:
            raise InputError(f"{path} is damaged: {wrong}; {remedy}")


def require_whole(folder: Path, content: Mapping[str, Any], path: Path, *, remedy: str) -> None:
    """Check a marker, and the files that its digests are of.

    Raises:
        InputError: one has changed, or is gone.
    """
    require_seal(content, path, remedy=remedy)
    require_unchanged(folder, content.get(DIGESTS, {}), remedy=remedy, without=path.name)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the objects of a file with one on each line.

    Raises:
        InputError: it is not there, or damaged.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); run bench rationales --out {path.parent} --fresh"
        ) from error


def read_frame(path: Path) -> pd.DataFrame:
    """Read a table that `write_frame` wrote.

    Raises:
        InputError: it is not there, or damaged.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); run bench rationales --out {path.parent} --fresh"
        ) from error


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as parquet so that a reader sees the old one or the new, never a part."""
    with aside(path) as part:
        frame.to_parquet(part, index=False)
