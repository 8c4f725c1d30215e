"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from efficient_bert.errors import InputError

CHECKSUM = "crc32"
"""Of a file's tensors, in its metadata."""


class DamagedError(InputError):
    """A file is not there, or not what was written."""


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Give a file of this process alone, which replaces `path` once it is written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables, taken one by one, to one parquet file; its pages carry checksums."""
    with aside(path) as part, pq.ParquetWriter(part, schema, write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table)


def read_table(path: Path, schema: pa.Schema) -> pa.Table | None:
    """Read what `write_tables` wrote; None where no file is, or it has another schema or is damaged."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except (OSError, pa.ArrowException, ValueError):
        return None
    return table if table.schema.equals(schema) else None


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """Compute the CRC-32 of tensors and their names, in any order; a flipped bit gives another one."""
    crc = 0
    for name, tensor in sorted(tensors.items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        crc = zlib.crc32(content, zlib.crc32(name.encode(), crc))
    return crc


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: tensors and metadata.

    Raises:
        DamagedError: it is not there, or not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
            metadata = {name: json.loads(value) for name, value in (stored.metadata() or {}).items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read ({type(error).__name__})") from error
    if metadata.pop(CHECKSUM, None) not in (None, checksum(tensors)):  # earlier versions wrote none
        raise DamagedError(f"{path} is damaged: its tensors are not what its checksum is of")
    return tensors, metadata


def require_same_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise DamagedError where tensors are not those of a model, by name and shape."""
    different = [name for name in {*tensors, *expected} if name not in tensors or name not in expected]
    different += [name for name in {*tensors} & {*expected} if tensors[name].shape != expected[name].shape]
    if different:
        raise DamagedError(f"a checkpoint is damaged: tensor {min(different)} is missing, or not the model's")
