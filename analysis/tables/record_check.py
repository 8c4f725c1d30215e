"""Compare a run's record with its table: a number that the table does not give is refused, not repeated."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from bench.errors import InputError
from bench.registry import METRICS
from bench.store.records import Record

_ROUNDING = 1e-6  # of another version of a library


def require_same_metrics(record: Record, examples: pd.DataFrame, *, path: Path, remedy: str) -> None:
    """Check the metrics of a record against those of its table.

    Args:
        path, remedy: the table's file and what to do where it is damaged, for the message.

    Raises:
        InputError: one differs.
    """
    for name, recorded in record.metrics.items():
        if name not in METRICS:
            continue
        computed = float(METRICS[name].compute(examples))
        if not math.isclose(recorded, computed, rel_tol=0, abs_tol=_ROUNDING):
            raise InputError(
                f"{path} is damaged, or the record beside it: {name} of run {record.run_id} is {computed:.6f} by the "
                f"table and {recorded:.6f} by the record; {remedy}"
            )
