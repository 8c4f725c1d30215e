"""Comparisons of rationales of one task put together: seeds pooled, and one operating point beside the other.

OUT/points.parquet  a row per point, method, layer and metric: the mean over seeds, its interval over documents, and
                    the paired difference to AdapLeR
OUT/overview.json   what the points are; written last
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import rationale_metrics
from bench.comparison_files import OVERVIEW, POINTS, read_frame, summary_in, write_frame
from bench.digests import DIGESTS, digests_of, marker_text
from bench.store import write_aside


def put_together(folders: Sequence[Path], out: Path) -> None:
    """Write what the finished comparisons in these folders below `out` say together; the slowest point first.

    Args:
        folders: of the same documents and methods.

    Raises:
        InputError: a folder holds no finished comparison.
    """
    found = {folder: summary_in(folder) for folder in folders}
    by_point: dict[str, list[Path]] = {}
    for folder, summary in found.items():
        by_point.setdefault(point_name(summary["knobs"]), []).append(folder)
    points = [
        {"name": name, "folders": [own.name for own in same], **pooled([found[own] for own in same])}
        for name, same in by_point.items()
    ]
    points.sort(key=lambda point: float(point["speedup"]))
    table = pd.concat([tabled(name, by_point[name]) for name in (str(point["name"]) for point in points)])
    write_frame(out / POINTS, table)
    write_aside(out / OVERVIEW, marker_text({"points": points}, digests_of(out, [POINTS]), OVERVIEW))


def point_name(knobs: Mapping[str, Any]) -> str:
    """`gamma=0.02 phi=0.008`."""
    return " ".join(f"{name}={value}" for name, value in knobs.items())


def tabled(name: str, folders: Sequence[Path]) -> pd.DataFrame:
    """The metrics of one point over its seeds, by `rationale_metrics.metrics_table`; those of one seed are there already."""
    if len(folders) == 1:
        table = read_frame(folders[0] / "table.parquet")
    else:
        table = rationale_metrics.metrics_table(
            [read_frame(own / "documents.parquet") for own in folders], against="adapler"
        )
    table.insert(0, "point", name)
    return table


def pooled(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of one point: its first seed's, with the means over seeds."""
    first = summaries[0]
    return {
        **{name: value for name, value in first.items() if name not in {"artifacts", "identity", DIGESTS}},
        "seeds": sorted(seed for own in summaries for seed in own["seeds"]),
        "finetune_seeds": sorted({seed for own in summaries for seed in own["finetune_seeds"]}),
        "speedup": float(np.mean([own["speedup"] for own in summaries])),
        "kept": np.mean([own["kept"] for own in summaries], axis=0).tolist(),
        "accuracy": {name: float(np.mean([own["accuracy"][name] for own in summaries])) for name in first["accuracy"]},
    }
