"""Encoded examples, and how they are taken a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

Rows = Sequence[Mapping[str, Any]]
"""Encoded examples: `input_ids` and `token_type_ids` (lists of int, [CLS] and [SEP] included) and `label` (int;
float in a regression)."""

Row = TypeVar("Row")


def chunks(rows: Sequence[Row], size: int = 64) -> Iterator[Sequence[Row]]:
    """Yield all rows in order, `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
