"""Files that are whole or not there."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from efficient_bert.errors import InputError


class DamagedError(InputError):
    """A file is not there, or not what was written."""


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
    """One parquet file of these tables, which are asked for one by one; its pages carry checksums."""
    with aside(path) as part, pq.ParquetWriter(part, schema, write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table)


def read_table(path: Path, schema: pa.Schema) -> pa.Table | None:
    """What `write_tables` wrote; None where there is none, of another schema, or it is damaged."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except (OSError, pa.ArrowException, ValueError):
        return None
    return table if table.schema.equals(schema) else None


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of tensors and their names, in whatever order they come: a flipped bit gives another one."""
    found = 0
    for name, tensor in sorted(tensors.items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(content, zlib.crc32(name.encode(), found))
    return found
