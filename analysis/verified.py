"""A run's record held against its own table: a number that the table does not give is refused, not repeated."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from bench.errors import InputError
from bench.records import Record
from bench.registry import METRICS

_ROUNDING = 1e-6  # of another version of a library


def require_recorded(record: Record, examples: pd.DataFrame, folder: Path) -> None:
    """Check the metrics of a record against those of its table.

    Raises:
        InputError: one differs.
    """
    for name, recorded in record.metrics.items():
        if name not in METRICS:
            continue
        computed = float(METRICS[name].compute(examples))
        if not math.isclose(recorded, computed, rel_tol=0, abs_tol=_ROUNDING):
            raise InputError(
                f"{folder / 'examples.parquet'} is damaged, or record.json beside it: {name} is {computed:.6f} by the "
                f"table and {recorded:.6f} by the record; delete the folder {folder} and run the same command again, "
                "or measure again with --fresh"
            )
