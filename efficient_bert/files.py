"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A file of this process alone that takes the place of `path` once it is written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """One parquet file of these tables, which are asked for one by one."""
    with aside(path) as part, pq.ParquetWriter(part, schema) as writer:
        for table in tables:
            writer.write_table(table)
