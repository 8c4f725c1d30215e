"""Pool comparisons of rationales of one task: seeds are pooled, and operating points stand beside each other.

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

from bench.rationales import metrics as rationale_metrics
from bench.rationales.files import OVERVIEW, POINTS, read_frame, summary_in, write_frame
from bench.store.digests import DIGESTS, digests_of, marker_text
from bench.store.runs import write_aside


def pool_comparisons(folders: Sequence[Path], out: Path) -> None:
    """Write the points and the overview of the finished comparisons in these folders; the slowest point first.

    Args:
        folders: comparisons of the same documents and methods, below `out`.
        out: where the overview is written.

    Raises:
        InputError: a folder holds no finished comparison.
    """
    summaries = {folder: summary_in(folder) for folder in folders}
    by_point: dict[str, list[Path]] = {}
    for folder, summary in summaries.items():
        by_point.setdefault(point_name(summary["knobs"]), []).append(folder)
    points = [
        {"name": name, "folders": [each.name for each in same], **pool_summaries([summaries[each] for each in same])}
        for name, same in by_point.items()
    ]
    points.sort(key=lambda point: float(point["speedup"]))
    table = pd.concat([point_table(name, by_point[name]) for name in (str(point["name"]) for point in points)])
    write_frame(out / POINTS, table)
    write_aside(out / OVERVIEW, marker_text({"points": points}, digests_of(out, [POINTS]), OVERVIEW))


def point_name(knobs: Mapping[str, Any]) -> str:
    """Return a point's name, for example `gamma=0.02 phi=0.008`."""
    return " ".join(f"{name}={value}" for name, value in knobs.items())


def point_table(name: str, folders: Sequence[Path]) -> pd.DataFrame:
    """Return the metrics of one point over its seeds; those of a single seed are stored already."""
    if len(folders) == 1:
        table = read_frame(folders[0] / "table.parquet")
    else:
        seeds = [read_frame(folder / "documents.parquet") for folder in folders]
        table = rationale_metrics.metrics_table(seeds, against="adapler")
    table.insert(0, "point", name)
    return table


def pool_summaries(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summary of one point: its first seed's, with the means over seeds."""
    first = summaries[0]
    return {
        **{name: value for name, value in first.items() if name not in {"artifacts", "identity", DIGESTS}},
        "seeds": sorted(seed for summary in summaries for seed in summary["seeds"]),
        "finetune_seeds": sorted({seed for summary in summaries for seed in summary["finetune_seeds"]}),
        "speedup": float(np.mean([summary["speedup"] for summary in summaries])),
        "kept": np.mean([summary["kept"] for summary in summaries], axis=0).tolist(),
        "accuracy": {
            name: float(np.mean([summary["accuracy"][name] for summary in summaries])) for name in first["accuracy"]
        },
    }
