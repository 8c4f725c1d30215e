"""Numbers computed once for every row, kept shard by shard: a killed stage finds them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from efficient_bert.files import DamagedError, read_tensors
from efficient_bert.rows import Rows, chunks
from efficient_bert.training.loop import save_tensors

SHARD = 4096
"""Rows whose numbers are computed and stored together."""


def with_cached(rows: Rows, folder: Path, *, name: str, compute: Callable[[Rows], Tensor]) -> Rows:
    """Add to each row, under `name`, its part of what `compute` gives for a shard, (rows, ...)."""
    folder.mkdir(parents=True, exist_ok=True)
    cached = []
    for number, shard in enumerate(chunks(rows, SHARD)):
        path = folder / f"{number:05d}.safetensors"
        values = read_shard(path, name, rows=len(shard))
        if values is None:
            values = compute(shard)
            save_tensors(path, {name: values})
        cached += [{**row, name: value} for row, value in zip(shard, values, strict=True)]
    return cached


def read_shard(path: Path, name: str, *, rows: int) -> Tensor | None:
    """Read the numbers of so many rows from a shard; None where there is none, or it is damaged."""
    try:
        values = read_tensors(path)[0][name]
    except (DamagedError, KeyError):
        return None
    return values if len(values) == rows else None
